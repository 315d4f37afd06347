"""What the line reads from disk, in the form its stages take: they open no files themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ex4d.depth.make import depth_way
from ex4d.errors import InputError
from ex4d.io.depth import file as arrays
from ex4d.io.video.read import VideoSource
from ex4d.pipeline.chunks import chunk_frames
from ex4d.pipeline.config import RunConfig
from ex4d.pipeline.folder import DEPTH
from ex4d.pipeline.stage import RunResult
from ex4d.system.atomic import ensure_dir
from ex4d.types import DepthClip, Progress, VideoClip, check_rigid

if TYPE_CHECKING:
    from ex4d.depth.source_cameras.odometry import Odometry


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

    first = next(clips, None)
    if first is None:
        raise InputError(f"no frames in {source.path}", "a video with at least one frame")
    ensure_dir(path.parent)
    with arrays.DepthWriter(path, source.num_frames, source.fps, half=half) as writer:
        for clip in chain([first], clips):
            writer.write(clip)


def with_clean_edges(clips: Iterator[DepthClip], source: VideoSource) -> Iterator[DepthClip]:
    """The same depth without flying pixels (`depth.edges`)."""
    from ex4d.depth.maps.edges import clean_edges

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
        from ex4d.depth.source_cameras.odometry import Odometry

        return _estimated(clips, source, Odometry(align_depth=sensor), result)
    return _given(clips, source, read_poses(cameras, source.num_frames), cameras, result)


def read_poses(cameras: str, num_frames: int) -> np.ndarray:
    """cam_from_world [num_frames, 4, 4] of a camera file, in the axes of its first camera."""
    from ex4d.cameras.formats.registry import read_track
    from ex4d.geometry.poses import poses_at

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
    from ex4d.depth.source_cameras.odometry import estimate_cameras

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
    from ex4d.depth.source_cameras.given import scale_to_cameras

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


def make_depth_file(source: VideoSource, config: RunConfig, result: RunResult, progress: Progress | None) -> list[str]:
    """depth.npz of the clip."""
    from ex4d.depth.make import make_depth
    from ex4d.io.depth.open import depth_of_part, open_depth
    from ex4d.pipeline.depth_stage import placed_depth, write_depth_clips

    estimator = make_depth(
        config.depth,
        size_hw=source.size_hw,
        num_frames=source.num_frames,
        fov_deg=config.fov_deg,
        preset_reference=config.reference,
        kind=config.depth_kind,  # type: ignore[arg-type]
        fill_holes=config.fill_holes,
        open_depth=lambda path: depth_of_part(open_depth(path), source),
        **config.depth_options,
    )
    step = chunk_frames(source.size_hw)
    clips = estimator.estimate(source.chunks(step), seed=config.seed, progress=progress)
    clips = placed_depth(
        clips,
        source,
        config.depth,
        result,
        clean=config.clean_edges,
        reference=config.reference,
        source_cameras=config.source_cameras,
    )
    write_depth_clips(config.out / DEPTH, clips, source)
    if cuts := source.cuts():
        shown = ", ".join(map(str, cuts[:8])) + (", ..." if len(cuts) > 8 else "")
        result.note(
            f"a new shot begins at frame {shown}: a path is made for one shot; pick one with --start and --frames"
        )
    result.details["depth"] = {**estimator.manifest(), "cuts": cuts}
    for note in getattr(estimator, "notes", lambda: [])():
        result.note(note)
    return [DEPTH]
