"""The line: depth -> mesh -> render -> generate. In memory here; with files, resume and audio in `stages.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ex4d.errors import InputError
from ex4d.geometry.mesh_rule import DepthRange, MeshRule
from ex4d.types import CameraPath, DepthClip, Progress, RenderClip, VideoClip

if TYPE_CHECKING:
    from ex4d.generators.base import Generator
    from ex4d.render.plate import Layer
    from ex4d.stages import RunConfig, RunResult

#: Pixels that one chunk of a render holds at most: colour, mask, plate and depth of these are about 0.3 GB.
CHUNK_PIXELS = 12_000_000

#: Key frames whose posed layers are tried for one output frame, nearest in time first, and the share of the hole that
#: may stay open without trying another.
POSED_LAYERS_TRIED, HOLE_LEFT = 8, 0.02


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


@dataclass(frozen=True)
class RenderOptions:
    """How the line renders.

    Attributes:
        rule: How depth becomes a mesh; `MeshRule.reference()` reproduces the EX-4D release.
        rasterizer: "auto", "cpu", "cuda", "reference" or "nvdiffrast".
        supersample: 2 for smooth mask edges and `RenderClip.coverage`.
        plate: Look for what other times of the clip show behind things that move.
    """

    rule: MeshRule = MeshRule()
    rasterizer: str = "auto"
    supersample: int = 1
    plate: bool = True


def reconstruct(
    video: VideoClip,
    depth: DepthClip,
    camera: CameraPath | str,
    options: RenderOptions = RenderOptions(),
    *,
    progress: Progress | None = None,
) -> RenderClip:
    """Colour and mask of a clip seen along a new camera path.

    Args:
        video: The source frames.
        depth: Depth of the same frames, at their size.
        camera: A path in the world of the depth's poses, or words such as "orbit:40" (`ex4d.cameras.resolve.make_path`),
            which ride on the source camera's own motion.
        options: See `RenderOptions`.
        progress: Called after every frame.
    """
    if len(video) != len(depth):
        raise InputError(f"{len(depth)} depth maps for {len(video)} frames", "one depth per frame", "cut one of them")
    if isinstance(camera, str):
        from ex4d.cameras.resolve import make_path
        from ex4d.geometry.relative import place_path

        reference = options.rule == MeshRule.reference()
        camera = make_path(camera, first=depth, num_frames=len(video), fps=video.fps, reference=reference)
        camera = place_path(camera, depth.cam_from_world)
    footage = MemoryFootage(video, depth)
    depth_range = DepthRange.of(depth.depth)
    layers: list[Layer] = []
    if options.plate:
        from ex4d.render.plate import background_layers, key_indices

        keys = key_indices(len(video))
        layers, _ = background_layers(footage.video(keys), footage.depth(keys))
    return join(list(stream_render(footage, camera, depth_range, options, layers, progress=progress)))


def generate(render: RenderClip, generator: Generator | str | None = None, *, seed: int = 0) -> VideoClip:
    """Complete a render; `generator` is a preset's name or a `Generator`, default the embedded model or else the fill."""
    if generator is None or isinstance(generator, str):
        from ex4d.generators.presets import default_preset, make_generator

        generator = make_generator(generator or default_preset())
    done = list(generator.generate([render], seed=seed))
    return VideoClip(np.concatenate([clip.frames for clip in done]), render.fps)


def run(video: Path | str, config: RunConfig, *, progress: Progress | None = None) -> RunResult:
    """The whole line from a file to a folder; see `ex4d.stages.run_stages`."""
    from ex4d.stages import run_stages

    return run_stages(Path(video), config, progress=progress)


def join(clips: list[RenderClip]) -> RenderClip:
    """Chunks as one clip."""
    if len(clips) == 1:
        return clips[0]

    def maybe(parts: list[np.ndarray | None]) -> np.ndarray | None:
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None

    first = clips[0]
    return RenderClip(
        color=np.concatenate([clip.color for clip in clips]),
        mask=np.concatenate([clip.mask for clip in clips]),
        depth=np.concatenate([clip.depth for clip in clips]),
        path=join_paths([clip.path for clip in clips]),
        source=VideoClip(np.concatenate([clip.source.frames for clip in clips]), first.fps),
        fps=first.fps,
        coverage=maybe([clip.coverage for clip in clips]),
        plate=maybe([clip.plate for clip in clips]),
        plate_mask=maybe([clip.plate_mask for clip in clips]),
    )


