"""How well the holes of a render were completed: nothing but the hole's pixels counts. Clips are uint8 RGB [T, H, W, 3]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.evaluate.metrics.consistency import excess_flicker, seen_motion, warp
from ex4d.evaluate.metrics.image import check_pair, gmsd, gradient_magnitude, ms_ssim, psnr

#: A warped pixel counts when no more than this share of it was read from outside the holes.
OUTSIDE_SHARE = 1e-3


@dataclass(frozen=True)
class HoleScore:
    """Scores of one clip in its holes; NaN where no pixel can be judged.

    Attributes:
        psnr: dB, squared errors of all hole pixels of the clip together.
        ms_ssim: Five scales, the index map averaged over the holes at each; mean over frames, weighted by hole pixels.
        gmsd: Standard deviation of the gradient similarity over the holes; mean over frames, weighted by hole pixels.
        sharpness: Mean gradient magnitude in the holes over that of the truth; 1 is as sharp, noise raises it.
        flicker: Levels (0..255), `excess_flicker` in the holes: how much the change of each pixel differs from the true change.
            Lower is steadier, the truth has 0; a still or flat picture has the true change itself.
        boiling: Levels, `error_flicker`: the same along the true motion, so that a wrong guess that stays on its surface is
            forgiven. Lower is steadier, the truth has 0; a flat picture has next to 0.
    """

    psnr: float
    ms_ssim: float
    gmsd: float
    sharpness: float
    flicker: float
    boiling: float


@dataclass(frozen=True)
class Motion:
    """The true clip's motion to each next frame.

    Attributes:
        flow: Pixels, float [T - 1, H, W, 2].
        visible: False for what is hidden in the next frame, bool [T - 1, H, W].
    """

    flow: np.ndarray
    visible: np.ndarray

    @classmethod
    def of(cls, truth: np.ndarray) -> Motion:
        """Optical flow of the true clip, checked forwards and backwards."""
        found = [seen_motion(a, b) for a, b in zip(truth, truth[1:], strict=False)]
        if not found:
            return cls(np.zeros((0, *truth.shape[1:3], 2), np.float32), np.zeros((0, *truth.shape[1:3]), bool))
        return cls(np.stack([flow for flow, _ in found]), np.stack([visible for _, visible in found]))


def score_holes(frames: np.ndarray, truth: np.ndarray, holes: np.ndarray, motion: Motion, every: int = 1) -> HoleScore:
    """Score what a completion put into the holes.

    The truth is pasted over everything else first, so that windows that reach beyond a hole see no difference there.

    Args:
        frames: The completed clip.
        truth: The true one.
        holes: bool [T, H, W].
        motion: Of the truth.
        every: MS-SSIM and GMSD look at each `every`-th frame (they take most of the time).
    """
    check_pair(frames, truth)
    shown = np.where(holes[..., None], frames, truth)
    judged = [t for t in range(0, len(frames), every) if holes[t].any()]
    pixels = [int(holes[t].sum()) for t in judged]
    return HoleScore(
        psnr=psnr(shown, truth, holes),
        ms_ssim=_mean([ms_ssim(shown[t], truth[t], holes[t], border=True) for t in judged], pixels),
        gmsd=_mean([gmsd(shown[t], truth[t], holes[t]) for t in judged], pixels),
        sharpness=sharpness(shown, truth, holes),
        flicker=255 * excess_flicker(shown, truth, holes),
        boiling=error_flicker(shown, truth, holes, motion),
    )


def sharpness(frames: np.ndarray, truth: np.ndarray, holes: np.ndarray) -> float:
    """Mean gradient magnitude of a clip over the true one's, where the whole 3x3 stencil lies in a hole.

    The seam around a hole is left out: a wrong colour beside a seen one is an edge, not detail.
    """
    total, true = 0.0, 0.0
    for shown, wanted, hole in zip(frames, truth, holes, strict=True):
        inner = cv2.erode(hole.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0  # type: ignore[call-overload]
        if inner.any():
            total += float(gradient_magnitude(shown)[inner].sum())
            true += float(gradient_magnitude(wanted)[inner].sum())
    return total / true if true else math.nan


def error_flicker(frames: np.ndarray, truth: np.ndarray, holes: np.ndarray, motion: Motion) -> float:
    """Mean absolute change of the error (shown minus true) along the true motion, levels.

    The motion-compensated coherence error of video matting (Erofeev et al. 2015, "Perceptually motivated benchmark for video
    matting"), with absolute instead of squared errors. The truth has 0. An invention that is wrong but stays on its surface keeps
    its error and has nearly 0 too, so that a sharp guess is not punished for moving with the camera; one that boils,
    jumps or slides over its surface does not. Only pixels that are in a hole at both times and visible at both count.
    """
    error = frames.astype(np.float32) - truth.astype(np.float32)
    height, width = holes.shape[1:]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    total, count = 0.0, 0
    for t in range(len(frames) - 1):
        flow = motion.flow[t].astype(np.float32)
        there_x, there_y = x + flow[..., 0], y + flow[..., 1]
        inside = (there_x >= 0) & (there_x <= width - 1) & (there_y >= 0) & (there_y <= height - 1)
        kept = warp(holes[t + 1].astype(np.float32), flow) >= 1 - OUTSIDE_SHARE
        judged = holes[t] & motion.visible[t] & inside & kept
        total += float(np.abs(warp(error[t + 1], flow) - error[t])[judged].sum(dtype=np.float64))
        count += 3 * int(judged.sum())
    return total / count if count else math.nan


def _mean(values: list[float], weights: list[int]) -> float:
    finite = np.isfinite(values) if values else np.zeros(0, bool)
    return float(np.average(np.array(values)[finite], weights=np.array(weights)[finite])) if finite.any() else math.nan
