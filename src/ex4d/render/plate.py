"""The temporal background: what the scene shows, at the same place, at times when nothing stands in front of it.

With a source camera that stands still, one picture and one depth map (a "clean plate" in film terms) hold it all. With a
moving camera whose poses are known, every key frame is a layer of its own, with its movers taken out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ex4d.geometry.frames import invert_rigid
from ex4d.geometry.pinhole import px_centers
from ex4d.types import DepthClip, RenderClip, VideoClip

#: Key frames of a clip that the plate is made from; more finds shorter glimpses of the background and costs memory.
MAX_KEYS = 24

#: Depths within this ratio are the same surface (depth maps of video flicker by a few per cent).
SAME_SURFACE = 0.04

#: Mean absolute colour deviation, in levels, under which a pixel shows the same thing at all its times.
SAME_COLOR = 14.0

#: A camera counts as standing still when this share of the pixels keeps its colour while its depth says "same surface".
STILL_SHARE = 0.7

#: How many key frames must agree on the background, so that one bad depth map does not dig a hole.
MIN_SUPPORT = 2


@dataclass(frozen=True)
class Layer:
    """A source view without its movers.

    Attributes:
        frame: The picture and its depth as one-frame clips, in the source camera `depth.cam_from_world`.
        valid: bool [height, width], False where only movers were ever seen.
    """

    video: VideoClip
    depth: DepthClip
    valid: np.ndarray


def key_indices(num_frames: int, max_keys: int = MAX_KEYS) -> np.ndarray:
    """Which frames serve as keys: evenly spread, first and last included."""
    return np.unique(np.linspace(0, num_frames - 1, min(num_frames, max_keys)).round().astype(int))


def background_layers(video: VideoClip, depth: DepthClip) -> tuple[list[Layer], str]:
    """Layers of the clip's background and a sentence that says what was found.

    Args:
        video: The key frames [keys, height, width, 3].
        depth: Their depths, with poses when the source camera moves.
    """
    if len(video) < MIN_SUPPORT + 1:
        return [], "too few frames for a temporal background"
    if depth.cam_from_world is not None and np.ptp(depth.cam_from_world, axis=0).max() > 1e-6:
        layers = [_without_movers(video, depth, index) for index in range(len(video))]
        return layers, f"temporal background from {len(layers)} posed key frames"
    return _still_plate(video, depth)


def _still_plate(video: VideoClip, depth: DepthClip) -> tuple[list[Layer], str]:
    keys = len(video)
    # the MIN_SUPPORT-th farthest depth of each pixel: the background, if it was seen that often
    behind = np.partition(depth.depth, keys - MIN_SUPPORT, axis=0)[keys - MIN_SUPPORT]
    member = depth.depth > behind * (1 - SAME_SURFACE)
    color = np.empty(video.frames.shape[1:], np.uint8)
    steady = np.empty(behind.shape, bool)
    plate_depth = np.empty_like(behind)
    for row in range(0, behind.shape[0], 32):  # strips keep the float copies small
        rows = slice(row, row + 32)
        picked = np.where(member[:, rows, :, None], video.frames[:, rows].astype(np.float32), np.nan)
        median = np.nanmedian(picked, axis=0)
        steady[rows] = np.nanmean(np.abs(picked - median), axis=(0, 3)) < SAME_COLOR
        color[rows] = np.rint(median).astype(np.uint8)
        plate_depth[rows] = np.nanmedian(np.where(member[:, rows], depth.depth[:, rows], np.nan), axis=0)
    share = float(steady.mean())
    if share < STILL_SHARE:
        return [], (
            f"no temporal background: the source camera seems to move ({share:.0%} of the picture keeps still); "
            "give its poses with --source-cameras"
        )
    still = DepthClip(plate_depth[None], depth.K[:1], depth.unit)
    layer = Layer(VideoClip(color[None], video.fps), still, np.ones(behind.shape, bool))
    return [layer], f"temporal background from {keys} key frames of a still camera"


def _without_movers(video: VideoClip, depth: DepthClip, index: int) -> Layer:
    """Take out what other key frames can see through."""
    assert depth.cam_from_world is not None
    valid = np.ones(depth.size_hw, bool)
    h, w = depth.size_hw
    px = px_centers((h, w)).reshape(-1, 2)
    rays = np.concatenate([px, np.ones((len(px), 1))], axis=1) @ np.linalg.inv(depth.K[index].astype(np.float64)).T
    points = rays * depth.depth[index].reshape(-1, 1)
    for other in range(len(video)):
        if other == index:
            continue
        other_from_this = depth.cam_from_world[other] @ invert_rigid(depth.cam_from_world[index])
        there = points @ other_from_this[:3, :3].T + other_from_this[:3, 3]
        z = np.maximum(there[:, 2], 1e-6)
        K = depth.K[other].astype(np.float64)
        x, y = (there @ K.T)[:, :2].T / z
        inside = (there[:, 2] > 1e-6) & (x >= 0) & (x < w) & (y >= 0) & (y < h)
        xi, yi = np.where(inside, x, 0).astype(int), np.where(inside, y, 0).astype(int)
        seen_through = inside & (depth.depth[other][yi, xi] > z * (1 + 2 * SAME_SURFACE))
        valid &= ~seen_through.reshape(h, w)
    one = slice(index, index + 1)
    still = DepthClip(depth.depth[one], depth.K[one], depth.unit, depth.cam_from_world[one])
    return Layer(VideoClip(video.frames[one], video.fps), still, valid)


def with_plate(render: RenderClip, layers: list[tuple[RenderClip, np.ndarray]]) -> RenderClip:
    """Put rendered layers behind a render: the first layer that knows a hole's surface wins.

    Args:
        render: The frames themselves.
        layers: Per layer its own render along the same path, and bool [time, height, width]: where it may be trusted.
    """
    plate = np.zeros_like(render.color)
    known = np.zeros_like(render.mask)
    for layer, trusted in layers:
        # A hole's hidden face lies between the object in front and what is behind; nothing nearer can belong there.
        behind = layer.depth >= render.depth * (1 - SAME_SURFACE)
        use = layer.mask & trusted & ~render.mask & ~known & (behind | ~np.isfinite(render.depth))
        plate[use] = layer.color[use]
        known |= use
    return replace(render, plate=plate, plate_mask=known)
