"""What depth files must hold: kinds, intrinsics and poses of the right shape."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.errors import InputError
from ex4d.types import KINDS

#: A 16-bit PNG counts millimetres unless its folder's depth.json says otherwise (Kinect, RealSense, ScanNet, 7-Scenes).
PNG_SCALE = 0.001


#: 16-bit values that sensors write where they saw nothing; they become NaN.
PNG_INVALID = (0, 65535)


def checked_kind(kind: str | None, path: Path) -> str | None:
    """The kind itself, or InputError for a word that is none."""
    if kind is not None and kind not in KINDS:
        raise InputError(f"unit {kind!r} in {path}", "one of " + ", ".join(KINDS))
    return kind


def checked_K(K: np.ndarray | None, num_frames: int, path: Path) -> np.ndarray | None:
    """float32 K of one of the shapes [3, 3] and [num_frames, 3, 3]."""
    if K is None:
        return None
    if K.shape not in ((3, 3), (num_frames, 3, 3)) or not np.isfinite(K).all():
        raise InputError(f"K of shape {K.shape} in {path}", f"finite [3, 3] or [{num_frames}, 3, 3]")
    return K.astype(np.float32)


def checked_poses(poses: np.ndarray, num_frames: int, path: Path) -> np.ndarray:
    """float64 poses [num_frames, 4, 4]."""
    if poses.shape != (num_frames, 4, 4):
        raise InputError(f"cam_from_world of shape {poses.shape} in {path}", f"[{num_frames}, 4, 4]")
    return poses.astype(np.float64)


def fraction(fps: object) -> Fraction:
    """A frame rate written as "30000/1001" or as a decimal number, as the fraction it stands for."""
    return Fraction(str(fps)).limit_denominator(100_000)
