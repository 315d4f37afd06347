"""The render of a clip of any length, chunk by chunk, with the background that other times show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.pipeline.chunks import chunk_frames, join
from ex4d.pipeline.config import RenderOptions
from ex4d.pipeline.footage import Footage
from ex4d.types import CameraPath, Progress, RenderClip, VideoClip

if TYPE_CHECKING:
    from ex4d.render.plate import Layer


#: Key frames whose posed layers are tried for one output frame, nearest in time first, and the share of the hole that
#: may stay open without trying another.
POSED_LAYERS_TRIED, HOLE_LEFT = 8, 0.02


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
    from ex4d.render.make import get_rasterizer

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
