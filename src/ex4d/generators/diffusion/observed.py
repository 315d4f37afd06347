"""Pixels that the camera saw, put back over the generated ones, with a score that says whether they line up."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

#: Width of the soft edge inside the observed area.
FEATHER_PX = 8
#: Coverage (0..255 of a supersampled render) below which a pixel is only partly seen.
CONFIDENT_COVERAGE = 250


@dataclass(frozen=True)
class Alignment:
    """How well generated pixels agree with observed ones.

    Attributes:
        psnr_db: Over all observed pixels; above about 30 the paste cannot be seen, below about 22 edges will double.
        shift_px: Mean displacement (phase correlation) of frames with enough observed area.
        observed_share: Share of pixels that are observed.
    """

    psnr_db: float
    shift_px: float
    observed_share: float


def confident(
    mask: Bool[np.ndarray, "t h w"], coverage: UInt8[np.ndarray, "t h w"] | None
) -> Bool[np.ndarray, "t h w"]:
    """Pixels seen for sure."""
    return mask if coverage is None else mask & (coverage >= CONFIDENT_COVERAGE)


def feathered(seen: Bool[np.ndarray, "h w"], feather_px: int = FEATHER_PX) -> np.ndarray:
    """Weight of the observed pixel: 0 at the edge of the seen area, 1 `feather_px` inside; the picture's edge is no edge."""
    padded = np.pad(seen.astype(np.uint8), 1, mode="edge")
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return (
        np.clip(distance / feather_px, 0, 1).astype(np.float32) if not seen.all() else np.ones(seen.shape, np.float32)
    )


def paste_observed(
    generated: UInt8[np.ndarray, "t h w 3"],
    observed: UInt8[np.ndarray, "t h w 3"],
    seen: Bool[np.ndarray, "t h w"],
    feather_px: int = FEATHER_PX,
) -> UInt8[np.ndarray, "t h w 3"]:
    """Observed over generated, feathered into it."""
    out = np.empty_like(generated)
    for i, (new, old, known) in enumerate(zip(generated, observed, seen, strict=True)):
        weight = feathered(known, feather_px)[..., None]
        out[i] = np.rint(new * (1 - weight) + old * weight).astype(np.uint8)
    return out


def alignment(
    generated: UInt8[np.ndarray, "t h w 3"], observed: UInt8[np.ndarray, "t h w 3"], seen: Bool[np.ndarray, "t h w"]
) -> Alignment:
    """Compare generated and observed pixels where both exist."""
    squares, count, shifts = 0.0, 0, []
    for new, old, known in zip(generated, observed, seen, strict=True):
        if not known.any():
            continue
        difference = new[known].astype(np.float32) - old[known]
        squares += float((difference**2).sum())
        count += difference.size
        if known.mean() > 0.1:
            shifts.append(_shift(new, old, known))
    psnr = 99.0 if count == 0 or squares == 0 else float(10 * np.log10(255**2 * count / squares))
    return Alignment(min(psnr, 99.0), float(np.mean(shifts)) if shifts else 0.0, float(seen.mean()))


def _shift(new: np.ndarray, old: np.ndarray, known: np.ndarray) -> float:
    grey = [np.where(known, cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), 0).astype(np.float32) for f in (new, old)]
    window = cv2.createHanningWindow(known.shape[::-1], cv2.CV_32F) if min(known.shape) > 1 else None
    (x, y), _ = cv2.phaseCorrelate(grey[0], grey[1], window)
    return float(np.hypot(x, y))
