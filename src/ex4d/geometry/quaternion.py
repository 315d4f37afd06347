"""Unit quaternions of rotations (Hamilton, w first); files that put w last reorder at their own edge."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64


def quaternion_from_rotation(R: Float64[np.ndarray, "*batch 3 3"]) -> Float64[np.ndarray, "*batch 4"]:
    """(w, x, y, z) with w >= 0, accurate for every angle: the eigenvector form divides by the largest component."""
    m = R
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    squares = np.stack([trace, *(2 * m[..., i, i] - trace for i in range(3))], axis=-1)  # 4 q_i^2 - 1
    largest = np.argmax(squares, axis=-1)
    wx, wy, wz = (m[..., 2, 1] - m[..., 1, 2]), (m[..., 0, 2] - m[..., 2, 0]), (m[..., 1, 0] - m[..., 0, 1])
    xy, xz, yz = (m[..., 0, 1] + m[..., 1, 0]), (m[..., 0, 2] + m[..., 2, 0]), (m[..., 1, 2] + m[..., 2, 1])
    w, x, y, z = (1 + squares[..., i] for i in range(4))
    rows = np.stack(
        [
            np.stack([w, wx, wy, wz], axis=-1),
            np.stack([wx, x, xy, xz], axis=-1),
            np.stack([wy, xy, y, yz], axis=-1),
            np.stack([wz, xz, yz, z], axis=-1),
        ],
        axis=-2,
    )
    q = np.take_along_axis(rows, largest[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)


def rotation_from_quaternion(q: Float64[np.ndarray, "*batch 4"]) -> Float64[np.ndarray, "*batch 3 3"]:
    """Rotation of (w, x, y, z). A quaternion that is far from unit length gives a scaled matrix, which checks then name."""
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    near_unit = np.abs(norm - 1) < 1e-3
    w, x, y, z = np.moveaxis(np.where(near_unit, q / np.where(norm > 0, norm, 1), q), -1, 0)
    return np.stack(
        [
            np.stack([w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)], axis=-1),
            np.stack([2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)], axis=-1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z], axis=-1),
        ],
        axis=-2,
    )
