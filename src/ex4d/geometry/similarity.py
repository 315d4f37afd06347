"""Similarity transforms of 3-D space and scale-and-shift fits of maps: how two reconstructions are laid over each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ex4d.errors import InputError
from ex4d.geometry.frames import eye_in_world, rotation_angle_rad

#: Rounds of reweighting in the robust fits; they settle in fewer than ten on every case tried.
ROBUST_ROUNDS = 30

#: Tukey's biweight constant: 95 % efficiency on Gaussian residuals; residuals beyond this many deviations weigh nothing.
TUKEY = 4.685

#: Median absolute deviation to standard deviation, for a Gaussian.
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Similarity:
    """x in b = scale * R @ x in a + t."""

    scale: float
    R: Float[np.ndarray, "3 3"]
    t: Float[np.ndarray, "xyz=3"]

    def apply(self, points: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """Points of a, expressed in b."""
        return self.scale * points @ self.R.T + self.t

    def inverse(self) -> Similarity:
        """From b back to a."""
        return Similarity(1 / self.scale, self.R.T, -(self.R.T @ self.t) / self.scale)

    def apply_to_cameras(self, cam_from_a: Float[np.ndarray, "*batch 4 4"]) -> Float[np.ndarray, "*batch 4 4"]:
        """cam_from_b of the same cameras, with camera-frame depths in the units of b (a's times `scale`).

        x_cam = scale * (R_c x_a + t_c) and x_a = R^T (x_b - t) / scale, so x_cam = R_c R^T (x_b - t) + scale * t_c.
        """
        R = cam_from_a[..., :3, :3] @ self.R.T
        out = np.zeros(cam_from_a.shape)
        out[..., :3, :3] = R
        out[..., :3, 3] = self.scale * cam_from_a[..., :3, 3] - R @ self.t
        out[..., 3, 3] = 1
        return out


def fit_similarity(
    a: Float[np.ndarray, "n 3"],
    b: Float[np.ndarray, "n 3"],
    weights: Float[np.ndarray, " n"] | None = None,
    *,
    with_scale: bool = True,
) -> Similarity:
    """Least-squares b_from_a of matching points (Umeyama 1991, closed form); never a mirror.

    Raises:
        InputError: Fewer than three points, or all of them on one line: the rotation is not determined.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    w = np.ones(len(a)) if weights is None else np.asarray(weights, np.float64)
    if len(a) < 3 or a.shape != b.shape or not np.isfinite([*a.flat, *b.flat]).all():
        raise InputError(f"{len(a)} and {len(b)} points to lay over each other", "three or more finite pairs")
    w = w / w.sum()
    center_a, center_b = w @ a, w @ b
    da, db = a - center_a, b - center_b
    U, S, Vt = np.linalg.svd((db * w[:, None]).T @ da)
    if S[1] <= 1e-12 * max(S[0], 1e-300):
        raise InputError("points on one line", "points that span at least a plane", "more points, or cameras that turn")
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    R = (U * sign) @ Vt
    scale = float((S * sign).sum() / (w @ (da**2).sum(axis=1))) if with_scale else 1.0
    return Similarity(scale, R, center_b - scale * R @ center_a)


def fit_cameras(cam_from_a: Float[np.ndarray, "n 4 4"], cam_from_b: Float[np.ndarray, "n 4 4"]) -> Similarity:
    """b_from_a of two recordings of the same cameras, from their centres and their orientations together.

    Rotation from the orientations (chordal mean, so that straight paths and pure rotations are determined too), then scale
    and translation from the centres. Cameras that do not move leave the scale at 1.
    """
    Ra, Rb = cam_from_a[..., :3, :3], cam_from_b[..., :3, :3]
    U, _, Vt = np.linalg.svd(np.einsum("nij,nik->jk", Rb, Ra))  # sum of Rb^T Ra
    R = (U * [1.0, 1.0, np.sign(np.linalg.det(U @ Vt))]) @ Vt
    a, b = eye_in_world(cam_from_a), eye_in_world(cam_from_b)
    da, db = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = (da**2).sum()
    scale = float((db * (da @ R.T)).sum() / spread) if spread > 1e-18 else 1.0
    if scale <= 0:
        raise InputError(
            f"cameras that fit with scale {scale:.3g}", "two recordings of the same path", "ex4d cameras lint FILE"
        )
    return Similarity(scale, R, b.mean(axis=0) - scale * R @ a.mean(axis=0))


@dataclass(frozen=True)
class ScaleShift:
    """y = scale * x + shift, and the share of the samples that agree with it."""

    scale: float
    shift: float
    inlier_ratio: float = 1.0

    def apply(self, x: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """y of x, in the dtype of x."""
        return (x * x.dtype.type(self.scale) + x.dtype.type(self.shift)).astype(x.dtype)


def fit_scale_shift(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], *, shift: bool = True, robust: bool = True
) -> ScaleShift:
    """The scale (and shift) that take x to y; outliers lose their say (Tukey's biweight, started from a median fit).

    Raises:
        InputError: Too few samples, no spread in x, or a best fit with scale <= 0 (the two do not show the same thing).
    """
    x, y = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) < (2 if shift else 1) or (shift and np.ptp(x) == 0):
        raise InputError(f"{len(x)} usable samples to fit a scale", "at least two different values")
    fit = _median_start(x, y, shift) if robust else _weighted_fit(x, y, np.ones_like(x), shift)
    weights = np.ones_like(x)
    for _ in range(ROBUST_ROUNDS if robust else 0):
        residual = y - fit[0] * x - fit[1]
        sigma = MAD_TO_SIGMA * np.median(np.abs(residual))
        limit = max(TUKEY * sigma, 1e-12 * np.abs(y).max())
        weights = np.clip(1 - (residual / limit) ** 2, 0, None) ** 2
        kept = x[weights > 0]
        if len(kept) == 0 or (shift and np.ptp(kept) == 0):
            break
        previous, fit = fit, _weighted_fit(x, y, weights, shift)
        if np.allclose(previous, fit, rtol=1e-10, atol=0):
            break
    if not fit[0] > 0:
        raise InputError(
            f"a fit with scale {fit[0]:.3g}", "maps of the same scene and kind", "--depth-kind to state what they are"
        )
    return ScaleShift(float(fit[0]), float(fit[1]), float((weights > 0).mean()))


