"""A depth file or folder of any kind, opened; and the part of it that belongs to a part of the video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ex4d.depth.estimators.given import DepthMaps
from ex4d.io.depth import file as arrays

if TYPE_CHECKING:
    from ex4d.io.video.read import VideoSource


#: Files that hold depth as the brightness of a video.
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")


def open_depth(path: Path | str) -> DepthMaps:
    """Maps of a depth.npz, of EXR or 16-bit PNG files (see `io.arrays.open_depth`), or of a grey video.

    A video codes disparity as brightness, white nearest, as depth tools write it; `kind` says so and may be overridden.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return _open_video_depth(path)
    source = arrays.open_depth(path)
    return DepthMaps(
        read=source.read,
        num_frames=source.num_frames,
        size_hw=source.size_hw,
        kind=source.kind,  # type: ignore[arg-type]
        K=source.K,
        cam_from_world=source.cam_from_world,
        name=source.name,
    )


def _open_video_depth(path: Path) -> DepthMaps:
    from ex4d.io.video.frames import FrameReader
    from ex4d.io.video.read import open_video

    source = open_video(path)
    reader = FrameReader(source)

    def read(start: int, stop: int) -> np.ndarray:
        return reader.read(np.arange(start, stop)).frames.mean(axis=-1, dtype=np.float32) / np.float32(255)

    return DepthMaps(read, source.num_frames, source.size_hw, "disparity", name=str(path))


def depth_of_part(maps: DepthMaps, source: VideoSource) -> DepthMaps:
    """The maps of the frames that `--start` and `--frames` picked, when the file holds the whole video's; else the maps."""
    from ex4d.io.video.read import open_video

    first = round(source.start_s * float(source.fps))
    if maps.num_frames == source.num_frames or first + source.num_frames > maps.num_frames:
        return maps
    if open_video(source.path).num_frames != maps.num_frames:
        return maps
    part = slice(first, first + source.num_frames)
    return replace(
        maps,
        read=lambda start, stop: maps.read(first + start, first + stop),
        num_frames=source.num_frames,
        K=maps.K[part] if maps.K is not None and maps.K.ndim == 3 else maps.K,
        cam_from_world=None if maps.cam_from_world is None else maps.cam_from_world[part],
    )
