"""The one exponential and logarithm of rotations and of rigid motions, and what lies between two of either.

A rotation vector is an axis times an angle in radians; a twist is a rotation vector, then a velocity. Rodrigues' formula and
the left Jacobian as in Sola, Deray and Atchuthan, "A micro Lie theory for state estimation in robotics", 2018, equations 134,
145 and 172; the logarithm goes through the quaternion, which has all its digits at half a turn, where the matrix's
antisymmetric part has none.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from ex4d.geometry.frames import invert_rigid, rigid
from ex4d.geometry.quaternion import quaternion_from_rotation

#: Below this angle in radians sin(a) / a is 1 to double precision.
_SMALL = 1e-7


def _hat(v: Float64[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3 3"]:
    x, y, z = np.moveaxis(v, -1, 0)
    o = np.zeros_like(x)
    return np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], -2)


def so3_exp(w: Float64[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3 3"]:
    """Rotation by |w| radians about w (Rodrigues)."""
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    W = _hat(w)
    small = angle < _SMALL
    safe = np.where(small, 1.0, angle)
    a = np.where(small, 1.0, np.sin(safe) / safe)
    b = np.where(small, 0.5, (1 - np.cos(safe)) / safe**2)
    return np.eye(3) + a * W + b * (W @ W)


def so3_log(R: Float64[np.ndarray, "*batch 3 3"]) -> Float64[np.ndarray, "*batch 3"]:
    """The shortest rotation vector in radians, exact for small turns too; of a half turn's two, one of them."""
    q = quaternion_from_rotation(R)
    v, w = q[..., 1:], q[..., :1]
    length = np.linalg.norm(v, axis=-1, keepdims=True)
    small = length < _SMALL
    return v * np.where(small, 2.0, 2 * np.arctan2(length, w) / np.where(small, 1.0, length))


def _left_jacobian(w: Float64[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3 3"]:
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    W = _hat(w)
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    b = np.where(small, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    c = np.where(small, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    return np.eye(3) + b * W + c * (W @ W)


def se3_exp(twist: Float64[np.ndarray, "*batch 6"]) -> Float64[np.ndarray, "*batch 4 4"]:
    """The rigid motion of a twist (rotation vector, then velocity)."""
    w, v = twist[..., :3], twist[..., 3:]
    return rigid(so3_exp(w), (_left_jacobian(w) @ v[..., None])[..., 0])


def se3_log(T: Float64[np.ndarray, "*batch 4 4"]) -> Float64[np.ndarray, "*batch 6"]:
    """The twist of a rigid motion: the inverse of `se3_exp` for turns up to half a turn."""
    w = so3_log(T[..., :3, :3])
    v = np.linalg.solve(_left_jacobian(w), T[..., :3, 3:])[..., 0]
    return np.concatenate([w, v], axis=-1)


def slerp(
    start: Float64[np.ndarray, "*batch 3 3"],
    stop: Float64[np.ndarray, "*batch 3 3"],
    share: Float64[np.ndarray, "*batch"],
) -> Float64[np.ndarray, "*batch 3 3"]:
    """Rotation at a share of the shortest way."""
    return start @ so3_exp(so3_log(np.swapaxes(start, -1, -2) @ stop) * share[..., None])


def screw(
    start: Float64[np.ndarray, "*batch 4 4"],
    stop: Float64[np.ndarray, "*batch 4 4"],
    share: Float64[np.ndarray, "*batch"],
) -> Float64[np.ndarray, "*batch 4 4"]:
    """Pose at a share of the screw motion from one pose to another (world from camera)."""
    return start @ se3_exp(se3_log(invert_rigid(start) @ stop) * share[..., None])
