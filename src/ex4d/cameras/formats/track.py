"""What a camera file holds: poses in its own world, and whatever else its format can carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from ex4d.errors import InputError
from ex4d.geometry.pinhole import resize_intrinsics
from ex4d.types import CameraPath, Unit

#: "source": the file's world is the first source camera. "file": some other world; only relative motion means anything.
World = Literal["source", "file"]

#: Two shapes count as the same aspect below this relative difference (one pixel in 200).
ASPECT_TOLERANCE = 5e-3


def invert_affine(b_from_a: Float64[np.ndarray, "*batch 4 4"]) -> Float64[np.ndarray, "*batch 4 4"]:
    """The numerical inverse: files hold rotations of six digits, and their transpose would not give the file back.

    A matrix without an inverse becomes NaN, which lint and `CameraPath` then name.
    """
    flat = b_from_a.reshape(-1, 4, 4)
    out = np.full(flat.shape, np.nan)
    good = np.isfinite(flat).all(axis=(1, 2)) & (np.abs(np.linalg.det(np.nan_to_num(flat))) > 1e-12)
    out[good] = np.linalg.inv(flat[good])
    return out.reshape(b_from_a.shape)


@dataclass(frozen=True)
class CameraTrack:
    """One camera of a file, in OpenCV axes.

    Poses are not checked here, so that lint can look at a broken file; `to_path` checks them.

    Attributes:
        cam_from_world: World to camera, OpenCV axes; the file's world (right-handed).
        K: Pixels of `size_hw`, or None.
        size_hw: Picture that K belongs to.
        focal_over_height: fy / height, for formats that hold a vertical field of view and no picture.
        zoom: Focal length as a multiple of the source's, for formats that hold only that.
        fps: Frames a second.
        source_time: Source frame that each pose shows.
        time_s: Timestamps in seconds.
        names: Picture file names.
        unit: Of the translations.
        world: What the world is.
        extras: What only this format holds, so that a file can be written back unchanged.
    """

    cam_from_world: Float64[np.ndarray, "time 4 4"]
    K: Float64[np.ndarray, "time 3 3"] | None = None
    size_hw: tuple[int, int] | None = None
    focal_over_height: Float64[np.ndarray, " time"] | None = None
    zoom: Float64[np.ndarray, " time"] | None = None
    fps: Fraction | None = None
    source_time: Float64[np.ndarray, " time"] | None = None
    time_s: Float64[np.ndarray, " time"] | None = None
    names: tuple[str, ...] | None = None
    unit: Unit = "relative"
    world: World = "source"
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.cam_from_world.shape[0]

    @property
    def world_from_cam(self) -> Float64[np.ndarray, "time 4 4"]:
        """Camera to world, OpenCV axes."""
        return invert_affine(self.cam_from_world)

    def rebased(self) -> CameraTrack:
        """The same motion in the world of the first pose, which becomes the identity."""
        poses = self.cam_from_world @ invert_affine(self.cam_from_world[:1])
        poses[0] = np.eye(4)
        return replace(self, cam_from_world=poses, world="source")

    def scaled(self, factor: float) -> CameraTrack:
        """Translations times `factor`."""
        poses = self.cam_from_world.copy()
        poses[:, :3, 3] *= factor
        return replace(self, cam_from_world=poses)


def track_from_path(path: CameraPath, fps: Fraction | None = None, unit: Unit = "relative") -> CameraTrack:
    """What a writer needs of a path."""
    return CameraTrack(
        path.cam_from_world,
        path.K.astype(np.float64),
        path.size_hw,
        fps=fps,
        source_time=path.source_time,
        unit=unit,
    )


def path_from_track(
    track: CameraTrack,
    *,
    size_hw: tuple[int, int] | None = None,
    K: np.ndarray | None = None,
    lens: Literal["file", "source"] = "file",
    world: Literal["auto", "first", "file"] = "auto",
    name: str = "",
) -> CameraPath:
    """A path for the line.

    Args:
        track: From a reader.
        size_hw: Output picture; default the file's own.
        K: The source's [3, 3] at `size_hw`: used with lens="source", and where the file has no lens.
        lens: "file" takes the file's focal lengths; "source" takes the source's and only follows the file's zooming.
        world: "first" makes the first pose the identity, "file" takes poses as they are, "auto" does what the format means.
        name: For manifests.
    """
    size = size_hw or track.size_hw
    if size is None:
        raise InputError("a camera file that names no picture size", "the picture's size", "--size 1024x576")
    rebase = world == "first" or (world == "auto" and track.world == "file")
    moved = track.rebased() if rebase else track
    time = track.source_time if track.source_time is not None else np.arange(len(track), dtype=np.float64)
    intrinsics = _intrinsics(track, size, K, lens).astype(np.float32)
    return CameraPath(moved.cam_from_world, intrinsics, size, time, name)


def _intrinsics(track: CameraTrack, size_hw: tuple[int, int], K: np.ndarray | None, lens: str) -> np.ndarray:
    absolute = _file_intrinsics(track, size_hw) if lens == "file" or K is None else None
    if absolute is not None:
        return absolute
    if K is None:
        raise InputError("a camera file without a lens", "a focal length", "--focal 500 (pixels)")
    out = np.repeat(K[None].astype(np.float64), len(track), axis=0)
    out[:, :2, :2] *= relative_zoom(track)[:, None, None]
    return out


def _file_intrinsics(track: CameraTrack, size_hw: tuple[int, int]) -> np.ndarray | None:
    h, w = size_hw
    if track.K is not None and track.size_hw is not None:
        fh, fw = track.size_hw
        if abs(fw / fh * h / w - 1) < ASPECT_TOLERANCE:
            return resize_intrinsics(track.K, track.size_hw, size_hw)
        scale = max(h / fh, w / fw)  # another aspect: cover and crop the middle, as the formats' own tools do
        out = track.K.copy()
        out[:, :2] *= scale
        out[:, 0, 2] += (w - fw * scale) / 2
        out[:, 1, 2] += (h - fh * scale) / 2
        return out
    if track.focal_over_height is not None:
        out = np.tile(np.array([[1.0, 0, w / 2], [0, 1.0, h / 2], [0, 0, 1]]), (len(track), 1, 1))
        out[:, [0, 1], [0, 1]] = (track.focal_over_height * h)[:, None]
        return out
    return None


def relative_zoom(track: CameraTrack) -> Float64[np.ndarray, " time"]:
    """Focal length of each frame as a multiple of the first one's."""
    if track.zoom is not None:
        return track.zoom
    if track.focal_over_height is not None:
        return track.focal_over_height / track.focal_over_height[0]
    if track.K is not None:
        return track.K[:, 1, 1] / track.K[0, 1, 1]
    return np.ones(len(track))


def focal_over_height(track: CameraTrack) -> Float64[np.ndarray, " time"]:
    """fy / height, for writers of formats with a vertical field of view; a 53 degree lens where nothing is known."""
    if track.focal_over_height is not None:
        return track.focal_over_height
    if track.K is not None and track.size_hw is not None:
        return track.K[:, 1, 1] / track.size_hw[0]
    return relative_zoom(track)


def need_intrinsics(track: CameraTrack, format_name: str) -> tuple[np.ndarray, tuple[int, int]]:
    """K and size, or the error that says they are missing."""
    if track.K is None or track.size_hw is None:
        raise InputError(
            f"cameras without a lens or picture size, for {format_name}", "both", "--size 1024x576 --focal 500"
        )
    return track.K, track.size_hw
