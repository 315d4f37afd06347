"""A clip on disk, read by frame index: what the line renders from without holding it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ex4d.io.depth.file import DepthFile
from ex4d.io.video.frames import FrameReader
from ex4d.io.video.read import VideoSource
from ex4d.mesh.rule import DepthRange
from ex4d.types import DepthClip, Unit, VideoClip


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


class Footage(Protocol):
    """Frames and depth of a clip that need not fit in memory; indices count from the clip's start."""

    def video(self, index: np.ndarray) -> VideoClip:
        """Frames at rising indices."""
        ...

    def depth(self, index: np.ndarray) -> DepthClip:
        """Depth at the same indices."""
        ...


@dataclass(frozen=True)
class MemoryFootage:
    """A clip in memory."""

    video_clip: VideoClip
    depth_clip: DepthClip

    def video(self, index: np.ndarray) -> VideoClip:
        return VideoClip(self.video_clip.frames[index], self.video_clip.fps)

    def depth(self, index: np.ndarray) -> DepthClip:
        clip = self.depth_clip
        poses = None if clip.cam_from_world is None else clip.cam_from_world[index]
        return DepthClip(clip.depth[index], clip.K[index], clip.unit, poses)


def depth_range_of(depth: DepthFile) -> DepthRange:
    """Nearest and farthest depth of the whole file, read in pieces."""
    found: DepthRange | None = None
    for start in range(0, depth.num_frames, 16):
        part = DepthRange.of(np.asarray(depth.read(start, min(start + 16, depth.num_frames)), np.float32))
        found = part if found is None else found.union(part)
    assert found is not None
    return found
