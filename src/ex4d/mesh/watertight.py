"""The Depth Watertight Mesh of one frame."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from ex4d.errors import InputError
from ex4d.mesh.rule import (
    DepthRange,
    MeshRule,
    cap_faces,
    grid_depth,
    grid_faces,
    grid_points,
    hidden_faces,
    lift,
    ring_faces,
    splat_half_px,
    unseen_pixels,
)
from ex4d.types import WatertightMesh


def build_mesh(
    depth: Float32[np.ndarray, "h w"],
    color: UInt8[np.ndarray, "h w 3"],
    K: Float32[np.ndarray, "3 3"],
    rule: MeshRule,
    clip: DepthRange,
) -> WatertightMesh:
    """The watertight mesh of one depth map, in the frame of its camera (OpenCV axes, scene units).

    Args:
        depth: Along z, finite and > 0.
        color: RGB of the same pixels.
        K: Intrinsics in pixels of this size.
        rule: `MeshRule()`, or `MeshRule.reference()` for the released behaviour.
        clip: Depth range of the whole clip, which the ring is scaled with.

    Returns:
        Faces in this order: the grid's (`geometry.mesh_rule.grid_faces`), the two caps, then two for every pixel that no
        other visible face shows.

    Raises:
        InputError: Depth that is not finite and positive, or of another size than the colour.
    """
    check_depth(depth, color.shape[:2])
    return _reference_mesh(depth, color, K, rule, clip) if not rule.ring else _ring_mesh(depth, color, K, rule, clip)


def check_depth(depth: np.ndarray, size_hw: tuple[int, ...]) -> None:
    """Raise InputError unless depth is positive, finite and of this size."""
    if depth.shape != tuple(size_hw):
        raise InputError(
            f"depth {depth.shape[1]}x{depth.shape[0]} for a picture of {size_hw[1]}x{size_hw[0]}",
            "one size",
            "resize the depth",
        )
    lowest, highest = float(depth.min()), float(depth.max())
    if not (lowest > 0 and np.isfinite(highest)):
        raise InputError(f"depth with values from {lowest:g} to {highest:g}", "finite depth > 0", "mend the depth file")


def _ring_mesh(depth, color, K, rule: MeshRule, clip: DepthRange) -> WatertightMesh:
    grid = grid_depth(depth, rule, clip)
    h, w = grid.shape
    points = grid_points(grid, K, rule)
    faces = grid_faces(h, w)
    visible = ~(hidden_faces(points.reshape(-1, 3)[faces], K, rule) | ring_faces(h, w))
    rgba = np.zeros((h, w, 4), np.float32)
    rgba[..., 3] = 255
    rgba[1:-1, 1:-1, :3] = color

    rows, cols = np.nonzero(unseen_pixels(visible, h, w)[1:-1, 1:-1])
    splats = _splat_points(grid[1:-1, 1:-1], rows, cols, K, rule)
    caps = points[[0, 0, -1, -1], [0, -1, 0, -1]]
    base = h * w + len(caps)
    mesh = WatertightMesh(
        vertices=np.concatenate([points.reshape(-1, 3), caps, splats.reshape(-1, 3)]),
        faces=np.concatenate([faces, cap_faces(h * w, h * w + 1, h * w + 2, h * w + 3), _splat_faces(base, len(rows))]),
        color=np.concatenate(
            [
                rgba.reshape(-1, 4),
                np.tile(np.array([0, 0, 0, 255], np.float32), (4, 1)),
                np.repeat(rgba[1:-1, 1:-1][rows, cols], 4, axis=0),
            ]
        ),
        visible=np.concatenate([visible, [False, False], np.ones(2 * len(rows), bool)]),
    )
    return mesh if rule.keep_hidden else _without_hidden(mesh)


def _splat_points(
    depth: Float32[np.ndarray, "h w"], rows: np.ndarray, cols: np.ndarray, K: np.ndarray, rule: MeshRule
) -> Float32[np.ndarray, "n 4 3"]:
    """Corners A, B, C, D (as in `grid_faces`) of the frontal squares of unseen pixels."""
    half = splat_half_px(depth, rows, cols)[:, None]
    x = cols[:, None] + rule.pixel_offset + half * np.array([-1, -1, 1, 1])
    y = rows[:, None] + rule.pixel_offset + half * np.array([-1, 1, -1, 1])
    return lift(x, y, depth[rows, cols][:, None], K)


def _splat_faces(base: int, count: int) -> Int32[np.ndarray, "F 3"]:
    first = base + 4 * np.arange(count, dtype=np.int32)[:, None, None]
    return (first + np.array([[1, 0, 2], [1, 2, 3]], np.int32)).reshape(-1, 3)


def _reference_mesh(depth, color, K, rule: MeshRule, clip: DepthRange) -> WatertightMesh:
    grid = grid_depth(depth, rule, clip)
    h, w = grid.shape
    points = grid_points(grid, K, rule).reshape(-1, 3)
    faces = np.concatenate([grid_faces(h, w), cap_faces(0, w - 1, (h - 1) * w, h * w - 1)])
    hidden = hidden_faces(points[faces], K, rule)
    rgba = np.full((h * w, 4), 255, np.float32)
    rgba[:, :3] = color.reshape(-1, 3)
    mesh = WatertightMesh(points, faces, rgba, ~hidden)
    if not rule.keep_hidden:
        return _without_hidden(mesh)
    if rule.per_vertex:
        rgba[faces[hidden].reshape(-1)] = 0
    return mesh


def _without_hidden(mesh: WatertightMesh) -> WatertightMesh:
    return WatertightMesh(mesh.vertices, mesh.faces[mesh.visible], mesh.color, mesh.visible[mesh.visible])
