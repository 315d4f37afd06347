"""Another number of poses, another lens: what `ex4d cameras convert` does between reading and writing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ex4d.cameras.formats.track import CameraTrack, focal_over_height, invert_affine
from ex4d.errors import InputError
from ex4d.geometry.pinhole import resize_intrinsics
from ex4d.geometry.rotations import screw


def resample_track(track: CameraTrack, num_frames: int) -> CameraTrack:
    """The same way in another number of frames: first and last pose stay, screw motions between neighbours."""
    if num_frames < 1:
        raise InputError(f"{num_frames} frames", "at least 1", "--frames 49")
    at = np.linspace(0, len(track) - 1, num_frames)
    low = np.minimum(at.astype(int), max(len(track) - 2, 0))
    high = np.minimum(low + 1, len(track) - 1)
    share = at - low
    world_from_cam = track.world_from_cam
    poses = invert_affine(screw(world_from_cam[low], world_from_cam[high], share))
    exact = share == 0
    poses[exact] = track.cam_from_world[low[exact]]

    def between(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        return values[low] * (1 - weight) + values[high] * weight

    return replace(
        track,
        cam_from_world=poses,
        K=between(track.K),
        focal_over_height=between(track.focal_over_height),
        zoom=between(track.zoom),
        source_time=between(track.source_time),
        time_s=between(track.time_s),
        names=None,
        extras={},
    )


def with_lens(track: CameraTrack, size_hw: tuple[int, int] | None, focal: float | None) -> CameraTrack:
    """The track at a picture size, with a focal length in its pixels where it has none of its own."""
    if focal is not None and not focal > 0:
        raise InputError(f"--focal {focal}", "pixels > 0", "--focal 500")
    if track.K is not None and track.size_hw is not None:
        if size_hw is None or size_hw == track.size_hw:
            return track
        return replace(track, K=resize_intrinsics(track.K, track.size_hw, size_hw), size_hw=size_hw)
    if size_hw is None:
        return track
    h, w = size_hw
    has_focal = track.focal_over_height is not None
    if not has_focal and focal is None:
        return replace(track, size_hw=size_hw)
    fy = focal_over_height(track) * (h if has_focal else float(focal or 0))
    K = np.tile(np.array([[1.0, 0, w / 2], [0, 1.0, h / 2], [0, 0, 1]]), (len(track), 1, 1))
    K[:, [0, 1], [0, 1]] = fy[:, None]
    return replace(track, K=K, size_hw=size_hw)
