"""Depth that is found again: the output shot home, a fit of 1/z, PSNR. Shared by real_clips.py and stereo.py."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from ex4d import CameraPath, DepthClip, VideoClip, reconstruct
from ex4d.depth.make import make_depth
from ex4d.pipeline.config import RenderOptions

#: Frames to the depth of each and the intrinsics: (z [time, height, width], K [time, 3, 3]).
Estimate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    """dB over the pixels of `where`, NaN for fewer than 50 (`ex4d.evaluate` has no such floor and infinite values)."""
    if where.sum() < 50:
        return float("nan")
    error = ((a.astype(np.float64) - b.astype(np.float64)) ** 2)[where].mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def nano_depth(
    frames: UInt8[np.ndarray, "time height width 3"], K: Float32[np.ndarray, "time 3 3"] | None = None
) -> tuple[Float32[np.ndarray, "time height width"], Float32[np.ndarray, "time 3 3"]]:
    """The embedded network's depth (relative) and intrinsics of some frames."""
    network = make_depth("nano", size_hw=frames.shape[1:3], num_frames=len(frames), K=K)
    parts = list(network.estimate([VideoClip(frames, Fraction(30))]))
    return np.concatenate([p.depth for p in parts]), np.concatenate([p.K for p in parts])


def fit_disparity(
    d: Float[np.ndarray, "*shape"], truth: Float[np.ndarray, "*shape"], known: Bool[np.ndarray, "*shape"]
) -> tuple[float, float]:
    """Scale and shift of 1/z that fit `truth` best: least squares, then once more without the worst tenth."""
    x, y = d[known].astype(np.float64), truth[known].astype(np.float64)
    scale = shift = 0.0
    for _ in range(2):
        A = np.stack([x, np.ones_like(x)], -1)
        scale, shift = np.linalg.lstsq(A, y, rcond=None)[0]
        residual = np.abs(A @ [scale, shift] - y)
        keep = residual <= np.percentile(residual, 90)
        x, y = x[keep], y[keep]
    return float(scale), float(shift)


def trip_home(
    source: UInt8[np.ndarray, "time height width 3"],
    out: UInt8[np.ndarray, "time out_h out_w 3"],
    mask: Bool[np.ndarray, "time out_h out_w"],
    z: Float32[np.ndarray, "time out_h out_w"],
    path: CameraPath,
    depth: DepthClip,
    *,
    estimate: Estimate = nano_depth,
    last: int = 9,
) -> tuple[float, float]:
    """PSNR to the source of the last output frames shot back to the source camera, where both saw it.

    Returns:
        (trip_own, trip_new): with the render's own depth, which shows tearing only; with depth that `estimate` finds in the
        OUTPUT, fitted to the render's, which a picture that fell apart does not allow.
    """
    t = np.arange(len(out) - last, len(out))
    own = np.where(np.isfinite(z[t]), z[t], 1e3).astype(np.float32)
    inv, inv_own = 1 / estimate(out[t])[0], 1 / own
    scale, shift = fit_disparity(inv, inv_own, mask[t])
    new = (1 / np.maximum(scale * inv + shift, 0.2 * np.percentile(inv_own, 1))).astype(np.float32)
    home = CameraPath(
        np.stack([np.eye(4)] * last), depth.K[t], depth.size_hw, np.arange(last, dtype=np.float64), "home"
    )
    scores = []
    for d in (own, new):
        clip = DepthClip(d, path.K[t], depth.unit, path.cam_from_world[t])
        back = reconstruct(VideoClip(out[t], Fraction(30)), clip, home, RenderOptions(plate=False))
        scores.append(psnr(back.color, source[t], back.mask))
    return scores[0], scores[1]
