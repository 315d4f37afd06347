"""What the line reads from disk, in the form its stages take: they open no files themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ex4d.depth.precomputed import DepthMaps
from ex4d.depth.resolve import depth_way
from ex4d.errors import InputError
from ex4d.io import arrays
from ex4d.types import DepthClip, VideoClip, check_rigid

if TYPE_CHECKING:
    from ex4d.depth.odometry import Odometry
    from ex4d.io.video import VideoSource
    from ex4d.stages import RunResult

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
    from ex4d.footage import FrameReader
    from ex4d.io.video import open_video

    source = open_video(path)
    reader = FrameReader(source)

    def read(start: int, stop: int) -> np.ndarray:
        return reader.read(np.arange(start, stop)).frames.mean(axis=-1, dtype=np.float32) / np.float32(255)

    return DepthMaps(read, source.num_frames, source.size_hw, "disparity", name=str(path))


def depth_of_part(maps: DepthMaps, source: VideoSource) -> DepthMaps:
    """The maps of the frames that `--start` and `--frames` picked, when the file holds the whole video's; else the maps."""
    from ex4d.io.video import open_video

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


def repairs_edges(spec: str, clean: bool | None, reference: bool) -> bool:
    """Whether flying pixels are repaired: as asked; unasked for depth models only, and not in the released behaviour."""
    return depth_way(spec) == "model" and not reference if clean is None else clean


def placed_depth(
    clips: Iterator[DepthClip],
    source: VideoSource,
    spec: str,
    result: RunResult,
    *,
    clean: bool | None = None,
    reference: bool = False,
    source_cameras: str = "static",
) -> Iterator[DepthClip]:
    """An estimator's depth with repaired edges and source cameras, as asked.

    Args:
        clips: Depth of the source's frames.
        source: The video.
        spec: The depth option; brought depth counts as exact.
        result: Takes notes and details.
        clean, reference: As in `repairs_edges`.
        source_cameras: As in `with_source_cameras`.
    """
    if repairs_edges(spec, clean, reference):
        clips = with_clean_edges(clips, source)
    return with_source_cameras(clips, source, source_cameras, result, sensor=depth_way(spec) == "brought")


def write_depth_clips(path: Path, clips: Iterator[DepthClip], source: VideoSource, *, half: bool = False) -> None:
    """depth.npz of a clip; the first chunk is there before a folder is made, so bad input leaves nothing behind."""
    from ex4d.io.atomic import ensure_dir

    first = next(clips, None)
    if first is None:
        raise InputError(f"no frames in {source.path}", "a video with at least one frame")
    ensure_dir(path.parent)
    with arrays.DepthWriter(path, source.num_frames, source.fps, half=half) as writer:
        for clip in chain([first], clips):
            writer.write(clip)


def with_clean_edges(clips: Iterator[DepthClip], source: VideoSource) -> Iterator[DepthClip]:
    """The same depth without flying pixels (`depth.edges`)."""
    from ex4d.depth.edges import clean_edges

    for frames, clip in _with_frames(clips, source):
        cleaned = [clean_edges(depth, color) for depth, color in zip(clip.depth, frames.frames, strict=True)]
        yield replace(clip, depth=np.stack(cleaned))


def with_source_cameras(
    clips: Iterator[DepthClip],
    source: VideoSource,
    cameras: str,
    result: RunResult,
    *,
    sensor: bool = False,
) -> Iterator[DepthClip]:
    """The same depth with the source camera's poses; the world is the first camera.

    Args:
        clips: Depth of the source's frames.
        source: The video.
        cameras: "static", "estimate", or a camera file of any known format. With a file, the depth is brought into its units,
            and the fitted scale noted.
        result: Takes notes and details ("source_cameras").
        sensor: The depth's shapes are exact (a sensor, a reconstruction): depth maps are laid over each other too.

    Raises:
        InputError: Poses that are not rigid, not one a frame, or not of this video.
    """
    if cameras == "static":
        return clips
    if cameras == "estimate":
        from ex4d.depth.odometry import Odometry

        return _estimated(clips, source, Odometry(align_depth=sensor), result)
    return _given(clips, source, read_poses(cameras, source.num_frames), cameras, result)


def read_poses(cameras: str, num_frames: int) -> np.ndarray:
    """cam_from_world [num_frames, 4, 4] of a camera file, in the axes of its first camera."""
    from ex4d.cameras.formats.registry import read_track
    from ex4d.geometry.relative import poses_at

    track = read_track(cameras)
    check_rigid(track.cam_from_world, f"source cameras of {cameras}")
    poses = np.asarray(track.rebased().cam_from_world, np.float64)
    if len(poses) == num_frames:
        return poses
    times = track.source_time
    if times is not None and times[0] <= 0 and times[-1] >= num_frames - 1 and (np.diff(times) > 0).all():
        return poses_at(poses, np.interp(np.arange(num_frames), times, np.arange(len(times))))
    raise InputError(
        f"{len(poses)} source cameras in {cameras} for {num_frames} frames",
        "one camera a frame",
        f"--frames {min(len(poses), num_frames)}, or --source-cameras estimate",
    )


def _estimated(
    clips: Iterator[DepthClip], source: VideoSource, odometry: Odometry, result: RunResult
) -> Iterator[DepthClip]:
    from ex4d.depth.odometry import estimate_cameras

    for frames, clip in _with_frames(clips, source):
        yield from estimate_cameras([frames], [clip], odometry)
    summary = odometry.summary()
    result.details["source_cameras"] = {"from": "estimated", **summary}
    if "drift_end" in summary:
        result.note(
            f"source cameras: {summary['inlier_ratio_median']:.0%} of the points stand still, "
            f"reprojection {summary['reprojection_error_px']:.2f} px, drift {summary['drift_end']:.1%}"
        )


def _given(
    clips: Iterator[DepthClip], source: VideoSource, poses: np.ndarray, name: str, result: RunResult
) -> Iterator[DepthClip]:
    from ex4d.depth.given_cameras import scale_to_cameras

    factor, start = np.float32(1), 0
    for frames, clip in _with_frames(clips, source):
        stop = start + len(clip)
        if start == 0:
            fit = scale_to_cameras(frames, clip, poses[:stop])
            factor = np.float32(1) if fit is None else np.float32(1 / fit.scale)
            told = "too little parallax to compare" if fit is None else f"{fit.inlier_ratio:.0%} of the points agree"
            result.details["source_cameras"] = {"from": name, "depth_multiplied_by": float(factor)}
            result.note(f"depth multiplied by {factor:.4g} to fit the cameras of {name} ({told})")
        yield replace(clip, depth=clip.depth * factor, cam_from_world=poses[start:stop])
        start = stop


def _with_frames(clips: Iterator[DepthClip], source: VideoSource) -> Iterator[tuple[VideoClip, DepthClip]]:
    """Each depth clip with the frames it belongs to."""
    frames = chain.from_iterable(chunk.frames for chunk in source.chunks(16))
    for clip in clips:
        pictures = list(islice(frames, len(clip)))
        if len(pictures) != len(clip):
            raise InputError(f"more depth than the frames of {source.path}", "one depth a frame")
        yield VideoClip(np.stack(pictures), source.fps), clip
