"""Depth from the embedded network: windows that overlap, one scale for the clip, steady over time, edges as in the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ex4d.depth.conversion import FAR_OVER_NEAR, DisparityToDepth, check_spread, released_depth
from ex4d.depth.intrinsics import Intrinsics
from ex4d.depth.maps.recursive_filter import DECAY, smooth_both_ways
from ex4d.depth.maps.second_pass import DisparitySpool
from ex4d.depth.maps.upsample import upsample_map
from ex4d.errors import InputError
from ex4d.geometry.similarity import ScaleShift, fit_scale_shift
from ex4d.models.embedded import load as embedded
from ex4d.system.array_store import ArrayStore, MapSpool, content_key
from ex4d.types import DepthClip, Progress, VideoClip

#: Folder of the network inside the embedded weights.
PART = "depth"

#: Frames the network sees at once, and how many of them it has seen before: two windows are 49 frames, the released length.
WINDOW_FRAMES, OVERLAP_FRAMES = 27, 5

#: Short side of the network's input, what its sides are multiples of, and how long a side may grow against the short one.
SHORT_PX, MULTIPLE, LONGEST = 256, 32, 2.5

#: A window's map never falls below this share of its largest value, whatever shift was fitted.
LOWEST_SHARE = 1e-3


def available() -> bool:
    """Whether the package was built with the network's weights."""
    name = f"{PART}/{embedded.WEIGHTS}"
    return (embedded.FOLDER / embedded.HASHES).is_file() and name in embedded.hashes()


def network_size(size_hw: tuple[int, int], short_px: int = SHORT_PX) -> tuple[int, int]:
    """(height, width): the short side near `short_px`, aspect kept up to `LONGEST`, both multiples of 32."""
    scale = short_px / min(size_hw)
    sides = [max(round(min(side * scale, LONGEST * short_px) / MULTIPLE), 1) * MULTIPLE for side in size_hw]
    return sides[0], sides[1]


