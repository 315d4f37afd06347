"""One chunk of a clip along a camera path: every output frame is some source frame's mesh, seen from a new camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int64

from ex4d.errors import InputError
from ex4d.geometry.frames import invert_rigid
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.render.base import DepthRasterizer, Rasterizer, SeenFrame, resolve_frame
from ex4d.types import CameraPath, DepthClip, Progress, RenderClip, VideoClip, WatertightMesh

#: Frames handed at once to a rasteriser that draws many: 16 of 1440p and all their results take 0.4 GB.
BATCH_FRAMES = 16

BuildMesh = Callable[[np.ndarray, np.ndarray, np.ndarray, MeshRule, DepthRange], WatertightMesh]


def render_clip(
    source: VideoClip,
    depth: DepthClip,
    path: CameraPath,
    *,
    rule: MeshRule,
    depth_range: DepthRange,
    rasterizer: Rasterizer | DepthRasterizer,
    progress: Progress | None = None,
    supersample: int = 1,
    keep_first: bool | None = None,
    source_start: int = 0,
    build_mesh: BuildMesh | None = None,
) -> RenderClip:
    """Render a chunk; memory is that of its inputs and outputs.

    Args:
        source: Source frames.
        depth: Depth of the same frames, same size; with poses, every frame's mesh is placed in their common world.
        path: A camera for every output frame; `source_time` counts from the clip's start and takes the nearest frame.
        rule: How meshes are made and seen.
        depth_range: Of the whole clip.
        rasterizer: Draws depth maps directly where it can (`draw_depth`), else meshes made by `build_mesh`.
        progress: Told after every frame.
        supersample: Samples a pixel along each axis; above 1 the result has `coverage`, and a pixel counts as seen when at
            least half of its samples are.
        keep_first: Make the first output frame its source frame, all seen; None follows the rule. It needs one size.
        source_start: Clip index of `source.frames[0]`.
        build_mesh: `ex4d.mesh.watertight.build_mesh`, for rasterisers that only draw meshes.

    Raises:
        InputError: Sizes or lengths that do not fit, or a source time outside the chunk.
    """
    index = _source_index(path, source_start, len(source))
    _check(source, depth)
    keep_first = rule.keep_first if keep_first is None else keep_first
    world_from_source = None if depth.cam_from_world is None else invert_rigid(depth.cam_from_world)
    h, w = path.size_hw
    color = np.empty((len(path), h, w, 3), np.uint8)
    mask = np.empty((len(path), h, w), bool)
    z = np.empty((len(path), h, w), np.float32)
    coverage = np.empty((len(path), h, w), np.uint8) if supersample > 1 else None

    cam_from_source = path.cam_from_world
    if world_from_source is not None:
        cam_from_source = cam_from_source @ world_from_source[index]
    drawn = _draw_all(
        rasterizer, build_mesh, source, depth, index, rule, depth_range, path, cam_from_source, supersample
    )
    for t, (s, frame) in enumerate(zip(index, drawn, strict=True)):
        if coverage is None:
            color[t], mask[t], z[t] = frame
        else:
            color[t], mask[t], z[t], coverage[t] = frame
        if t == 0 and keep_first:
            _keep(color[t], mask[t], source.frames[s])
            if coverage is not None:
                coverage[t] = 255
        if progress is not None:
            progress(t + 1, len(path), "rendering")
    frames = source.frames if np.array_equal(index, np.arange(len(source))) else source.frames[index]
    return RenderClip(color, mask, z, path, VideoClip(frames, source.fps), source.fps, coverage)


def _draw_all(
    rasterizer, build_mesh, source, depth, index, rule, depth_range, path, cam_from_source, supersample
) -> Iterator[tuple[np.ndarray, ...]]:
    """Colour, mask, depth and, with several samples a pixel, coverage of every output frame."""
    if hasattr(rasterizer, "draw_depths"):  # many frames in one go
        for first in range(0, len(index), BATCH_FRAMES):
            t = slice(first, first + BATCH_FRAMES)
            s = index[t]
            yield from rasterizer.draw_depths(
                depth.depth[s], source.frames[s], depth.K[s], rule, depth_range,
                cam_from_source[t], path.K[t], path.size_hw, supersample,
            )  # fmt: skip
        return
    h, w = path.size_hw
    scale = np.array([[supersample], [supersample], [1]], np.float32)
    for t, s in enumerate(index):
        surface = (depth.depth[s], source.frames[s], depth.K[s], rule, depth_range)
        camera = (cam_from_source[t], path.K[t] * scale, (h * supersample, w * supersample))
        frame = _draw(rasterizer, build_mesh, surface, camera)
        yield (frame.color, frame.mask, frame.depth) if supersample == 1 else pool(frame, supersample)


def _draw(rasterizer, build_mesh: BuildMesh | None, surface: tuple, camera: tuple) -> SeenFrame:
    if hasattr(rasterizer, "draw_depth"):
        return rasterizer.draw_depth(*surface, *camera)
    if build_mesh is None:
        raise TypeError(f"the {rasterizer.name} rasteriser draws meshes only: pass build_mesh")
    mesh = build_mesh(*surface)
    return resolve_frame(rasterizer.draw(mesh, *camera), mesh.visible, surface[3])


def pool(frame: SeenFrame, supersample: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Colour, mask, depth and coverage (0..255) of pixels made of supersample^2 samples.

    Colour is the mean of the seen samples, depth the nearest seen sample's (of any sample where none is seen).
    """
    n = supersample
    h, w = frame.mask.shape[0] // n, frame.mask.shape[1] // n

    def samples(x: np.ndarray) -> np.ndarray:
        return x.reshape(h, n, w, n, *x.shape[2:]).swapaxes(1, 2).reshape(h, w, n * n, *x.shape[2:])

    seen, z = samples(frame.mask), samples(frame.depth)
    count = seen.sum(-1)
    total = samples(frame.color).sum(2, dtype=np.uint32)  # unseen samples are 0
    mask = 2 * count >= n * n
    color = (total + count[..., None] // 2) // np.maximum(count, 1)[..., None]
    z_seen = np.where(seen, z, np.inf).min(-1)
    depth = np.where(count > 0, z_seen, z.min(-1)).astype(np.float32)
    coverage = ((255 * count + n * n // 2) // (n * n)).astype(np.uint8)
    return np.where(mask[..., None], color, 0).astype(np.uint8), mask, depth, coverage


def _keep(color: np.ndarray, mask: np.ndarray, frame: np.ndarray) -> None:
    if color.shape != frame.shape:
        raise InputError(
            f"first frame {frame.shape[1]}x{frame.shape[0]} cannot stand in a render of {color.shape[1]}x{color.shape[0]}",
            "one size",
            "render at the size of the source",
        )
    color[:], mask[:] = frame, True


def _source_index(path: CameraPath, start: int, count: int) -> Int64[np.ndarray, " time"]:
    """Index into the chunk of the nearest source frame of every output frame."""
    index = np.floor(path.source_time + 0.5).astype(np.int64) - start
    outside = (index < 0) | (index >= count)
    if outside.any():
        first = int(np.argmax(outside))
        raise InputError(
            f"camera path frame {first} shows source time {path.source_time[first]:g}",
            f"times between {start} and {start + count - 1}",
            "shorten the path, or read more frames of the video",
        )
    return index


def _check(source: VideoClip, depth: DepthClip) -> None:
    if len(source) != len(depth):
        raise InputError(f"{len(depth)} depth maps for {len(source)} frames", "one depth per frame", "cut one of them")
    if source.size_hw != depth.size_hw:
        (dh, dw), (h, w) = depth.size_hw, source.size_hw
        raise InputError(f"depth of {dw}x{dh} for frames of {w}x{h}", "one size", "resize the depth")
