"""Lay one depth map over another: point-to-plane alignment with projective association (Chen & Medioni 1991; Newcombe 2011).

Where a sensor's colour and depth are not registered to each other, tracked colour points give biased cameras; the depth
maps themselves do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from ex4d.geometry.frames import transform_points
from ex4d.geometry.pinhole import project, px_centers, unproject
from ex4d.geometry.rotations import so3_exp

#: Longer side of the grid of points that are compared.
GRID_SIDE = 160

#: Distances, relative to depth, at which two surfaces stop being the same one: wide in the first rounds, tight in the last.
GATES = (0.08, 0.05, 0.03, 0.03, 0.02, 0.02, 0.02, 0.02)

#: Share of the points that must find a partner for the result to be used.
LEAST_OVERLAP = 0.25


@dataclass(frozen=True)
class Surface:
    """A depth map as points and normals on a coarse grid, in its own camera's frame."""

    points: Float64[np.ndarray, "h w 3"]
    normals: Float64[np.ndarray, "h w 3"]
    valid: np.ndarray
    K: Float64[np.ndarray, "3 3"]

    @classmethod
    def of(cls, depth: Float32[np.ndarray, "height width"], K: Float32[np.ndarray, "3 3"]) -> Surface:
        """Sampled, not averaged, so that no point floats between two surfaces; points beside edges are not valid."""
        step = max(1, max(depth.shape) // GRID_SIDE)
        centers = px_centers(depth.shape)[step // 2 :: step, step // 2 :: step]
        smooth = cv2.medianBlur(depth.astype(np.float32), 5)
        points = unproject(centers, smooth[step // 2 :: step, step // 2 :: step].astype(np.float64), K)
        normals = np.zeros_like(points)
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        inner = np.cross(down, across)
        length = np.linalg.norm(inner, axis=-1, keepdims=True)
        normals[1:-1, 1:-1] = inner / np.maximum(length, 1e-12)
        z = points[..., 2]
        valid = np.zeros(z.shape, bool)
        around = [z[1:-1, 2:], z[1:-1, :-2], z[2:, 1:-1], z[:-2, 1:-1]]
        valid[1:-1, 1:-1] = np.max([np.abs(other / z[1:-1, 1:-1] - 1) for other in around], axis=0) < 0.05
        scaled = K.astype(np.float64).copy()
        scaled[:2] /= step
        scaled[:2, 2] += 0.5 - (step // 2 + 0.5) / step  # the grid's own pixel centres lie at +0.5 again
        return cls(points, normals, valid, scaled)


def align_surfaces(
    moving: Surface, fixed: Surface, fixed_from_moving: Float64[np.ndarray, "4 4"]
) -> tuple[Float64[np.ndarray, "4 4"], float, float]:
    """Refine a relative pose; returns (fixed_from_moving, overlap, median relative distance); overlap 0 when it failed.

    Points whose distance exceeds the gate (movers, uncovered background) take no part; directions that the shapes leave
    open (a wall slides along itself) stay at the guess, because small eigenvalues are damped.
    """
    pose = fixed_from_moving.copy()
    source = moving.points[moving.valid]
    h, w = fixed.valid.shape
    overlap, distance = 0.0, float("nan")
    for gate in GATES:
        p = transform_points(pose, source)
        px = project(p, fixed.K)
        with np.errstate(invalid="ignore"):
            inside = (p[:, 2] > 0) & (px >= 0).all(axis=1) & (px[:, 0] < w) & (px[:, 1] < h)
        x, y = px[inside].astype(int).T
        p, q, n = p[inside], fixed.points[y, x], fixed.normals[y, x]
        residual = ((q - p) * n).sum(axis=1)
        near = (
            fixed.valid[y, x] & (np.abs(q[:, 2] - p[:, 2]) < 2 * gate * q[:, 2]) & (np.abs(residual) < gate * q[:, 2])
        )
        overlap = float(near.sum() / max(len(source), 1))
        if overlap < LEAST_OVERLAP or near.sum() < 100:
            return fixed_from_moving, 0.0, float("nan")
        p, n, z, residual = p[near], n[near], q[near, 2], residual[near]
        weight = (1 - (residual / (gate * z)) ** 2) ** 2 / z**2
        J = np.concatenate([np.cross(p, n), n], axis=1)
        H, g = (J * weight[:, None]).T @ J, (J * weight[:, None]).T @ residual
        values, vectors = np.linalg.eigh(H)
        step = vectors @ ((vectors.T @ g) / (values + 1e-3 * values[-1] * (values < 1e-4 * values[-1])))
        motion = np.eye(4)
        motion[:3, :3], motion[:3, 3] = so3_exp(step[:3]), step[3:]
        pose = motion @ pose
        distance = float(np.median(np.abs(residual) / z))
    return pose, overlap, distance
