"""How long a path preview takes, and how far its hole shares lie from the full-size render's. Run: python benchmarks/preview.py

49 frames at 512x512 of a synthetic clip, drawn at 256 px; the ratio is to the full-size render in the same run.
"""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np

from ex4d.cameras.make import make_path
from ex4d.geometry.pinhole import intrinsics
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.preview.report import preview_path, suggest
from ex4d.render.clip import render_clip
from ex4d.render.make import get_rasterizer
from ex4d.types import DepthClip, VideoClip

PATHS = ("orbit:20", "orbit:60", "90", "180", "dolly:out=60%", "orbit:yaw=40,pitch=20,in=20%")


def synthetic_clip(n: int = 49, side: int = 512) -> tuple[VideoClip, DepthClip]:
    """Slanted floor, wall and a wavy block that moves."""
    y, x = np.mgrid[:side, :side]
    ground = np.minimum(6.0, 2.2 / np.maximum((y - side / 2) / side, 1e-3)).astype(np.float32)
    depth = np.repeat(ground[None], n, axis=0)
    for t in range(n):
        part = slice(side // 4, side * 3 // 4), slice(side // 5 + 3 * t, side // 2 + 3 * t)
        depth[t][part] = 2.5 + 0.2 * np.sin(x[part] / 15) * np.cos(y[part] / 11)
    frames = np.repeat(np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8)[None], n, axis=0)
    K = np.repeat(intrinsics((side, side), 500.0)[None], n, axis=0)
    return VideoClip(frames, Fraction(24)), DepthClip(depth, K)


def seconds(work, repeats: int = 3) -> float:
    """The least of a few runs."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    """One table."""
    video, depth = synthetic_clip()
    rasterizer = get_rasterizer("cpu")
    scope = DepthRange.of(depth.depth)
    print(f"{'path':<30} {'preview s':>9} {'full s':>7} {'ratio':>6} {'worst share error':>18}")
    for words in PATHS:
        path = make_path(words, first=depth, num_frames=len(video), fps=video.fps)
        preview_path(video, depth, path, rasterizer=rasterizer)  # compiled code is cached, files are in memory

        def full(path=path):
            return render_clip(
                video, depth, path, rule=MeshRule(), depth_range=scope, rasterizer=rasterizer, keep_first=False
            )

        small = seconds(lambda path=path: preview_path(video, depth, path, rasterizer=rasterizer))
        large = seconds(full, 2)
        error = np.abs(preview_path(video, depth, path).seen - full().mask.mean(axis=(1, 2))).max()
        print(f"{words:<30} {small:9.2f} {large:7.2f} {small / large:6.2f} {error:18.2%}")
    found: list[tuple[str, float]] = []
    taken = seconds(lambda: found.append(suggest("orbit:yaw={}", video, depth, budget=0.2)), 2)
    print(f"suggest, hole budget 20%: {found[0][0]} in {taken:.2f} s")


if __name__ == "__main__":
    main()
