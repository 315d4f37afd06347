"""Depth as pictures a person can read: turbo colours, near warm and far cool, with a legend."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from ex4d.types import Unit

#: Pixels of the legend's bar and its margin, for a 512-pixel-high picture.
BAR_WIDTH, MARGIN = 18, 10


def turbo(depth: Float32[np.ndarray, "height width"], near: float, far: float) -> UInt8[np.ndarray, "height width 3"]:
    """RGB of the turbo colour map over 1/z: near red, far blue; values outside [near, far] keep the end colours."""
    level = (1 / depth - 1 / far) / max(1 / near - 1 / far, 1e-12)
    return cv2.applyColorMap(np.round(np.clip(level, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[
        ..., ::-1
    ].copy()


def preview_frame(
    depth: Float32[np.ndarray, "height width"], near: float, far: float, unit: Unit
) -> UInt8[np.ndarray, "height width 3"]:
    """A depth map in colours with a bar and the depths at its ends and middle; sides are even, as H.264 wants them."""
    picture = turbo(depth, near, far)
    h, w = picture.shape[:2]
    scale = max(h, 160) / 512
    bar, margin = max(4, int(BAR_WIDTH * scale)), max(3, int(MARGIN * scale))
    top, bottom = margin, h - margin
    if bottom - top > 8 and w > 4 * (bar + margin):
        share = np.linspace(1, 0, bottom - top, dtype=np.float32)[:, None]
        ramp = turbo(1 / (share * (1 / near - 1 / far) + 1 / far), near, far)
        picture[top:bottom, w - margin - bar : w - margin] = ramp
        cv2.rectangle(picture, (w - margin - bar - 1, top - 1), (w - margin, bottom), (255, 255, 255), 1)
        suffix = " m" if unit == "metric" else ""
        middle = 2 / (1 / near + 1 / far)
        for value, y in ((near, top + 12 * scale), (middle, h / 2 + 4 * scale), (far, bottom - 4 * scale)):
            label = f"{value:.3g}{suffix}"
            size = 0.5 * scale
            width = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]
            at = (w - margin - bar - width - 4, int(y))
            cv2.putText(picture, label, at, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 3, cv2.LINE_AA)
            cv2.putText(picture, label, at, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA)
    return picture[: h - h % 2, : w - w % 2]
