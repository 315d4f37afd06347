"""Depth brought into the units of cameras, or of sparse points, that the user gives."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

from ex4d.depth.source_cameras.odometry import FEWEST_INLIERS, sample_depth
from ex4d.errors import InputError
from ex4d.geometry.frames import invert_rigid, transform_points
from ex4d.geometry.pinhole import project, unproject
from ex4d.geometry.similarity import ScaleShift, fit_scale_shift
from ex4d.pixels.tracks import PointTracker, to_gray
from ex4d.types import DepthClip, VideoClip

#: Rays that meet at less than this angle (degrees) say nothing about depth.
LEAST_ANGLE_DEG = 1.0

#: Share of the triangulated points that must agree with cameras of the same video (movers and mistakes take the rest).
LEAST_AGREEMENT = 0.4

#: Reprojection error, in pixels of a 640-pixel-wide picture, that a triangulated point may have.
WITHIN_PX = 2.0


def scale_to_cameras(
    video: VideoClip, depth: DepthClip, cam_from_world: Float64[np.ndarray, "time 4 4"], *, shift: bool = False
) -> ScaleShift | None:
    """What takes the depth's 1/z to the 1/z of the given cameras' world, from triangulated tracks; None without parallax.

    Depth in the cameras' units is depth / scale (for shift 0). Points that move do not reproject and take no part.

    Raises:
        InputError: Tracks and cameras contradict each other (poses of another clip, inverted, or in other axes).
    """
    ours, theirs, tried, kept = [], [], 0, 0
    tracker = PointTracker()
    tracker.step(to_gray(video.frames[0]))
    tracker.top_up()
    start = tracker.xy.copy()
    for index in range(1, len(video)):
        start = start[tracker.step(to_gray(video.frames[index]))]
        if index % max(1, len(video) // 8) and index != len(video) - 1:
            continue
        now_from_first = cam_from_world[index] @ invert_rigid(cam_from_world[0])
        z, wide, good = triangulate(start, tracker.xy, depth.K[0], depth.K[index], now_from_first, video.size_hw[1])
        own, trusted = sample_depth(depth.depth[0], start)
        use = wide & good & trusted
        ours.append(1 / own[use])
        theirs.append(1 / z[use])
        tried, kept = tried + int(wide.sum()), kept + int((wide & good).sum())
    if tried and kept < LEAST_AGREEMENT * tried:
        raise InputError(
            f"cameras that {kept / tried:.0%} of the tracked points agree with",
            "poses of this video (cam_from_world, OpenCV axes)",
            "ex4d cameras lint FILE, or --source-cameras estimate",
        )
    x, y = np.concatenate([[], *ours]), np.concatenate([[], *theirs])
    return fit_scale_shift(x, y, shift=shift) if len(x) >= FEWEST_INLIERS else None


def scale_to_points(
    depth: Float32[np.ndarray, "height width"],
    xy: Float[np.ndarray, "n 2"],
    z: Float[np.ndarray, " n"],
    *,
    shift: bool = True,
) -> ScaleShift:
    """What takes a map's 1/z to that of sparse points of known depth (SLAM or COLMAP points seen in this frame)."""
    own, trusted = sample_depth(depth, np.asarray(xy, np.float32))
    use = trusted & np.isfinite(z) & (np.asarray(z) > 0)
    if use.sum() < 2:
        raise InputError(f"{int(use.sum())} usable sparse points", "two or more, away from depth edges")
    return fit_scale_shift(1 / own[use], 1 / np.asarray(z, np.float64)[use], shift=shift)


def rescaled(depth: Float32[np.ndarray, "*batch"], fit: ScaleShift) -> Float32[np.ndarray, "*batch"]:
    """Depth whose 1/z was fitted, in the new units; far points stay finite (at most 1000 times the nearest)."""
    inverse = fit.apply(1 / depth)
    return 1 / np.maximum(inverse, np.float32(1e-3) * inverse.max())


def triangulate(
    a: Float[np.ndarray, "n 2"],
    b: Float[np.ndarray, "n 2"],
    Ka: Float32[np.ndarray, "3 3"],
    Kb: Float32[np.ndarray, "3 3"],
    b_from_a: Float64[np.ndarray, "4 4"],
    width: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(depth in a, whether the rays meet at a usable angle, whether the point reprojects)."""
    if len(a) == 0:
        return np.zeros(0), np.zeros(0, bool), np.zeros(0, bool)
    P = [Ka.astype(np.float64) @ np.eye(4)[:3], Kb.astype(np.float64) @ b_from_a[:3]]
    homogeneous = cv2.triangulatePoints(P[0], P[1], a.T.astype(np.float64), b.T.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        points = (homogeneous[:3] / homogeneous[3]).T
    there = transform_points(b_from_a, points)
    ray_a = unproject(a.astype(np.float64), np.ones(len(a)), Ka)
    ray_b = unproject(b.astype(np.float64), np.ones(len(b)), Kb) @ b_from_a[:3, :3]
    cosine = (ray_a * ray_b).sum(1) / np.linalg.norm(ray_a, axis=1) / np.linalg.norm(ray_b, axis=1)
    wide = np.arccos(np.clip(cosine, -1, 1)) > np.deg2rad(LEAST_ANGLE_DEG)
    error = np.maximum(np.linalg.norm(project(points, Ka) - a, axis=1), np.linalg.norm(project(there, Kb) - b, axis=1))
    good = np.isfinite(error) & (error < WITHIN_PX * width / 640) & (points[:, 2] > 0) & (there[:, 2] > 0)
    return points[:, 2], wide, good