def join_paths(paths: list[CameraPath]) -> CameraPath:
    """Pieces of a path as one."""
    return CameraPath(
        np.concatenate([p.cam_from_world for p in paths]),
        np.concatenate([p.K for p in paths]),
        paths[0].size_hw,
        np.concatenate([p.source_time for p in paths]),
        paths[0].name,
    )


def chunk_frames(size_hw: tuple[int, int]) -> int:
    """Frames of this size that one chunk of a render holds."""
    return int(np.clip(CHUNK_PIXELS // (size_hw[0] * size_hw[1]), 4, 64))


def stream_render(
    footage: Footage,
    path: CameraPath,
    depth_range: DepthRange,
    options: RenderOptions,
    layers: list[Layer],
    *,
    progress: Progress | None = None,
) -> Iterator[RenderClip]:
    """Render chunk by chunk; memory does not grow with the clip's length.

    Args:
        footage: The source clip.
        path: A camera for every output frame, in the world of the footage's poses.
        depth_range: Of the whole clip.
        options: See `RenderOptions`.
        layers: Temporal background from `render.plate.background_layers`.
        progress: Called after every frame.
    """
    from ex4d.mesh.watertight import build_mesh
    from ex4d.render.clip import render_clip
    from ex4d.render.resolve import get_rasterizer

    rasterizer = get_rasterizer(options.rasterizer)
    step = chunk_frames(path.size_hw)
    for start in range(0, len(path), step):
        part = path[start : start + step]
        index, local = np.unique(np.floor(part.source_time + 0.5).astype(int), return_inverse=True)

        def tell(done: int, _total: int | None, what: str, start: int = start) -> None:
            if progress is not None:
                progress(start + done, len(path), what)

        render = render_clip(
            footage.video(index),
            footage.depth(index),
            replace(part, source_time=local.astype(np.float64)),
            rule=options.rule,
            depth_range=depth_range,
            rasterizer=rasterizer,
            supersample=options.supersample,
            keep_first=options.rule.keep_first and start == 0,
            build_mesh=build_mesh,
            progress=tell,
        )
        if layers and not render.mask.all():
            render = _with_layers(render, layers, depth_range, rasterizer)
        yield replace(render, path=part)


def _with_layers(render: RenderClip, layers: list[Layer], depth_range: DepthRange, rasterizer) -> RenderClip:
    from ex4d.render.plate import with_plate

    if len(layers) == 1:
        return with_plate(render, [_draw_layer(layers[0], render.path, depth_range, rasterizer)])
    key_time = np.linspace(0, 1, len(layers))
    last = max(float(render.path.source_time.max()), 1.0)
    done: list[RenderClip] = []
    for t in range(len(render)):
        frame = render[t : t + 1]
        hole = int((~frame.mask).sum())
        drawn: list[tuple[RenderClip, np.ndarray]] = []
        for k in np.argsort(np.abs(key_time - render.path.source_time[t] / last))[:POSED_LAYERS_TRIED]:
            if hole == 0:
                break
            drawn.append(_draw_layer(layers[k], frame.path, depth_range, rasterizer))
            known = with_plate(frame, drawn).plate_mask
            if known is not None and int((~frame.mask & ~known).sum()) <= HOLE_LEFT * hole:
                break
        done.append(with_plate(frame, drawn))
    return join(done)


def _draw_layer(layer: Layer, path: CameraPath, depth_range: DepthRange, rasterizer) -> tuple[RenderClip, np.ndarray]:
    from ex4d.mesh.watertight import build_mesh
    from ex4d.render.clip import render_clip

    still = replace(path, source_time=np.zeros(len(path)))
    how = {"rule": MeshRule(), "depth_range": depth_range, "rasterizer": rasterizer, "build_mesh": build_mesh}
    picture = render_clip(layer.video, layer.depth, still, **how)
    if layer.valid.all():
        return picture, picture.mask
    grey = VideoClip(np.repeat(layer.valid[None, ..., None] * np.uint8(255), 3, axis=-1), layer.video.fps)
    trusted = render_clip(grey, layer.depth, still, **how)
    return picture, trusted.mask & (trusted.color[..., 0] > 250)
