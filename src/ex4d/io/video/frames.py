"""Frames of a video by rising index, decoded once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ex4d.io.video.read import VideoSource
from ex4d.types import VideoClip


class FrameReader:
    """Frames of a video by index: forward without a second look, backward by starting again."""

    def __init__(self, source: VideoSource) -> None:
        self.source = source
        self._kept: dict[int, np.ndarray] = {}
        self._next = 0
        self._frames: Iterator[np.ndarray] = source.frames()

    def read(self, index: np.ndarray) -> VideoClip:
        """Frames at rising indices."""
        wanted = [int(i) for i in index]
        if any(i < self._next and i not in self._kept for i in wanted):
            self._frames, self._next = self.source.frames(), 0
        kept = {i: self._kept[i] for i in wanted if i in self._kept}
        need = set(wanted) - set(kept)
        while need:
            frame = next(self._frames)
            if self._next in need:
                kept[self._next] = frame
                need.discard(self._next)
            self._next += 1
        self._kept = kept
        return VideoClip(np.stack([kept[i] for i in wanted]), self.source.fps)
