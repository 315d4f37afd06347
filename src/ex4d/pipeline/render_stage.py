"""Render: colour, mask, plate and depth along the new path."""

from __future__ import annotations

import numpy as np

from ex4d.io.depth.file import DepthFile
from ex4d.io.video.read import VideoSource
from ex4d.mesh.rule import MeshRule
from ex4d.pipeline.config import RenderOptions, RunConfig
from ex4d.pipeline.folder import RenderWriter
from ex4d.pipeline.footage import FileFootage, depth_range_of
from ex4d.pipeline.stage import RunResult
from ex4d.pipeline.stream import stream_render
from ex4d.types import CameraPath, DepthClip, Progress, VideoClip


def check_camera(source: VideoSource, config: RunConfig) -> None:
    """Refuse a camera path that cannot be used before any depth is computed: words, files, lengths, poses."""
    from ex4d.cameras.make import make_path
    from ex4d.depth.intrinsics import choose_intrinsics

    K = choose_intrinsics(source.size_hw, fov_deg=config.fov_deg).for_frames(0, 1)
    flat = DepthClip(np.ones((1, *source.size_hw), np.float32), K)
    make_path(
        config.camera,
        first=flat,
        num_frames=source.num_frames,
        fps=source.fps,
        reference=config.reference,
        num_source_frames=source.num_frames,
    )


def make_path_for(source: VideoSource, depth: DepthFile, config: RunConfig, result: RunResult) -> CameraPath:
    """The new cameras, in the world of the source's."""
    from ex4d.cameras import make as resolve
    from ex4d.cameras.place import place_path

    first = FileFootage(source, depth).depth(np.array([0]))
    path = resolve.make_path(
        config.camera,
        first=first,
        num_frames=source.num_frames,
        fps=source.fps,
        reference=config.reference,
        relative_to=config.relative_to,  # type: ignore[arg-type]
        num_source_frames=source.num_frames,
    )
    for note in resolve.notes(config.camera):
        result.note(note)
    if config.lead_in:
        from ex4d.cameras.lead_in import with_lead_in

        path = with_lead_in(path, config.lead_in)
    if not np.allclose(path.cam_from_world[0], np.eye(4), atol=1e-6):
        result.note(
            "the first pose is not the source camera: its frame is rendered too, and the model lacks a clean first frame"
        )
    return place_path(path, depth.cam_from_world, config.relative_to)  # type: ignore[arg-type]


def make_render(
    source: VideoSource, depth: DepthFile, config: RunConfig, result: RunResult, progress: Progress | None
) -> list[str]:
    """Colour, mask, plate and depth along the new path."""
    from ex4d.render.plate import background_layers, key_indices

    path = make_path_for(source, depth, config, result)
    footage = FileFootage(source, depth)
    rule = MeshRule.reference() if config.reference else MeshRule()
    options = RenderOptions(rule, config.rasterizer, config.supersample, plate=not config.reference)
    layers = []
    if options.plate:
        keys = key_indices(source.num_frames)
        layers, note = background_layers(*_keys(footage, keys))
        result.note(note)
    seen = []
    with RenderWriter(config.out, len(path), source.fps) as writer:
        for render in stream_render(footage, path, depth_range_of(depth), options, layers, progress=progress):
            writer.write(render)
            seen.append(render.mask.mean(axis=(1, 2)))
    share = np.concatenate(seen)
    result.details["render"] = {
        "camera": path.name,
        "rule": rule,
        "seen_share": {"mean": float(share.mean()), "min": float(share.min())},
    }
    return writer.files


def _keys(footage: FileFootage, keys: np.ndarray) -> tuple[VideoClip, DepthClip]:
    """Key frames, read in rising order a few at a time."""
    videos = [footage.video(keys[k : k + 1]) for k in range(len(keys))]
    video = VideoClip(np.concatenate([clip.frames for clip in videos]), videos[0].fps)
    return video, footage.depth(keys)
