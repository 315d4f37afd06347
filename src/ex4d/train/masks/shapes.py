"""Random shapes as masks: the plain inpainting baseline, with no geometry in it."""

from __future__ import annotations

import numpy as np


def shapes_mask(random: np.random.Generator, num_frames: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Moving boxes, ellipses and strokes, and sometimes a side of the picture, unseen; bool [T, H, W], first frame whole."""
    import cv2

    h, w = size_hw
    hidden = np.zeros((num_frames, h, w), np.uint8)
    s = np.linspace(0, 1, num_frames)
    for _ in range(int(random.integers(1, 7))):
        center = random.uniform(0, 1, 2) * (w, h)
        drift = random.normal(0, 0.25, 2) * (w, h)
        size = random.uniform(0.06, 0.4, 2) * (w, h) / 2
        growth, turn, kind = random.uniform(-0.5, 1.0), random.uniform(-90, 90), int(random.integers(3))
        stroke = (random.normal(0, 0.2, (4, 2)).cumsum(0) * (w, h)).astype(np.int32)
        for t in range(1, num_frames):
            x, y = (center + drift * s[t]).astype(int)
            a, b = np.maximum(size * (1 + growth * s[t]), 1).astype(int)
            if kind == 0:
                corners = cv2.boxPoints(((float(x), float(y)), (2.0 * a, 2.0 * b), float(turn * s[t])))
                cv2.fillPoly(hidden[t], [corners.astype(np.int32)], 1)  # type: ignore[call-overload]
            elif kind == 1:
                cv2.ellipse(hidden[t], (int(x), int(y)), (int(a), int(b)), turn * s[t], 0, 360, 1, -1)  # type: ignore[call-overload]
            else:
                cv2.polylines(hidden[t], [stroke + (x, y)], False, 1, max(3, int(min(a, b) / 2)))  # type: ignore[call-overload]
    if random.random() < 0.3:
        reach, side = random.uniform(0.1, 0.5), int(random.integers(4))
        for t in range(1, num_frames):
            n = int(reach * s[t] * (w if side < 2 else h))
            view = (hidden[t][:, :n], hidden[t][:, w - n :], hidden[t][:n], hidden[t][h - n :])[side]
            view[:] = 1
    mask = hidden == 0
    mask[0] = True
    return mask
