"""The line: depth -> mesh -> render -> generate. In memory here; with files, resume and audio in `pipeline/run.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ex4d.errors import InputError
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.pipeline.chunks import join
from ex4d.pipeline.config import RenderOptions
from ex4d.pipeline.footage import MemoryFootage
from ex4d.pipeline.stream import stream_render
from ex4d.types import CameraPath, DepthClip, Progress, RenderClip, VideoClip

if TYPE_CHECKING:
    from ex4d.generators.base import Generator
    from ex4d.render.plate import Layer


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
        camera: A path in the world of the depth's poses, or words such as "orbit:40" (`ex4d.cameras.make.make_path`),
            which ride on the source camera's own motion.
        options: See `RenderOptions`.
        progress: Called after every frame.
    """
    if len(video) != len(depth):
        raise InputError(f"{len(depth)} depth maps for {len(video)} frames", "one depth per frame", "cut one of them")
    if isinstance(camera, str):
        from ex4d.cameras.make import make_path
        from ex4d.cameras.place import place_path

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
        from ex4d.generators.make import default_preset, make_generator

        generator = make_generator(generator or default_preset())
    done = list(generator.generate([render], seed=seed))
    return VideoClip(np.concatenate([clip.frames for clip in done]), render.fps)
