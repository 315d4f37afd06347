"""Picture metrics: PSNR, SSIM, MS-SSIM and GMSD, on the frame or on some of its pixels. Pictures are uint8 RGB [H, W, 3]."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ex4d.errors import InputError

#: Window of SSIM (Wang et al. 2004): Gaussian of 1.5 px, cut at 3.5 sigma (11x11), and the constants for a range of 255.
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

#: Weights of the five scales (Wang, Simoncelli and Bovik 2003).
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

#: Constant of GMSD for a range of 255 (Xue et al. 2014).
GMSD_C = 170.0


def check_pair(a: np.ndarray, b: np.ndarray) -> None:
    """Raise InputError unless both are pictures or clips of one shape."""
    if a.shape != b.shape:
        raise InputError(f"pictures of shape {a.shape} and {b.shape}", "one shape", "resize or cut one of them")


def squared_error(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean squared error over all channels, of all pixels or of those in `mask` [H, W]; NaN for an empty mask."""
    check_pair(a, b)
    difference = (a.astype(np.float32) - b.astype(np.float32)) ** 2
    if mask is not None:
        difference = difference[mask]
    return float(difference.mean(dtype=np.float64)) if difference.size else math.nan


def psnr_of(mse: float) -> float:
    """Decibels for a range of 255; infinite for identical pictures."""
    return math.inf if mse == 0 else 10 * math.log10(255.0**2 / mse)


def psnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB (see `squared_error`)."""
    return psnr_of(squared_error(a, b, mask))


def _gaussian(x: np.ndarray) -> np.ndarray:
    taps = np.exp(-0.5 * (np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1) / SSIM_SIGMA) ** 2)
    taps /= taps.sum()
    return cv2.sepFilter2D(x, cv2.CV_64F, taps, taps, borderType=cv2.BORDER_REFLECT_101)


def ssim_maps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM and its contrast-structure part for every pixel and channel, float64 [H, W, 3]."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    mx, my = _gaussian(x), _gaussian(y)
    vx, vy, vxy = _gaussian(x * x) - mx * mx, _gaussian(y * y) - my * my, _gaussian(x * y) - mx * my
    contrast = (2 * vxy + SSIM_C2) / (vx + vy + SSIM_C2)
    return (2 * mx * my + SSIM_C1) / (mx * mx + my * my + SSIM_C1) * contrast, contrast


def _inner(x: np.ndarray) -> np.ndarray:
    return x[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS]


def _check_side(a: np.ndarray, least: int, name: str) -> None:
    if min(a.shape[:2]) < least:
        raise InputError(f"pictures of {a.shape[1]}x{a.shape[0]} for {name}", f"sides of {least} px or more")


def ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None, border: bool = False) -> float:
    """Structural similarity, mean over channels and over pixels (those in `mask`).

    Args:
        a, b: Pictures of one size.
        mask: bool [H, W], or None.
        border: False counts only pixels whose window lies inside the picture, as skimage's `structural_similarity(
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`; True counts all, mirrored, as torchmetrics.
    """
    check_pair(a, b)
    _check_side(a, 2 * SSIM_RADIUS + 1, "SSIM")
    values = ssim_maps(a, b)[0].mean(-1)
    keep = np.ones(values.shape, bool) if mask is None else mask
    values = values[keep] if border else _inner(values)[_inner(keep)]
    return float(values.mean()) if values.size else math.nan


def ms_ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None, border: bool = False) -> float:
    """Five-scale SSIM as in torchmetrics: negative contrast counts as 0, the last scale keeps its mirrored border.

    Args:
        a, b: Pictures of one size; sides must exceed 160 px unless `border`.
        mask: bool [H, W]: at each scale the index map is averaged over these pixels (a coarse pixel counts by its share of
            them). Windows reach beyond the mask: paste the reference there if only the masked pixels are in question.
        border: True counts all pixels of every scale, mirrored (holes are often at the border); False as in `ssim`.
    """
    check_pair(a, b)
    least = (2 * SSIM_RADIUS) * 2 ** (len(MS_SSIM_WEIGHTS) - 1) + 1
    _check_side(a, 2 ** (len(MS_SSIM_WEIGHTS) - 1) if border else least, "MS-SSIM")
    x, y = a.astype(np.float64), b.astype(np.float64)
    share = np.ones(a.shape[:2]) if mask is None else mask.astype(np.float64)
    score = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        whole, contrast = ssim_maps(x, y)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        index, counted = (whole if last else contrast).mean(-1), share
        if not (last or border):
            index, counted = _inner(index), _inner(share)
        if not counted.any():
            return math.nan
        score *= max(float(np.average(index, weights=counted)), 0.0) ** weight
        if not last:
            x, y, share = _halved(x), _halved(y), _halved(share[..., None])[..., 0]
    return score


def _halved(x: np.ndarray) -> np.ndarray:
    h, w = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    return x[:h, :w].reshape(h // 2, 2, w // 2, 2, -1).mean((1, 3))


def gmsd(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Gradient magnitude similarity deviation (0 = identical), on luma, by the authors' definition.

    Luma (Rec. 601) is averaged over 2x2 and halved, gradients are Prewitt's over 3, and the score is the standard deviation
    of the similarity map (of its pixels in `mask`).
    """
    check_pair(a, b)
    g = [_prewitt(_luma_half(x)) for x in (a, b)]
    similarity = (2 * g[0] * g[1] + GMSD_C) / (g[0] ** 2 + g[1] ** 2 + GMSD_C)
    if mask is not None:
        similarity = similarity[mask[::2, ::2]]
    return float(similarity.std(ddof=1)) if similarity.size > 1 else math.nan


def gradient_magnitude(picture: np.ndarray) -> np.ndarray:
    """Prewitt's gradient of the luma, levels a pixel, float64 [H, W]; the outermost pixels see zeros beyond the edge."""
    return _prewitt(_luma(picture))


def _luma(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) @ [0.299, 0.587, 0.114]


def _luma_half(x: np.ndarray) -> np.ndarray:
    luma = _luma(x)
    padded = np.pad(luma, ((0, 1), (0, 1)))  # zeros beyond the lower right edge, as conv2(..., 'same') has them
    return ((padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:]) / 4)[::2, ::2]


def _prewitt(luma: np.ndarray) -> np.ndarray:
    p = np.pad(luma, 1)
    rows = p[:-2] + p[1:-1] + p[2:]
    columns = p[:, :-2] + p[:, 1:-1] + p[:, 2:]
    return np.hypot((rows[:, :-2] - rows[:, 2:]) / 3, (columns[:-2] - columns[2:]) / 3)
