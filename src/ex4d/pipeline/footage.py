"""A clip on disk, read by frame index: what the line renders from without holding it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ex4d.io.arrays import DepthFile
from ex4d.io.video import VideoSource
from ex4d.types import DepthClip, Unit, VideoClip


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


class FileFootage:
    """A clip on disk for `pipeline.stream_render`: the video and its depth.npz.

    Args:
        source: The video.
        depth: Its depth, metric or relative, at its size, with K.
    """

    def __init__(self, source: VideoSource, depth: DepthFile) -> None:
        self._reader = FrameReader(source)
        self._depth = depth
        assert depth.K is not None
        self._K = np.broadcast_to(depth.K.astype(np.float32), (depth.num_frames, 3, 3))
        self._unit: Unit = "metric" if depth.kind == "metric" else "relative"

    def video(self, index: np.ndarray) -> VideoClip:
        """Frames at rising indices."""
        return self._reader.read(index)

    def depth(self, index: np.ndarray) -> DepthClip:
        """Depth at rising indices."""
        first, last = int(index[0]), int(index[-1])
        if last - first < 4 * len(index):
            maps = self._depth.read(first, last + 1)[np.asarray(index) - first]
        else:
            maps = np.concatenate([self._depth.read(int(i), int(i) + 1) for i in index])
        poses = None if self._depth.cam_from_world is None else self._depth.cam_from_world[index]
        return DepthClip(np.ascontiguousarray(maps, np.float32), self._K[index].copy(), self._unit, poses)
