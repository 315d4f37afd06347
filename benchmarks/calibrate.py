"""The yardstick of this machine: a plain z-buffer, timed in the same run as whatever is compared with it.

It draws ready-made screen triangles (no transform, no mesh, no clipping, no ties, no colour) into float32 depth and int32
face ids, in two horizontal strips on two threads: what anyone would write first in numba. Ratios to it are comparable
between machines; milliseconds are not.

    python benchmarks/calibrate.py [--size 512]
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

POOL = ThreadPoolExecutor(2)


@njit(cache=True, nogil=True)
def plain_strip(points, faces, top, bottom, inverse_z, face_id):
    """points [V, 3]: x, y in pixels and 1/z."""
    width = inverse_z.shape[1]
    for row in range(top, bottom):
        inverse_z[row, :] = 0
        face_id[row, :] = -1
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, x1, y1, x2, y2 = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        lo_y = max(int(np.ceil(min(y0, y1, y2) - 0.5)), top)
        hi_y = min(int(np.floor(max(y0, y1, y2) - 0.5)), bottom - 1)
        if lo_y > hi_y:
            continue
        lo_x = max(int(np.ceil(min(x0, x1, x2) - 0.5)), 0)
        hi_x = min(int(np.floor(max(x0, x1, x2) - 0.5)), width - 1)
        if lo_x > hi_x:
            continue
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        if area == 0:
            continue
        scale = 1 / area
        for row in range(lo_y, hi_y + 1):
            for col in range(lo_x, hi_x + 1):
                px, py = col + 0.5, row + 0.5
                w0 = ((x1 - px) * (y2 - py) - (y1 - py) * (x2 - px)) * scale
                w1 = ((x2 - px) * (y0 - py) - (y2 - py) * (x0 - px)) * scale
                w2 = 1 - w0 - w1
                if w0 >= 0 and w1 >= 0 and w2 >= 0:
                    q = w0 * points[a, 2] + w1 * points[b, 2] + w2 * points[c, 2]
                    if q > inverse_z[row, col]:
                        inverse_z[row, col] = q
                        face_id[row, col] = f


def plain_z_buffer(points: np.ndarray, faces: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Face ids [H, W] of triangles given in pixels and 1/z, float32."""
    inverse_z, face_id = np.empty(size_hw, np.float32), np.empty(size_hw, np.int32)
    half = size_hw[0] // 2
    strips = [(0, half), (half, size_hw[0])]
    list(POOL.map(lambda strip: plain_strip(points, faces, *strip, inverse_z, face_id), strips))
    return face_id


def bumpy_depth(size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A test scene [H, W] float32: waves behind, discs in front, depths 2.6 to about 14 like the release's pseudo-depth."""
    h, w = size_hw
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / min(h, w)
    depth = 8 + 2 * np.sin(5 * x + 1) * np.cos(4 * y) + 3 * y
    for _ in range(12):
        cx, cy, r, z = (
            rng.uniform(0.1, 0.9) * w / h,
            rng.uniform(0.1, 0.9),
            rng.uniform(0.04, 0.15),
            rng.uniform(2.6, 6),
        )
        inside = (x - cx) ** 2 + (y - cy) ** 2 < r * r
        depth[inside] = np.minimum(depth, z + 0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / r)[inside]
    return depth.astype(np.float32)


def yardstick(size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(points, faces) of `bumpy_depth` seen a little from the side: 2 (H-1)(W-1) triangles of about half a pixel."""
    h, w = size_hw
    depth = bumpy_depth(size_hw)
    y, x = np.mgrid[:h, :w].astype(np.float64)
    focal = 500 * w / 512
    X, Y = (x - w / 2) / focal * depth, (y - h / 2) / focal * depth
    X = X - 0.3
    points = np.stack([X / depth * focal + w / 2, Y / depth * focal + h / 2, 1 / depth], -1).astype(np.float32)
    ids = np.arange(h * w, dtype=np.int32).reshape(h, w)
    A, B, C, D = (v.reshape(-1) for v in (ids[:-1, :-1], ids[1:, :-1], ids[:-1, 1:], ids[1:, 1:]))
    return points.reshape(-1, 3), np.concatenate([np.stack([B, A, C], -1), np.stack([B, C, D], -1)])


def best_wall_cpu_ms(call, repeats: int = 9) -> tuple[float, float]:
    """Least wall time and least CPU time (all threads together) of a call, milliseconds.

    On a shared machine the minimum is the least disturbed, and CPU time is disturbed less than wall time. Work spread evenly
    over two idle cores takes half its CPU time.
    """
    call()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return 1e3 * min(walls), 1e3 * min(cpus)


def best_ms(call, repeats: int = 9) -> float:
    """Least wall time of a call, milliseconds."""
    return best_wall_cpu_ms(call, repeats)[0]


def plain_wall_cpu_ms(size_hw: tuple[int, int], repeats: int = 9) -> tuple[float, float]:
    """The yardstick: wall and CPU milliseconds of one plain z-buffer frame at this size."""
    points, faces = yardstick(size_hw)
    return best_wall_cpu_ms(lambda: plain_z_buffer(points, faces, size_hw), repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    size = parser.parse_args().size
    wall, cpu = plain_wall_cpu_ms((size, size))
    print(
        f"plain z-buffer {size}x{size}, {2 * (size - 1) ** 2:,} triangles, 2 strips: wall {wall:.2f} ms, CPU {cpu:.2f} ms"
    )
