"""Points followed from frame to frame: corners, pyramidal Lucas-Kanade there and back."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float, UInt8

#: Points kept alive at once; enough that a third of them may be movers.
NUM_POINTS = 600

#: Rows and columns of cells that each get their share of the points: depth can only be judged where points are.
CELLS = (4, 6)

#: A point that does not come back within this many pixels of where it started is lost.
THERE_AND_BACK_PX = 0.7

#: Points closer together than this share of the picture's diagonal say nothing new.
SPACING = 0.012


def to_gray(frame: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width"]:
    """Luma of an RGB frame."""
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


@dataclass
class PointTracker:
    """Follows corners through a clip.

    Attributes:
        xy: Positions in the current frame, pixels with centres at +0.5.
        ids: A number for each point that never comes again.
    """

    num_points: int = NUM_POINTS
    xy: Float[np.ndarray, "n 2"] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    _gray: np.ndarray | None = None
    _next: int = 0

    def step(self, gray: UInt8[np.ndarray, "height width"]) -> np.ndarray:
        """Move on to the next frame; returns which of the previous points survive (bool, in their order)."""
        previous, self._gray = self._gray, gray
        if previous is None or len(self.xy) == 0:
            return np.ones(len(self.xy), bool)
        start = (self.xy - 0.5).astype(np.float32)  # OpenCV's pixel centres are integers
        options = {"winSize": (21, 21), "maxLevel": 4, "minEigThreshold": 1e-4}
        there, seen, _ = cv2.calcOpticalFlowPyrLK(previous, gray, start, None, **options)  # type: ignore[call-overload]
        back, seen_back, _ = cv2.calcOpticalFlowPyrLK(gray, previous, there, None, **options)  # type: ignore[call-overload]
        h, w = gray.shape
        inside = (there >= 0).all(axis=1) & (there[:, 0] <= w - 1) & (there[:, 1] <= h - 1)
        alive = (seen.ravel() > 0) & (seen_back.ravel() > 0) & inside
        alive &= np.linalg.norm(back - start, axis=1) < THERE_AND_BACK_PX
        self.xy, self.ids = there[alive] + 0.5, self.ids[alive]
        return alive

    def keep(self, which: np.ndarray) -> None:
        """Drop all points but these."""
        self.xy, self.ids = self.xy[which], self.ids[which]

    def top_up(self, allowed: np.ndarray | None = None) -> int:
        """Add corners away from the living points, up to `num_points`; returns how many were added.

        Args:
            allowed: Optional mask [height, width] of where a point may start.
        """
        assert self._gray is not None
        missing = self.num_points - len(self.xy)
        if missing <= 0:
            return 0
        h, w = self._gray.shape
        spacing = max(4.0, SPACING * float(np.hypot(h, w)))
        free = np.full((h, w), 255, np.uint8) if allowed is None else allowed.astype(np.uint8) * 255
        for x, y in self.xy:
            cv2.circle(free, (int(x), int(y)), int(spacing), 0, -1)
        new = self._corners(free, missing, spacing)
        if len(new) == 0:
            return 0
        # Corners at sub-pixel accuracy do not matter here: a track starts wherever it is put.
        self.xy = np.concatenate([self.xy, new + 0.5]).astype(np.float32)
        self.ids = np.concatenate([self.ids, self._next + np.arange(len(new))])
        self._next += len(new)
        return len(new)

    def _corners(self, free: np.ndarray, missing: int, spacing: float) -> Float[np.ndarray, "n 2"]:
        """The best corners of each cell, so that one rich texture does not take them all."""
        assert self._gray is not None
        h, w = self._gray.shape
        rows, columns = (np.linspace(0, side, n + 1).astype(int) for side, n in zip((h, w), CELLS, strict=True))
        wanted = self.num_points // (CELLS[0] * CELLS[1]) + 1
        found = []
        for top, bottom in zip(rows[:-1], rows[1:], strict=True):
            for left, right in zip(columns[:-1], columns[1:], strict=True):
                inside = (self.xy >= [left, top]).all(1) & (self.xy < [right, bottom]).all(1)
                lacking = wanted - int(inside.sum())
                if lacking <= 0 or bottom - top < 8 or right - left < 8:
                    continue
                cell = np.s_[top:bottom, left:right]
                corners = cv2.goodFeaturesToTrack(self._gray[cell], lacking, 0.01, spacing, mask=free[cell])
                if corners is not None:
                    found.append(corners[:, 0] + np.array([left, top], np.float32))
        return np.concatenate(found)[:missing] if found else np.zeros((0, 2), np.float32)
