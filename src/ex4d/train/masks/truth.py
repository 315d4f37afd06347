"""What a new camera truly sees of a source view, by casting rays through the whole scene: the measure of aligned masks."""

from __future__ import annotations

from functools import cache

import numpy as np

from ex4d.geometry.frames import eye_in_world, invert_rigid
from ex4d.geometry.pinhole import project, px_centers, unproject
from ex4d.types import WatertightMesh

#: A ray starts this share of its length away from its own surface.
CLEARANCE = 2e-3

#: The new picture is cut into this many tiles a side, so that a ray meets only triangles near it.
TILES = 48


def truly_seen(
    mesh: WatertightMesh,
    depth: np.ndarray,
    K: np.ndarray,
    source_from_world: np.ndarray,
    new_from_world: np.ndarray,
    *,
    stride: int = 1,
) -> np.ndarray:
    """Which source pixels (every `stride`-th of both axes) the new camera sees: in its picture, with nothing in between.

    Args:
        mesh: Everything there is, in the world, seen by the source or not.
        depth: Exact depth of the source view [H, W].
        K: Intrinsics of both cameras [3, 3]; the new picture has the source's size.
    """
    h, w = depth.shape
    px = px_centers((h, w))[stride // 2 :: stride, stride // 2 :: stride]
    points = unproject(px, depth[stride // 2 :: stride, stride // 2 :: stride].astype(np.float64), K)
    shape = points.shape[:2]
    world_from_source = invert_rigid(source_from_world)
    points = points.reshape(-1, 3) @ world_from_source[:3, :3].T + world_from_source[:3, 3]
    new = points @ new_from_world[:3, :3].T + new_from_world[:3, 3]
    at = project(new, K)
    inside = (new[:, 2] > 1e-3) & (at >= 0).all(1) & (at[:, 0] < w) & (at[:, 1] < h)
    eye = eye_in_world(new_from_world[None])[0]
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    tile = np.where(inside[:, None], at * (TILES / np.array([w, h])), 0).astype(np.int64).clip(0, TILES - 1)
    starts, members = _by_tile(corners, K, new_from_world, (h, w))
    blocked = np.zeros(len(points), bool)
    tile_of = tile[inside, 1] * TILES + tile[inside, 0]
    blocked[inside] = _caster()(points[inside], tile_of, starts, members, eye, corners, CLEARANCE)
    return (inside & ~blocked).reshape(shape)


def _by_tile(corners: np.ndarray, K: np.ndarray, new_from_world: np.ndarray, size_hw: tuple[int, int]):
    """Triangles that can cross the rays of each tile of the new picture: tile -> members[starts[tile]:starts[tile + 1]].

    Every ray ends in the new camera, so a triangle matters only where its projection's bounding box lies; one that reaches
    behind the camera matters everywhere.
    """
    h, w = size_hw
    new = corners @ new_from_world[:3, :3].T + new_from_world[:3, 3]
    px = project(new, K) * (TILES / np.array([w, h]))
    low, high = np.floor(px.min(1) - 1e-6), np.floor(px.max(1) + 1e-6)
    anywhere = np.asarray((new[..., 2] <= 1e-3).any(1))
    low, high = np.where(anywhere[:, None], 0, low), np.where(anywhere[:, None], TILES - 1, high)
    low, high = np.clip(low, 0, TILES).astype(np.int64), np.clip(high, -1, TILES - 1).astype(np.int64)
    tiles = [
        np.flatnonzero((low[:, 0] <= x) & (x <= high[:, 0]) & (low[:, 1] <= y) & (y <= high[:, 1]))
        for y in range(TILES)
        for x in range(TILES)
    ]
    return np.cumsum([0] + [len(t) for t in tiles]), np.concatenate(tiles)


@cache
def _caster():
    import numba

    @numba.njit(parallel=False, fastmath=False)
    def cast(points, tile_of, starts, members, eye, corners, clearance):
        """Moeller and Trumbore's test of every segment from a point to the eye against every triangle."""
        blocked = np.zeros(len(points), np.bool_)
        for i in range(len(points)):
            ox, oy, oz = points[i, 0], points[i, 1], points[i, 2]
            dx, dy, dz = eye[0] - ox, eye[1] - oy, eye[2] - oz
            for m in range(starts[tile_of[i]], starts[tile_of[i] + 1]):
                f = members[m]
                ax, ay, az = corners[f, 0, 0], corners[f, 0, 1], corners[f, 0, 2]
                ux, uy, uz = corners[f, 1, 0] - ax, corners[f, 1, 1] - ay, corners[f, 1, 2] - az
                vx, vy, vz = corners[f, 2, 0] - ax, corners[f, 2, 1] - ay, corners[f, 2, 2] - az
                px, py, pz = dy * vz - dz * vy, dz * vx - dx * vz, dx * vy - dy * vx
                det = ux * px + uy * py + uz * pz
                if abs(det) < 1e-14:
                    continue
                sx, sy, sz = ox - ax, oy - ay, oz - az
                u = (sx * px + sy * py + sz * pz) / det
                if u < 0 or u > 1:
                    continue
                qx, qy, qz = sy * uz - sz * uy, sz * ux - sx * uz, sx * uy - sy * ux
                v = (dx * qx + dy * qy + dz * qz) / det
                if v < 0 or u + v > 1:
                    continue
                t = (vx * qx + vy * qy + vz * qz) / det
                if clearance < t < 1:
                    blocked[i] = True
                    break
        return blocked

    return cast


def overlap_without_slivers(hidden: np.ndarray, truth: np.ndarray, width: int = 2) -> float:
    """Intersection over union of two hidden regions [H, W]; structures and differences thinner than `width` px are ignored."""
    import cv2

    def thick(region: np.ndarray) -> np.ndarray:
        return cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_OPEN, np.ones((width, width), np.uint8)) > 0

    a, b = thick(hidden), thick(truth)
    both = a & b
    union = both | thick(a ^ b)
    return float(both.sum() / max(union.sum(), 1))
