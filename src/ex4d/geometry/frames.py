"""Axis conventions and rigid motions. One convention inside (OpenCV), conversions only here."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

#: OpenCV camera axes (x right, y down, z forward) to OpenGL's (x right, y up, z backward); its own inverse.
GL_FROM_CV = np.diag([1.0, -1.0, -1.0, 1.0])


def invert_rigid(b_from_a: Float[np.ndarray, "*batch 4 4"]) -> Float[np.ndarray, "*batch 4 4"]:
    """a_from_b, exact for rotations: the transpose, never a numerical inverse."""
    R = np.swapaxes(b_from_a[..., :3, :3], -1, -2)
    a_from_b = np.zeros_like(b_from_a)
    a_from_b[..., :3, :3] = R
    a_from_b[..., :3, 3:] = -R @ b_from_a[..., :3, 3:]
    a_from_b[..., 3, 3] = 1
    return a_from_b


def rigid(R: Float[np.ndarray, "*batch 3 3"], t: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 4 4"]:
    """The 4x4 matrix of a rotation and a translation, float64."""
    batch = np.broadcast_shapes(R.shape[:-2], t.shape[:-1])
    out = np.zeros((*batch, 4, 4))
    out[..., :3, :3] = R
    out[..., :3, 3] = t
    out[..., 3, 3] = 1
    return out


def look_at(
    eye: Float[np.ndarray, "*batch 3"],
    target: Float[np.ndarray, "*batch 3"],
    down: tuple[float, float, float] = (0.0, 1.0, 0.0),
) -> Float[np.ndarray, "*batch 4 4"]:
    """cam_from_world (OpenCV) of a camera at `eye` that looks at `target`, upright against the world's `down` axis.

    Straight up or down, where upright is undefined, the camera's x axis stays on the world's.
    """
    eye, target = np.asarray(eye, np.float64), np.asarray(target, np.float64)
    forward = target - eye
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(np.broadcast_to(np.asarray(down, np.float64), forward.shape), forward)
    norm = np.linalg.norm(right, axis=-1, keepdims=True)
    right = np.where(norm > 1e-9, right / np.maximum(norm, 1e-9), np.array([1.0, 0.0, 0.0]))
    R = np.stack([right, np.cross(forward, right), forward], axis=-2)
    return rigid(R, -(R @ eye[..., None])[..., 0])


def eye_in_world(cam_from_world: Float[np.ndarray, "*batch 4 4"]) -> Float[np.ndarray, "*batch 3"]:
    """Camera centres."""
    return invert_rigid(cam_from_world)[..., :3, 3]


def rotation_angle_rad(R: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch"]:
    """Angle of a rotation in radians, accurate near 0 and pi (atan2 of the axis length and the trace)."""
    axis = np.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], axis=-1)
    trace = np.trace(R, axis1=-2, axis2=-1)
    return np.arctan2(np.linalg.norm(axis, axis=-1), trace - 1)


def transform_points(
    b_from_a: Float[np.ndarray, "*batch 4 4"], points: Float[np.ndarray, "*batch n 3"]
) -> Float[np.ndarray, "*batch n 3"]:
    """Points of frame a, expressed in frame b."""
    return points @ np.swapaxes(b_from_a[..., :3, :3], -1, -2) + b_from_a[..., None, :3, 3]
