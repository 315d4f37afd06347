"""Meshes with texture coordinates in metres: (vertices float64 [V, 3], faces int32 [F, 3], uv float64 [V, 2])."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Mesh(NamedTuple):
    """vertices [V, 3] or [T, V, 3], faces [F, 3], uv [V, 2] in metres along the surface."""

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray


def joined(meshes: list[Mesh]) -> Mesh:
    """One mesh of several that are all still or all of as many frames."""
    counts = np.cumsum([0] + [m.vertices.shape[-2] for m in meshes[:-1]])
    faces = np.concatenate([m.faces + n for m, n in zip(meshes, counts, strict=True)])
    return Mesh(np.concatenate([m.vertices for m in meshes], axis=-2), faces, np.concatenate([m.uv for m in meshes]))


def moved(mesh: Mesh, R: np.ndarray, t: np.ndarray) -> Mesh:
    """Turned by R [3, 3] or [T, 3, 3], then moved by t [3] or [T, 3]; broadcasts over frames."""
    v = mesh.vertices @ np.swapaxes(np.asarray(R, float), -1, -2) + np.asarray(t, float)[..., None, :]
    return mesh._replace(vertices=v)


def turn(axis: int, angle: np.ndarray | float) -> np.ndarray:
    """Right-handed rotation [..., 3, 3] about a coordinate axis, radians."""
    a = np.asarray(angle, float)
    c, s, (i, j) = np.cos(a), np.sin(a), ((1, 2), (2, 0), (0, 1))[axis]
    R = np.broadcast_to(np.eye(3), (*a.shape, 3, 3)).copy()
    R[..., i, i], R[..., i, j], R[..., j, i], R[..., j, j] = c, -s, s, c
    return R


def grid_faces(rows: int, cols: int) -> np.ndarray:
    """Two triangles for every cell of a rows x cols vertex grid."""
    i = (np.arange(rows - 1)[:, None] * cols + np.arange(cols - 1)).reshape(-1)
    return np.concatenate([np.stack([i + cols, i, i + 1], 1), np.stack([i + cols, i + 1, i + cols + 1], 1)]).astype(
        np.int32
    )


def box(half: np.ndarray) -> Mesh:
    """An axis-aligned box about the origin, by half sizes [3]."""
    v, uv, faces = [], [], []
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        for side in (-1.0, 1.0):
            p = np.zeros((4, 3))
            p[:, axis], p[:, a], p[:, b] = side, [-1, 1, -1, 1], [-1, -1, 1, 1]
            p *= half
            faces.append(np.array([[2, 0, 1], [2, 1, 3]]) + 4 * len(faces))
            v.append(p)
            uv.append(p[:, {0: (2, 1), 1: (0, 2), 2: (0, 1)}[axis]])
    return Mesh(np.concatenate(v), np.concatenate(faces).astype(np.int32), np.concatenate(uv))


def lathe(radius: np.ndarray, y: np.ndarray, segments: int = 16) -> Mesh:
    """A surface of revolution about the y axis through (radius [n], y [n])."""
    radius, y = np.asarray(radius, float), np.asarray(y, float)
    a = np.linspace(0, 2 * np.pi, segments + 1)
    v = np.stack(
        [radius[:, None] * np.cos(a), np.broadcast_to(y[:, None], (len(y), len(a))), radius[:, None] * np.sin(a)], -1
    )
    along = np.concatenate([[0], np.cumsum(np.hypot(np.diff(radius), np.diff(y)))])
    uv = np.stack(np.broadcast_arrays(a * max(radius.max(), 1e-3), along[:, None]), -1)
    return Mesh(v.reshape(-1, 3), grid_faces(len(y), segments + 1), uv.reshape(-1, 2))


def ball(radii: np.ndarray, rings: int = 10, bulge: float = 2.0) -> Mesh:
    """A superellipsoid about the origin; bulge 2 is an ellipsoid, more comes close to a box, less to a diamond."""
    a = np.linspace(0, np.pi, rings + 1)
    unit = lathe(np.sin(a), -np.cos(a), 2 * rings)
    v = unit.vertices
    if bulge != 2.0:
        v = v / np.maximum((np.abs(v) ** bulge).sum(-1, keepdims=True) ** (1 / bulge), 1e-9)
    return Mesh(v * radii, unit.faces, unit.uv * float(np.mean(radii)))


def cylinder(radius: float, height: float, top: float | None = None, segments: int = 16) -> Mesh:
    """A closed frustum about the y axis from y = 0 (below) to y = -height; `top` is the upper radius."""
    t = radius if top is None else top
    return lathe(np.array([0, radius, radius, t, t, 0.0]), np.array([0, 0, 0, -height, -height, -height]), segments)


def tube(path: np.ndarray, radius: np.ndarray, segments: int = 8, flat: float = 1.0) -> Mesh:
    """A tube with closed ends along path [n, 3] or [T, n, 3], radius [n]; `flat` squeezes it along its second axis.

    The frame across the path leans on one fixed direction, so that it does not twist from frame to frame.
    """
    path, radius = np.asarray(path, float), np.asarray(radius, float)
    still = path.ndim == 2
    p = path[None] if still else path
    ahead = np.gradient(p, axis=1)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-9)
    whole = p[0, -1] - p[0, 0]
    guide = np.eye(3)[int(np.argmin(np.abs(whole)))]
    x = np.cross(guide, ahead)
    x /= np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
    y = np.cross(ahead, x)
    # round caps: two rings at each end
    first, last = p[:, :1] - ahead[:, :1] * radius[0] * 0.7, p[:, -1:] + ahead[:, -1:] * radius[-1] * 0.7
    p = np.concatenate([first, first, p, last, last], 1)
    x = np.concatenate([x[:, :1], x[:, :1], x, x[:, -1:], x[:, -1:]], 1)
    y = np.concatenate([y[:, :1], y[:, :1], y, y[:, -1:], y[:, -1:]], 1)
    r = np.concatenate([[0, 0.6 * radius[0]], radius, [0.6 * radius[-1], 0]])
    a = np.linspace(0, 2 * np.pi, segments + 1)
    ring = x[..., None, :] * np.cos(a)[:, None] + flat * y[..., None, :] * np.sin(a)[:, None]
    v = p[..., None, :] + r[:, None, None] * ring
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(p[0], axis=0), axis=-1))])
    uv = np.stack(np.broadcast_arrays(a * max(float(radius.mean()), 1e-3), along[:, None]), -1).reshape(-1, 2)
    v = v.reshape(len(v), -1, 3)
    return Mesh(v[0] if still else v, grid_faces(p.shape[1], segments + 1), uv)


def sheet(width: float, height: float, cols: int = 2, rows: int = 2) -> Mesh:
    """An upright sheet in the xy plane with its lower edge on y = 0."""
    x, y = np.meshgrid(np.linspace(-width / 2, width / 2, cols), np.linspace(-height, 0, rows))
    v = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    return Mesh(v, grid_faces(rows, cols), v[:, :2].copy())


def ground(half: float, cells: int, height: np.ndarray | None = None) -> Mesh:
    """A square of y = 0 (or y = -height [cells + 1, cells + 1]), finer near the middle."""
    u = np.linspace(-1, 1, cells + 1)
    u = half * np.sign(u) * np.abs(u) ** 2
    x, z = np.meshgrid(u, u)
    y = np.zeros_like(x) if height is None else -height
    v = np.stack([x, y, z], -1).reshape(-1, 3)
    return Mesh(v, grid_faces(cells + 1, cells + 1), v[:, [0, 2]].copy())
