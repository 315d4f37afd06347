"""How good the depth of a clip is when one scale and one shift are free for the whole CLIP, and how much it flickers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ex4d.geometry.frames import invert_rigid, transform_points
from ex4d.geometry.pinhole import project, px_centers, unproject
from ex4d.geometry.similarity import ScaleShift, fit_scale_shift

#: Values that fix scale and shift; more change nothing.
FIT_SAMPLES = 60_000

#: A point counts as seen again when its new pixel shows a depth within this share of its own; sensors err by a few percent.
SEEN_AGAIN = 0.03


class DepthScore(NamedTuple):
    """AbsRel (mean of |z - true| / true) and delta1 (share of pixels within a factor of 1.25)."""

    abs_rel: float
    delta1: float


def fitted(
    depth: Float[np.ndarray, "time h w"], truth: Float[np.ndarray, "time h w"], valid: Bool[np.ndarray, "time h w"]
) -> Float[np.ndarray, "time h w"]:
    """Depth after the scale and shift of 1/z that fit the truth of the whole clip best (robust), within the truth's range."""
    x, y = 1 / depth[valid].astype(np.float64), 1 / truth[valid].astype(np.float64)
    step = max(1, len(x) // FIT_SAMPLES)
    fit: ScaleShift = fit_scale_shift(x[::step], y[::step])
    near, far = float(truth[valid].min()), float(truth[valid].max())
    return 1 / np.clip(fit.scale / depth.astype(np.float64) + fit.shift, 1 / far, 1 / near)


def score(
    depth: Float[np.ndarray, "time h w"], truth: Float[np.ndarray, "time h w"], valid: Bool[np.ndarray, "time h w"]
) -> DepthScore:
    """Of depth that is fitted already."""
    z, true = depth[valid], truth[valid]
    ratio = np.maximum(z / true, true / z)
    return DepthScore(float((np.abs(z - true) / true).mean()), float((ratio < 1.25).mean()))


def ramp(shape: tuple[int, ...]) -> Float[np.ndarray, "time h w"]:
    """What a model must beat: 1/z grows evenly from the top row to the bottom row, whatever the picture shows."""
    inverse = (np.arange(shape[1]) + 0.5) / shape[1]
    return np.broadcast_to(1 / inverse[None, :, None], shape).copy()


class Unsteadiness(NamedTuple):
    """Of points that stand still: `flicker`, mean |second difference over time| of log depth less what the camera's motion asks
    for (a scale that jumps, noise); `drift`, mean |first difference| of the same (also depth that slides with the picture)."""

    flicker: float
    drift: float


def unsteadiness(
    depth: Float[np.ndarray, "time h w"],
    truth: Float[np.ndarray, "time h w"],
    valid: Bool[np.ndarray, "time h w"],
    K: Float[np.ndarray, "3 3"],
    cam_from_world: Float[np.ndarray, "time 4 4"] | None = None,
) -> Unsteadiness:
    """Of depth up to one scale; a fit is better left out, since its clamps and its shift magnify what is far.

    Every pixel is carried into the frames before and after by its true depth and the true cameras; pixels that are hidden there, or
    whose depth is another (movers), take no part. Zeros for fewer than three frames.
    """
    log_depth, flickers, drifts = np.log(depth), [], []
    for t in range(1, len(depth) - 1):
        good = valid[t].copy()
        points = unproject(px_centers(depth.shape[1:])[good], truth[t][good].astype(np.float64), K)
        changes, same = [], np.ones(len(points), bool)
        for other in (t - 1, t + 1):
            moved = points
            if cam_from_world is not None:
                moved = transform_points(cam_from_world[other] @ invert_rigid(cam_from_world[t]), points)
            px, z = project(moved, K), np.maximum(moved[:, 2], 1e-9)
            near, trusted = _bilinear(np.where(valid[other], truth[other], np.nan), px)
            same &= trusted & (np.abs(near - z) < SEEN_AGAIN * z)
            changes.append(_bilinear(log_depth[other], px)[0] - log_depth[t][good] - np.log(z / points[:, 2]))
        if same.any():
            before, after = (change[same] for change in changes)
            flickers.append(np.abs(before + after).mean())
            drifts.append(np.abs(after).mean())
    return Unsteadiness(float(np.mean(flickers)), float(np.mean(drifts))) if flickers else Unsteadiness(0.0, 0.0)


def _bilinear(
    map_: Float[np.ndarray, "h w"], px: Float[np.ndarray, "n 2"]
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """(value at pixels with centres at +0.5, whether they are inside and all four neighbours within 5 % of each other)."""
    h, w = map_.shape
    px = np.where(np.isfinite(px), np.clip(px, -1e6, 1e6), -1e6)
    inside = (px >= 0.5).all(axis=1) & (px[:, 0] <= w - 0.5) & (px[:, 1] <= h - 0.5)
    x, y = np.clip(px - 0.5, 0, [w - 1, h - 1]).T
    left, top = x.astype(int), y.astype(int)
    right, below = np.minimum(left + 1, w - 1), np.minimum(top + 1, h - 1)
    corners = np.stack([map_[top, left], map_[top, right], map_[below, left], map_[below, right]])
    a, b = x - left, y - top
    value = (np.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b]) * corners).sum(axis=0)
    with np.errstate(invalid="ignore"):
        spread = corners.max(axis=0) - corners.min(axis=0) <= 0.05 * np.abs(corners).max(axis=0)
    return value, inside & spread & np.isfinite(corners).all(axis=0)