@dataclass(frozen=True)
class NanoDepth:
    """A DepthEstimator around `models.depth_network.ClipDepthNetwork`.

    The network says 1/z up to one scale for each window. Windows are joined by scale and shift fitted on the frames they share,
    then averaged over time along optical flow, and brought to the clip's size with the picture's own edges. Only small maps and
    the frames wait on disk between these steps; memory holds one window and one chunk.

    Attributes:
        network: Video [1, 3, time, h, w] in [-1, 1] to 1/z [1, time, h, w], up to a scale.
        intrinsics: K in pixels of the clip.
        window, overlap: Frames at once, and how many of them the window before has had.
        short_px: Short side of the network's input.
        decay: Share that a frame takes over from its neighbour in time; 0: no averaging.
        reference: Released conversion instead of the robust one.
        work_dir: Where finished windows are kept for a second run.
        far_over_near: Farthest over nearest depth at most.
        weights: What the manifest says about the weights.
    """

    network: Any
    intrinsics: Intrinsics
    window: int = WINDOW_FRAMES
    overlap: int = OVERLAP_FRAMES
    short_px: int = SHORT_PX
    decay: float = DECAY
    reference: bool = False
    work_dir: Path | None = None
    far_over_near: float = FAR_OVER_NEAR
    weights: dict[str, object] = field(default_factory=dict)
    name: str = "nano"
    _found: dict[str, object] = field(default_factory=dict, repr=False)

    def estimate(
        self, chunks: Iterable[VideoClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[DepthClip]:
        """Relative depth at the chunks' own size; nothing is random, so `seed` does not matter."""
        with ArrayStore(self.work_dir) as kept, ArrayStore() as passing:
            small, own = MapSpool(passing), MapSpool(passing)
            raw, steady = MapSpool(passing), DisparitySpool(passing)
            lengths: list[int] = []
            for map_ in self.maps(self._frames(chunks, lengths, small, own), kept):
                raw.append(map_[None])
                if progress is not None:
                    progress(len(raw), None, f"depth: {self.name}")
            if not len(raw):
                raise InputError("a video without frames", "at least one frame", "another --start or --frames")
            for map_ in smooth_both_ways(small, raw, passing, self.decay, progress):
                steady.append(map_[None])
            convert = self._conversion(steady)
            start = 0
            for length in lengths:
                at = range(start, start + length)
                maps = [
                    upsample_map(steady.read(t, t + 1)[0], *(s.read(t, t + 1)[0] for s in (small, own))) for t in at
                ]
                start += length
                if progress is not None:
                    progress(start, len(raw), "depth")
                yield DepthClip(convert(np.stack(maps)), self.intrinsics.for_frames(at.start, at.stop), "relative")

    def maps(
        self, frames: Iterable[UInt8[np.ndarray, "h w 3"]], kept: ArrayStore | None = None
    ) -> Iterator[Float32[np.ndarray, "h w"]]:
        """One map a frame of the network's own size, all on the footing of the first window."""
        buffer: list[np.ndarray] = []
        tail: list[np.ndarray] = []  # maps of the last frames, which the next window also sees
        fits: list[ScaleShift] = []
        fresh = 0
        for frame in frames:
            buffer.append(frame)
            fresh += 1
            if len(buffer) == self.window:
                joined = self._joined(tail, self._window(np.stack(buffer), kept), fits)
                keep = len(joined) - self.overlap
                yield from joined[:keep]
                tail, buffer, fresh = joined[keep:], buffer[keep:], 0
        if fresh:
            tail = self._joined(tail, self._window(np.stack(buffer), kept), fits)
        yield from tail
        self._found["windows"] = [{"scale": fit.scale, "shift": fit.shift} for fit in fits]

    def manifest(self) -> dict[str, object]:
        """Model, weights, windows with their fits, and conversion."""
        return {
            "model": self.name,
            "weights": self.weights,
            "input_short_side": self.short_px,
            "window": self.window,
            "overlap": self.overlap,
            "decay": self.decay,
            "conversion": "released" if self.reference else "robust percentiles",
            "unit": "relative",
            "intrinsics": self.intrinsics.origin,
            **self._found,
        }

    def _frames(
        self, chunks: Iterable[VideoClip], lengths: list[int], small: MapSpool, own: MapSpool
    ) -> Iterator[np.ndarray]:
        """Small frames one by one; they and the frames themselves are put aside for later steps."""
        import cv2

        for chunk in chunks:
            lengths.append(len(chunk))
            h, w = network_size(chunk.size_hw, self.short_px)
            shrinks = h < chunk.size_hw[0]
            for frame in chunk.frames:
                how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
                resized = cv2.resize(frame, (w, h), interpolation=how) if (h, w) != chunk.size_hw else frame
                small.append(resized[None])
                own.append(frame[None])
                yield resized

    def _joined(self, tail: list[np.ndarray], maps: np.ndarray, fits: list[ScaleShift]) -> list[np.ndarray]:
        """A window's maps on the footing of those before, faded in over the shared frames."""
        if not tail:
            fits.append(ScaleShift(1.0, 0.0))
            return list(maps)
        shared = maps[: len(tail)]
        step = max(1, shared.size // 50_000)
        x, y = shared.ravel()[::step], np.stack(tail).ravel()[::step]
        try:
            fit = fit_scale_shift(x, y)
        except InputError:  # nothing in common, a cut: at least the same middle
            fit = ScaleShift(float(np.median(y) / np.median(x)), 0.0)
        fits.append(fit)
        aligned = fit.apply(maps)
        aligned = np.maximum(aligned, np.float32(LOWEST_SHARE) * aligned.max())
        shares = np.linspace(0, 1, len(tail) + 2, dtype=np.float32)[1:-1]
        faded = [a * (1 - s) + b * s for a, b, s in zip(tail, aligned, shares, strict=False)]
        return [*faded, *aligned[len(tail) :]]

    def _window(
        self, frames: UInt8[np.ndarray, "time h w 3"], kept: ArrayStore | None
    ) -> Float32[np.ndarray, "time h w"]:
        """The network's maps of one window, from the store when these very frames were done before."""
        import torch

        resume = kept if self.work_dir is not None else None
        key = content_key(frames, self.name, self.weights)
        done = None if resume is None else resume.get(key)
        if done is not None:
            return done
        with torch.inference_mode():
            first = next(self.network.parameters())
            video = torch.from_numpy(frames).to(first.device).permute(3, 0, 1, 2)[None]
            out = self.network(video.to(first.dtype) / 127.5 - 1)[0].float().cpu().numpy()
        if not (np.isfinite(out).all() and (out > 0).all()):
            raise InputError(f"{self.name} gave NaN, infinite or negative values", "finite depth", "--dtype float32")
        if resume is not None:
            resume.save(key, out)
        return out

    def _conversion(self, maps: DisparitySpool) -> Callable[[np.ndarray], np.ndarray]:
        """1/z up to a scale to depth: nearest 1, farther ones in proportion, at most `far_over_near`."""
        check_spread(maps.lowest, maps.highest)
        self._found["disparity_range"] = [maps.lowest, maps.highest]
        if self.reference:
            return lambda d: released_depth(d, maps.lowest, maps.highest)
        robust = maps.conversion(self.far_over_near)
        ratio = min(robust.highest / max(robust.lowest, robust.highest / self.far_over_near), self.far_over_near)
        self._found["far_over_near"] = ratio
        return DisparityToDepth(robust.highest / ratio, robust.highest, ratio)


def load_nano(
    intrinsics: Intrinsics,
    *,
    device: str = "cpu",
    folder: Path | None = None,
    reference: bool = False,
    work_dir: Path | None = None,
    far_over_near: float = FAR_OVER_NEAR,
) -> NanoDepth:
    """The estimator with the embedded weights, float32.

    Args:
        intrinsics: K in pixels of the clip.
        device: Where the network runs.
        folder: Other weights than the package's, with their own hashes.
        reference, work_dir, far_over_near: See `NanoDepth`.

    Raises:
        WeightsError: The weights are missing, or their bytes are not the published ones.
    """
    from ex4d.models.depth.nano import ClipDepthNetwork

    network = embedded.load_model(ClipDepthNetwork, PART, folder=folder).to(device)
    weights: dict[str, object] = {"embedded": PART, "sha256": embedded.hashes(folder)[f"{PART}/{embedded.WEIGHTS}"]}
    return NanoDepth(
        network, intrinsics, reference=reference, work_dir=work_dir, far_over_near=far_over_near, weights=weights
    )
