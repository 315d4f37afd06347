"""The pinhole camera: intrinsics in pixels, pixel centres at +0.5, depth along z."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float


def focal_px(size_px: float, fov_rad: float) -> float:
    """Focal length of a pinhole camera whose field of view spans `size_px` pixels."""
    return 0.5 * size_px / math.tan(0.5 * fov_rad)


def fov_rad(size_px: float, focal: float) -> float:
    """Field of view that spans `size_px` pixels at a focal length in pixels."""
    return 2 * math.atan2(size_px, 2 * focal)


def intrinsics(size_hw: tuple[int, int], focal: float) -> Float[np.ndarray, "3 3"]:
    """K with square pixels and the principal point in the middle of the picture, float32."""
    h, w = size_hw
    return np.array([[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1]], np.float32)


def resize_intrinsics(
    K: Float[np.ndarray, "*batch 3 3"], from_hw: tuple[int, int], to_hw: tuple[int, int]
) -> Float[np.ndarray, "*batch 3 3"]:
    """K of the same camera after the picture was resized: with corners at (0, 0) this is a plain scaling of the rows."""
    scale = np.array([to_hw[1] / from_hw[1], to_hw[0] / from_hw[0], 1.0])
    return (K * scale[:, None]).astype(K.dtype)


def px_centers(size_hw: tuple[int, int]) -> Float[np.ndarray, "height width 2"]:
    """(x, y) of every pixel centre, float64: the only home of the +0.5."""
    h, w = size_hw
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    return np.stack([x, y], axis=-1)


def unproject(
    px: Float[np.ndarray, "*batch 2"], depth: Float[np.ndarray, "*batch"], K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "*batch 3"]:
    """Camera-frame points of pixels at a depth along z; handles skew."""
    rays = np.concatenate([px, np.ones_like(px[..., :1])], axis=-1) @ np.linalg.inv(K.astype(np.float64)).T
    return rays * depth[..., None]


def project(points: Float[np.ndarray, "*batch 3"], K: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "*batch 2"]:
    """Pixels of camera-frame points; points at or behind the camera give infinities or mirrored pixels: test z first."""
    homogeneous = points @ K.astype(np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return homogeneous[..., :2] / homogeneous[..., 2:]
