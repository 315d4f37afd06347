"""How deep a relative scene is: the unknown shift of a disparity map, from the parallax of a camera that moves.

Affine disparity says s/z + t. A wrong t bends space, and then no camera motion explains where the points of one frame go in
others. So the ratio of the farthest to the nearest depth is the one that lets a rigid camera explain the tracks best.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, UInt8

from ex4d.depth.conversion import FAR_OVER_NEAR, DisparityToDepth, sample_values
from ex4d.depth.source_cameras.odometry import FEWEST_INLIERS, sample_depth, solve_pose
from ex4d.geometry.frames import transform_points
from ex4d.geometry.pinhole import project, unproject
from ex4d.pixels.tracks import PointTracker

#: Ratios that are tried: from a wall with relief to an open landscape.
RATIOS = np.geomspace(1.3, 120, 16)

#: Frames that are looked ahead at most, and the share of points that must survive.
LOOK_AHEAD, SURVIVORS = 40, 0.4

#: Reprojection errors are cut off here (pixels of a 640-pixel-wide picture): movers must not decide.
CUT_PX = 4.0

#: A ratio is believed when it explains the tracks this much better than the default: as a share, and in pixels of a
#: 640-pixel-wide picture (a still camera leaves errors of almost nothing, and nothing to choose by).
BETTER_BY, BETTER_PX = 0.8, 0.15


def depth_ratio_from_parallax(
    gray_at: Callable[[int], UInt8[np.ndarray, "height width"]],
    num_frames: int,
    first: Float32[np.ndarray, "height width"],
    K: Float32[np.ndarray, "3 3"],
) -> float | None:
    """Farthest over nearest depth of the first frame, or None when the camera does not move enough to tell.

    Args:
        gray_at: Grey picture of a frame.
        num_frames: How many there are.
        first: Affine disparity of frame 0.
        K: Intrinsics of the pictures.
    """
    views = _views(gray_at, num_frames)
    if not views:
        return None
    scale = first.shape[1] / 640
    samples = sample_values(first[None])

    def error(ratio: float) -> float:
        depth = DisparityToDepth.robust(samples, ratio)(first)
        total = []
        for start, now in views:
            z, trusted = sample_depth(depth, start)
            points = unproject(start[trusted], z[trusted], K)
            pose, inliers = solve_pose(points, now[trusted], K, np.eye(4), CUT_PX * scale)
            if inliers.sum() < FEWEST_INLIERS:
                return CUT_PX * scale
            gap = np.linalg.norm(project(transform_points(pose, points), K) - now[trusted], axis=1)
            total.append(np.minimum(gap, CUT_PX * scale).mean())
        return float(np.mean(total))

    errors = np.array([error(ratio) for ratio in RATIOS])
    best = int(errors.argmin())
    default = error(FAR_OVER_NEAR)
    if errors[best] > BETTER_BY * default or errors[best] > default - BETTER_PX * scale:
        return None
    fine = np.geomspace(RATIOS[max(best - 1, 0)], RATIOS[min(best + 1, len(RATIOS) - 1)], 9)
    return float(fine[int(np.argmin([error(ratio) for ratio in fine]))])


def _views(gray_at: Callable[[int], np.ndarray], num_frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(positions in frame 0, positions now) of the points that live, at a third, two thirds and all of the look-ahead."""
    tracker = PointTracker()
    tracker.step(gray_at(0))
    if tracker.top_up() < 2 * FEWEST_INLIERS:
        return []
    start = tracker.xy.copy()
    first_ids, kept = len(start), []
    for index in range(1, min(num_frames, LOOK_AHEAD)):
        start = start[tracker.step(gray_at(index))]
        if len(start) < SURVIVORS * first_ids:
            break
        kept.append((start.copy(), tracker.xy.copy()))
    return [kept[len(kept) * share // 3 - 1] for share in (1, 2, 3)] if len(kept) >= 3 else []