def _median_start(x: np.ndarray, y: np.ndarray, shift: bool) -> tuple[float, float]:
    """Theil-Sen between samples half the sorted range apart: resists a quarter of outliers, O(n log n)."""
    if not shift:
        nonzero = x != 0
        return float(np.median(y[nonzero] / x[nonzero])), 0.0
    order = np.argsort(x, kind="stable")
    half = len(x) // 2
    low, high = order[:half], order[-half:]
    dx = x[high] - x[low]
    slopes = (y[high] - y[low])[dx > 0] / dx[dx > 0]
    scale = float(np.median(slopes)) if len(slopes) else 1.0
    return scale, float(np.median(y - scale * x))


def _weighted_fit(x: np.ndarray, y: np.ndarray, w: np.ndarray, shift: bool) -> tuple[float, float]:
    if not shift:
        return float((w * x * y).sum() / (w * x * x).sum()), 0.0
    total = w.sum()
    mean_x, mean_y = (w * x).sum() / total, (w * y).sum() / total
    dx = x - mean_x
    scale = float((w * dx * (y - mean_y)).sum() / (w * dx * dx).sum())
    return scale, float(mean_y - scale * mean_x)


def pose_error(
    cam_from_world: Float[np.ndarray, "n 4 4"], true: Float[np.ndarray, "n 4 4"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """(rotation error in degrees, distance between centres in scene units) of each pose; no alignment is done here."""
    relative = cam_from_world[..., :3, :3] @ np.swapaxes(true[..., :3, :3], -1, -2)
    gap = np.linalg.norm(eye_in_world(cam_from_world) - eye_in_world(true), axis=-1)
    return np.rad2deg(rotation_angle_rad(relative)), gap


def path_length(cam_from_world: Float[np.ndarray, "n 4 4"]) -> float:
    """How far the camera centre travels, scene units."""
    return float(np.linalg.norm(np.diff(eye_in_world(cam_from_world), axis=0), axis=-1).sum())
