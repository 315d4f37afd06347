"""Depth the user brings: any kind of map, validated, converted to z, at the clip's own size.

This stage opens no files. `DepthMaps` holds a function that reads maps by frame range; `ex4d.io.depth.open.open_depth(path)` makes
one from a depth.npz, an EXR or 16-bit PNG sequence, or a video-coded disparity file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Float64

from ex4d.depth.conversion import FAR_OVER_NEAR, DisparityToDepth, check_spread, released_depth, sample_values
from ex4d.depth.intrinsics import Intrinsics
from ex4d.errors import InputError
from ex4d.geometry.pinhole import resize_intrinsics
from ex4d.types import DepthClip, DepthKind, Progress, Unit, VideoClip, check_rigid

log = logging.getLogger(__name__)

#: Frames read at once in the first pass.
PASS_FRAMES = 16


@dataclass(frozen=True)
class DepthMaps:
    """Maps as a file holds them.

    Attributes:
        read: (start, stop) -> [stop - start, height, width] of any real dtype, as stored times the format's own scale
            (16-bit PNG: millimetres become metres there when that is stated). May be called in any order, twice.
        num_frames: How many maps there are.
        size_hw: Their (height, width), which may differ from the clip's.
        kind: What the numbers mean when the file says so; None: detected, with a warning.
        K: Intrinsics in pixels of `size_hw`, [3, 3] or [num_frames, 3, 3], or None.
        cam_from_world: Source poses [num_frames, 4, 4], or None.
        name: For messages and the manifest, usually the path.
    """

    read: Callable[[int, int], np.ndarray]
    num_frames: int
    size_hw: tuple[int, int]
    kind: DepthKind | None = None
    K: Float[np.ndarray, "*time 3 3"] | None = None
    cam_from_world: Float64[np.ndarray, "time 4 4"] | None = None
    name: str = "depth"

    @classmethod
    def of(cls, maps: Float[np.ndarray, "time height width"], **more: object) -> DepthMaps:
        """From an array in memory."""
        return cls(lambda start, stop: maps[start:stop], len(maps), maps.shape[1:3], **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PrecomputedDepth:
    """A DepthEstimator that reads maps instead of estimating them.

    Attributes:
        maps: The maps.
        intrinsics: K in pixels of the clip.
        reference: Released conversion of disparity (clip-wide minimum and maximum) instead of the robust one.
        fill_holes: Fill NaN, zero and negative values from their neighbours instead of refusing them.
        scale: Multiplies relative or metric depth, for instance from `geometry.similarity.fit_scale_shift`.
    """

    maps: DepthMaps
    intrinsics: Intrinsics
    reference: bool = False
    fill_holes: bool = False
    scale: float = 1.0
    far_over_near: float = FAR_OVER_NEAR
    name: str = "file"
    _found: dict[str, object] = field(default_factory=dict, repr=False)

    def estimate(
        self, chunks: Iterable[VideoClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[DepthClip]:
        """Depth of the chunks' frames, resized to them.

        Raises:
            InputError: NaN, zero or negative depth (unless `fill_holes`), the same value everywhere, fewer or more maps
                than the clip has frames, poses that are not rigid.
        """
        samples = self._first_pass()
        kind = self.maps.kind or self._detected(samples)
        to_depth = self._conversion(kind, samples)
        if self.maps.cam_from_world is not None:
            check_rigid(self.maps.cam_from_world, f"poses of {self.maps.name}")
        start = 0
        for chunk in chunks:
            stop = start + len(chunk)
            self._check_length(stop, at_least=True)
            depth = to_depth(self._read(start, stop, kind))
            if depth.shape[1:3] != chunk.size_hw:
                self._found["resized_from"] = f"{depth.shape[2]}x{depth.shape[1]}"
            depth = np.stack([resize_depth(frame, chunk.size_hw) for frame in depth])
            poses = (
                None if self.maps.cam_from_world is None else self.maps.cam_from_world[start:stop].astype(np.float64)
            )
            unit: Unit = "metric" if kind == "metric" else "relative"
            yield DepthClip(depth, self.intrinsics.for_frames(start, stop), unit, poses)
            start = stop
            if progress is not None:
                progress(start, self.maps.num_frames, "depth")
        self._check_length(start, at_least=False)

    def manifest(self) -> dict[str, object]:
        """File, kind, scale and intrinsics; what was detected is there once `estimate` has begun."""
        return {
            "model": self.name,
            "source": self.maps.name,
            "kind": self.maps.kind,
            "scale": self.scale,
            "intrinsics": self.intrinsics.origin,
            **self._found,
        }

    def notes(self) -> list[str]:
        """What the user should know, one line each; complete once `estimate` has ended."""
        found = (
            [f"depth of {self._found['resized_from']} is resized to the video"] if "resized_from" in self._found else []
        )
        lowest, highest = self._found.get("raw_range", (0, 1))  # type: ignore[misc]
        if lowest == highest:
            found.append(f"every pixel of {self.maps.name} has the same depth {lowest:g}: a flat wall")
        if "detected" in str(self._found.get("kind", "")):
            found.append(
                f"{self.maps.name} does not say what its numbers are; taken as {self._found['kind']}; --depth-kind states it"
            )
        return found

    def _check_length(self, frames: int, *, at_least: bool) -> None:
        if frames > self.maps.num_frames or (not at_least and frames != self.maps.num_frames):
            raise InputError(
                f"{self.maps.num_frames} depth maps in {self.maps.name} for a video of {frames}{'+' if at_least else ''} frames",
                "one depth map per frame",
                f"--frames {min(frames, self.maps.num_frames)}",
            )

    def _first_pass(self) -> Float32[np.ndarray, " n"]:
        """Validate every map once, before anything is written; returns samples for the clip-wide numbers."""
        if self.maps.num_frames == 0:
            raise InputError(
                f"no depth maps in {self.maps.name}", "at least one", "a depth.npz with depth [time, H, W]"
            )
        samples, lowest, highest = [], np.inf, -np.inf
        for start in range(0, self.maps.num_frames, PASS_FRAMES):
            maps = self._read(start, min(start + PASS_FRAMES, self.maps.num_frames), self.maps.kind)
            lowest, highest = min(lowest, float(maps.min())), max(highest, float(maps.max()))
            samples.append(sample_values(maps))
        if self.maps.kind in (None, "disparity"):  # a flat wall is valid depth; a flat disparity has no scale
            check_spread(lowest, highest)
        self._found["raw_range"] = [lowest, highest]
        return np.concatenate(samples)

    def _read(self, start: int, stop: int, kind: DepthKind | None) -> Float32[np.ndarray, "time height width"]:
        maps = np.asarray(self.maps.read(start, stop)).astype(np.float32)
        if maps.shape != (stop - start, *self.maps.size_hw):
            raise InputError(
                f"depth of shape {maps.shape} in {self.maps.name}",
                f"{(stop - start, *self.maps.size_hw)}",
                "a whole file",
            )
        # A disparity of any sign is fine (its offset is unknown); everything else must be positive.
        bad = ~np.isfinite(maps) if kind == "disparity" else ~(np.isfinite(maps) & (maps > 0))
        if kind is None:  # not stated: zeros may be a disparity's far end, negative depth may not
            bad = ~np.isfinite(maps)
        if not bad.any():
            return maps
        if not self.fill_holes:
            frame = int(np.argmax(bad.any(axis=(1, 2))))
            what = "NaN or infinite" if not np.isfinite(maps[bad]).all() else "zero or negative"
            raise InputError(
                f"{what} depth in frame {start + frame} of {self.maps.name} ({bad[frame].mean():.2%} of its pixels)",
                "finite depth above 0 in every pixel",
                "--fill-holes, which fills them from their neighbours",
            )
        return np.stack([fill_invalid(frame, ~wrong, self.maps.name) for frame, wrong in zip(maps, bad, strict=True)])

    def _detected(self, samples: Float32[np.ndarray, " n"]) -> DepthKind:
        maps = self._read(0, 1, None)[0]
        kind = detect_kind(maps, samples)
        self._found["kind"] = f"{kind} (detected)"
        log.warning(
            "%s does not say what its numbers are; taken as %s. State it with --depth-kind metric|relative|inverse|disparity",
            self.maps.name,
            kind,
        )
        if kind != "disparity" and samples.min() <= 0:
            raise InputError(
                f"zero or negative depth in {self.maps.name}",
                "depth above 0",
                "--depth-kind disparity, or --fill-holes",
            )
        return kind

    def _conversion(self, kind: DepthKind, samples: Float32[np.ndarray, " n"]) -> Callable[[np.ndarray], np.ndarray]:
        if kind == "disparity" and self.reference:
            lowest, highest = self._found["raw_range"]  # type: ignore[misc]
            return lambda maps: released_depth(maps, lowest, highest)
        if kind == "disparity":
            convert = DisparityToDepth.robust(samples, self.far_over_near)
            self._found["disparity_range"] = [convert.lowest, convert.highest]
            return convert
        scale = np.float32(self.scale)
        if kind == "inverse":
            return lambda maps: scale / maps
        return lambda maps: maps * scale


#: Relative difference of aspect up to which a depth map is the same picture at another size (rounding to whole pixels).
ASPECT_TOLERANCE = 0.02


def check_aspect(maps: DepthMaps, size_hw: tuple[int, int]) -> None:
    """InputError when the maps are not the video's picture at some size."""
    (dh, dw), (h, w) = maps.size_hw, size_hw
    if abs(dw * h / (dh * w) - 1) > ASPECT_TOLERANCE and abs(dw * h / dh - w) > 1 and abs(dh * w / dw - h) > 1:
        raise InputError(
            f"depth maps of {dw}x{dh} in {maps.name} for a video of {w}x{h}",
            "the same aspect",
            "--size as the depth was made for",
        )


