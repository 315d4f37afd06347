"""Shot cuts: where a clip changes from one take to another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import product

import numpy as np

#: Small copies that are compared, (height, width), their blocks and how far a block may have moved, all in their pixels.
SMALL_HW, BLOCK, REACH = (36, 64), 4, 6

#: A cut leaves more than this share of the contrast unexplained by motion ...
CUT_RESIDUAL = 0.55
#: ... and this many times what the frames around it leave; fast action lifts all of them together.
CUT_OVER_NEIGHBOURS = 2.0
#: Frames on each side that count as neighbours.
NEIGHBOURS = 4
#: A picture that comes back within this many frames was a flash, or something that passed the lens, not a cut.
FLASH_FRAMES = 3


def find_cuts(frames: Iterable[np.ndarray]) -> list[int]:
    """Indices of the frames that begin a new shot, for RGB frames of one size; hard cuts only, no dissolves.

    Every frame is explained by moving blocks of the one before; what stays unexplained, relative to the contrast, jumps at a
    cut. Streamed: small copies of six frames are kept, and one number per frame.
    """
    recent: deque[np.ndarray] = deque(maxlen=2 * FLASH_FRAMES)
    residual: list[float] = []  # of frame i + 1 against frame i
    lasting: list[int] = []  # frames that no frame shortly before them explains, nor any shortly after those
    count = 0

    def judge(index: int) -> None:
        split = index - (count - len(recent))  # where frame `index` lies in `recent`
        if 0 < split < len(recent) and residual[index - 1] >= CUT_RESIDUAL:
            window = list(recent)
            pairs = product(window[max(split - FLASH_FRAMES, 0) : split], window[split : split + FLASH_FRAMES])
            if all(_unexplained(before, after) >= CUT_RESIDUAL for before, after in pairs):
                lasting.append(index)

    for frame in frames:
        recent.append(_small(frame))
        count += 1
        if count > 1:
            residual.append(_unexplained(recent[-2], recent[-1]))
        judge(count - FLASH_FRAMES)
    for index in range(max(count - FLASH_FRAMES + 1, 1), count):
        judge(index)
    return [index for index in lasting if _stands_out(residual, index - 1)]


def _stands_out(residual: list[float], i: int) -> bool:
    around = [*residual[max(i - NEIGHBOURS, 0) : i], *residual[i + 1 : i + 1 + NEIGHBOURS]]
    return not around or residual[i] > CUT_OVER_NEIGHBOURS * float(np.median(around))


def _small(frame: np.ndarray) -> np.ndarray:
    import cv2

    small = cv2.resize(frame, SMALL_HW[::-1], interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def _unexplained(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference that block motion leaves of b given a, over the contrast of the two."""
    (h, w), channels = SMALL_HW, a.shape[2]
    padded = np.pad(a, ((REACH, REACH), (REACH, REACH), (0, 0)), mode="edge")
    best = np.full((h // BLOCK, w // BLOCK), np.inf, np.float32)
    for dy in range(0, 2 * REACH + 1, 2):
        for dx in range(0, 2 * REACH + 1, 2):
            difference = np.abs(padded[dy : dy + h, dx : dx + w] - b)
            blocks = difference.reshape(h // BLOCK, BLOCK, w // BLOCK, BLOCK * channels).mean(axis=(1, 3))
            np.minimum(best, blocks, out=best)
    contrast = 0.5 * sum(float(np.abs(x - x.mean(axis=(0, 1))).mean()) for x in (a, b))
    return float(best.mean()) / max(contrast, 4.0)
