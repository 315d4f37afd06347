"""The subject of a shot: the point that an orbit turns around and that lengths are measured against."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from ex4d.errors import InputError
from ex4d.types import DepthClip, Unit

#: `at=near`: this percentile of the depth map, so that a few flying pixels do not become the subject.
NEAR_PERCENTILE = 2.0

#: `at=XxY`: the median over this many pixels either side.
PIXEL_RADIUS = 4


@dataclass(frozen=True)
class Subject:
    """Where the subject stands and through which camera it is seen.

    Attributes:
        point: In the first source camera (OpenCV axes), scene units; point[2] is its depth.
        K: Intrinsics of the first source frame, pixels of `size_hw`.
        size_hw: (height, width) in pixels.
        unit: "metric" lets lengths be given in metres.
    """

    point: Float64[np.ndarray, " 3"]
    K: Float[np.ndarray, "3 3"]
    size_hw: tuple[int, int]
    unit: Unit = "relative"

    @property
    def distance(self) -> float:
        """Depth of the subject along the optical axis, scene units."""
        return float(self.point[2])


def find_subject(first: DepthClip, at: str = "center") -> Subject:
    """The subject in the first frame.

    Args:
        first: Depth whose frame 0 is looked at.
        at: "center" (on the optical axis at the median depth of the central quarter), "near" (on the optical axis at
            the nearest robust depth), "XxY" (a pixel), "X0xY0-X1xY1" (a box), or a number (on the axis at that depth).
    """
    depth, K = first.depth[0], first.K[0]
    h, w = first.size_hw
    if at in ("center", "centre"):
        on_axis = _robust_depth(depth[h // 4 : max(h - h // 4, h // 4 + 1), w // 4 : max(w - w // 4, w // 4 + 1)], at)
    elif at == "near":
        values = depth[np.isfinite(depth) & (depth > 0)]
        on_axis = float(np.percentile(values, NEAR_PERCENTILE)) if values.size else _robust_depth(values, at)
    elif box := re.fullmatch(r"(\d+)x(\d+)(?:-(\d+)x(\d+))?", at):
        return _subject_in_box(first, *_box_px(box, at, (h, w)), at)
    else:
        on_axis = _number(at)
    return Subject(np.array([0.0, 0.0, on_axis]), K, (h, w), first.unit)


def released_radius(depth: Float32[np.ndarray, "height width"]) -> float:
    """The orbit radius of the EX-4D release: the least depth after the border was set to 100, plus 0.15 (recon.py)."""
    inner = depth[1:-1, 1:-1]
    return min(float(inner.min()) if inner.size else 100.0, 100.0) + 0.15


def _box_px(box: re.Match[str], at: str, size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    x0, y0 = int(box[1]), int(box[2])
    x1, y1 = (int(box[3]), int(box[4])) if box[3] else (x0, y0)
    h, w = size_hw
    if not (0 <= x0 <= x1 < w and 0 <= y0 <= y1 < h):
        raise InputError(f"at={at} in a picture of {w}x{h}", "pixels inside the picture, left-top before right-bottom",
                         f"at={w // 2}x{h // 2}")  # fmt: skip
    return x0, y0, x1, y1


def _subject_in_box(first: DepthClip, x0: int, y0: int, x1: int, y1: int, at: str) -> Subject:
    h, w = first.size_hw
    center_px = np.array([(x0 + x1 + 1) / 2, (y0 + y1 + 1) / 2, 1.0])
    r = PIXEL_RADIUS if (x0, y0) == (x1, y1) else 0
    patch = first.depth[0, max(y0 - r, 0) : min(y1 + 1 + r, h), max(x0 - r, 0) : min(x1 + 1 + r, w)]
    ray = np.linalg.inv(first.K[0].astype(np.float64)) @ center_px
    return Subject(ray * _robust_depth(patch, at), first.K[0], (h, w), first.unit)


def _robust_depth(patch: np.ndarray, at: str) -> float:
    values = patch[np.isfinite(patch) & (patch > 0)]
    if not values.size:
        raise InputError(f"no usable depth at {at!r} in the first frame", "finite depth > 0 there", "at=near, or at=XxY of another pixel")  # fmt: skip
    return float(np.median(values))


def _number(at: str) -> float:
    try:
        value = float(at)
    except ValueError:
        value = 0.0
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"subject at={at}", "center, near, a pixel 320x180, a box 100x50-300x400 or a depth > 0", "at=center")  # fmt: skip
    return value