def detect_kind(first: Float32[np.ndarray, "height width"], samples: Float32[np.ndarray, " n"]) -> DepthKind:
    """Guess what unlabelled numbers mean: a picture's lower part is nearer than its upper part almost always.

    So values that fall towards the bottom are depth ("relative": no unit is guessed), values that grow are disparity.
    Zero or negative values can only be disparity.
    """
    third = max(1, first.shape[0] // 3)
    if samples.min() <= 0:
        return "disparity"
    return "relative" if np.median(first[-third:]) < np.median(first[:third]) else "disparity"


def fill_invalid(
    frame: Float32[np.ndarray, "height width"], valid: np.ndarray, name: str
) -> Float32[np.ndarray, "height width"]:
    """Replace invalid pixels by the farther end of their surroundings: a sensor's holes lie beside the nearer surface.

    Grows outward from the valid pixels, ring by ring, taking the largest known neighbour. InputError when over half is invalid.
    """
    import cv2

    if valid.mean() < 0.5:
        raise InputError(
            f"{1 - valid.mean():.0%} of a depth map of {name} is invalid",
            "at least half of it valid",
            "another depth source",
        )
    out, known = np.where(valid, frame, -np.inf).astype(np.float32), valid.astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    while not known.all():
        out = np.where(known > 0, out, cv2.dilate(out, kernel))
        known = cv2.dilate(known, kernel)
    return out


def resize_depth(
    frame: Float32[np.ndarray, "height width"], size_hw: tuple[int, int]
) -> Float32[np.ndarray, "height width"]:
    """Depth at another size, interpolated in 1/z (planes stay planes); the same array when the size is right."""
    if frame.shape == tuple(size_hw):
        return frame
    import cv2

    shrink = frame.shape[0] > size_hw[0] and frame.shape[1] > size_hw[1]
    how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return 1 / cv2.resize(1 / frame, (size_hw[1], size_hw[0]), interpolation=how)


def maps_intrinsics(maps: DepthMaps, size_hw: tuple[int, int]) -> Float32[np.ndarray, "*time 3 3"] | None:
    """K of the file, in pixels of the clip."""
    if maps.K is None:
        return None
    return resize_intrinsics(np.asarray(maps.K, np.float32), maps.size_hw, size_hw)
