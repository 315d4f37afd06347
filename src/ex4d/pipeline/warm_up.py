"""A first run compiles its kernels on one core while depth is computed on the others."""

from __future__ import annotations

import threading
from fractions import Fraction
from functools import cache

import numpy as np


@cache
def compile_ahead() -> threading.Thread:
    """Begin to compile, or to load from numba's cache, what the render and the fill will call; once a process.

    Whoever needs a kernel before it is ready waits for it as if it had begun itself. Nothing that happens here matters to the
    result, so a failure is left to the one who really calls.
    """
    thread = threading.Thread(target=_compile, name="ex4d-compile")
    thread.start()
    return thread


def _compile() -> None:
    try:
        draw_a_little()
    except Exception:  # the real call says what is wrong
        return


def draw_a_little() -> None:
    """Every kernel of a default run once, on a picture of a few pixels."""
    from ex4d.generators.fill.fill import Fill
    from ex4d.mesh.rule import DepthRange, MeshRule
    from ex4d.render.cpu.rasterizer import CpuRasterizer
    from ex4d.types import CameraPath, RenderClip, VideoClip

    side = 16
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 3, (side, side)).astype(np.float32)
    color = rng.integers(0, 255, (side, side, 3)).astype(np.uint8)
    K = np.array([[side, 0, side / 2], [0, side, side / 2], [0, 0, 1]], np.float32)
    moved = np.eye(4)
    moved[0, 3] = 0.2
    rasterizer = CpuRasterizer(1)
    seen = rasterizer.draw_depth(depth, color, K, MeshRule(), DepthRange.of(depth), moved, K, (side, side))
    mask = seen.mask & (rng.random((side, side)) < 0.5)  # some holes, in two frames: the second holds on to the first
    path = CameraPath(
        np.tile(np.eye(4), (2, 1, 1)), np.tile(K, (2, 1, 1)), (side, side), np.arange(2, dtype=np.float64)
    )
    frames, masks, maps = (np.stack([value, value]) for value in (seen.color, mask, seen.depth))
    video = VideoClip(frames, Fraction(25))
    list(Fill().generate([RenderClip(frames, masks, maps, path, video, video.fps)]))
