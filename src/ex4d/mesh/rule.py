"""The rules of the Depth Watertight Mesh, stated once: where vertices stand, which faces the source camera saw.

`mesh` builds the mesh from these rules and `render`'s fused path draws the same mesh without building it. The default
repairs the faults of the EX-4D release; `MeshRule.reference()` keeps them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from ex4d.errors import InputError

#: Angle and focal length of the EX-4D release (recon.py). Together they reject a relative depth jump of 4.58 % a pixel.
REFERENCE_ANGLE_DEG = 2.5
REFERENCE_FOCAL_PX = 500.0

#: The relative depth jump of one pixel that the angle rule stands for.
DEPTH_JUMP = 0.0458

#: At very wide angles the linear law angle * f = constant would reject walls seen head-on (45 degrees): it stops here.
MAX_ANGLE_DEG = 25.0

#: Depths are clamped to this span, scene units: twice the near plane, and far from float32's overflow.
MIN_DEPTH, MAX_DEPTH = 2e-3, 1e8

#: The default ring stands at the clip's far depth times this: the release's 100 over the 90 that still meets a curtain.
RING_FACTOR = 10 / 9

#: Half side, in source pixels, of the frontal square that shows a pixel all of whose faces are hidden: a whole pixel when a
#: neighbour has its depth (a wire), next to nothing when none has (noise, a flying pixel between two surfaces).
SPLAT_HALF_PX, SPECK_HALF_PX = 0.5, 0.125


@dataclass(frozen=True)
class DepthRange:
    """Nearest and farthest depth of a whole clip, scene units."""

    near: float
    far: float

    def __post_init__(self) -> None:
        if not (0 < self.near <= self.far < math.inf):
            raise InputError(
                f"depth range {self.near:g}..{self.far:g}", "0 < near <= far, finite", "check the depth file"
            )

    @classmethod
    def of(cls, depth: Float32[np.ndarray, "*shape"]) -> DepthRange:
        """The range of an array of depths."""
        return cls(float(depth.min()), float(depth.max()))

    def union(self, other: DepthRange) -> DepthRange:
        """The range of both."""
        return DepthRange(min(self.near, other.near), max(self.far, other.far))


@dataclass(frozen=True)
class MeshRule:
    """How a depth map becomes a watertight mesh and a render becomes colour and mask.

    Attributes:
        pixel_offset: Where in its pixel a vertex stands: 0.5 is the centre; the release used the corner, 0.
        ring: True adds a ring of vertices outside the picture; False pushes the outermost pixels back instead.
        border_depth: Depth of the ring or border, scene units; None: `RING_FACTOR` times the clip's far depth.
        angle_deg: Faces whose smallest angle is below are hidden; None: 2.5 degrees * 500 px / f.
        filter: "angle", or "boundary": hidden when depth extent / larger lateral extent exceeds `boundary_ratio`.
        boundary_ratio: See `filter`.
        per_vertex: Occlusion as RGBA 0 of all three vertices (the release) instead of a flag per face.
        keep_hidden: False drops hidden faces and leaves holes (the release's `--use_dwmesh 0`).
        alpha_threshold: Seen where alpha, 0..255, exceeds this (per vertex only).
        far_plane: Nothing is seen beyond, scene units.
        keep_first: The first frame is the input itself, whatever its pose.
    """

    pixel_offset: float = 0.5
    ring: bool = True
    border_depth: float | None = None
    angle_deg: float | None = None
    filter: Literal["angle", "boundary"] = "angle"
    boundary_ratio: float = 2.0
    per_vertex: bool = False
    keep_hidden: bool = True
    alpha_threshold: float = 125.0
    far_plane: float = math.inf
    keep_first: bool = False

    @classmethod
    def reference(
        cls, *, filter: Literal["angle", "boundary"] = "angle", keep_hidden: bool = True, keep_first: bool = True
    ) -> MeshRule:
        """The EX-4D release, faults included (recon.py at b456a41)."""
        return cls(
            pixel_offset=0.0,
            ring=False,
            border_depth=100.0,
            angle_deg=REFERENCE_ANGLE_DEG,
            filter=filter,
            per_vertex=True,
            keep_hidden=keep_hidden,
            far_plane=1e3,
            keep_first=keep_first,
        )

    def min_angle_deg(self, K: Float32[np.ndarray, "3 3"]) -> float:
        """The angle below which a face is hidden, for a camera with these intrinsics."""
        if self.angle_deg is not None:
            return self.angle_deg
        focal_px = math.sqrt(float(K[0, 0]) * float(K[1, 1]))
        return min(REFERENCE_ANGLE_DEG * REFERENCE_FOCAL_PX / focal_px, MAX_ANGLE_DEG)

    def ring_depth(self, clip: DepthRange) -> float:
        """Depth of the ring and the caps, scene units, float32."""
        depth = RING_FACTOR * self.far_depth(clip) if self.border_depth is None else self.border_depth
        return float(np.float32(depth))

    def far_depth(self, clip: DepthRange) -> float:
        """Depth that the default clamps to, so that the whole picture lies inside the ring."""
        return float(np.float32(min(max(clip.far, MIN_DEPTH), MAX_DEPTH)))


def grid_depth(depth: Float32[np.ndarray, "h w"], rule: MeshRule, clip: DepthRange) -> Float32[np.ndarray, "gh gw"]:
    """Depth of every grid vertex: with a ring around the picture, or with the release's border written over it."""
    border = rule.ring_depth(clip)
    if rule.ring:
        return np.pad(np.clip(depth, MIN_DEPTH, rule.far_depth(clip)), 1, constant_values=border)
    grid = depth.copy()
    grid[[0, -1], :] = border
    grid[:, [0, -1]] = border
    return grid


def grid_points(
    depth: Float32[np.ndarray, "gh gw"], K: Float32[np.ndarray, "3 3"], rule: MeshRule
) -> Float32[np.ndarray, "gh gw 3"]:
    """Grid vertices in the source camera; `depth` comes from `grid_depth`."""
    first = rule.pixel_offset - rule.ring
    return lift(first + np.arange(depth.shape[1])[None, :], first + np.arange(depth.shape[0])[:, None], depth, K)


def lift(x: np.ndarray, y: np.ndarray, depth: np.ndarray, K: Float32[np.ndarray, "3 3"]) -> Float32[np.ndarray, "*s 3"]:
    """Points at pixels (x, y) and a depth, computed in float64 and rounded once to float32."""
    inverse = np.linalg.inv(K.astype(np.float64))
    x, y, z = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64), depth.astype(np.float64))
    points = np.empty((*z.shape, 3), np.float32)
    points[..., 0] = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) * z
    points[..., 1] = (inverse[1, 1] * y + inverse[1, 2]) * z
    points[..., 2] = z
    return points


def grid_faces(height: int, width: int) -> Int32[np.ndarray, "F 3"]:
    """Faces of a grid of vertices: first every upper-left triangle (B, A, C), row by row, then every (B, C, D), where
    A = (i, j), B = (i + 1, j), C = (i, j + 1), D = (i + 1, j + 1)."""
    ids = np.arange(height * width, dtype=np.int32).reshape(height, width)
    A, B, C, D = (x.reshape(-1) for x in (ids[:-1, :-1], ids[1:, :-1], ids[:-1, 1:], ids[1:, 1:]))
    return np.concatenate([np.stack([B, A, C], -1), np.stack([B, C, D], -1)])


def cap_faces(top_left: int, top_right: int, bottom_left: int, bottom_right: int) -> Int32[np.ndarray, "2 3"]:
    """The two triangles that close the mesh behind, from the ids of its corner vertices."""
    return np.array([[top_right, top_left, bottom_right], [bottom_right, top_left, bottom_left]], np.int32)


def min_angles_deg(corners: Float32[np.ndarray, "F 3 3"]) -> Float64[np.ndarray, " F"]:
    """The smallest interior angle of every triangle, degrees."""
    points = corners.astype(np.float64)
    edges = np.roll(points, -1, axis=1) - points
    length = np.linalg.norm(edges, axis=-1)
    before = np.roll(edges, 1, axis=1)
    cos = -(edges * before).sum(-1) / (length * np.roll(length, 1, axis=1) + 1e-12)
    return np.rad2deg(np.arccos(np.clip(cos, -1, 1)).min(-1))


def narrow(corners: Float32[np.ndarray, "F 3 3"], min_angle_deg: float) -> Bool[np.ndarray, " F"]:
    """Triangles whose smallest angle is below `min_angle_deg`, without a square root or an arc cosine.

    The smallest angle faces the shortest edge, so its squared sine is (2 area)^2 * shortest^2 / (product of the edges)^2.
    Kernels repeat these operations in this order, in float64, and so agree bit for bit.
    """
    sin2 = math.sin(math.radians(min_angle_deg)) ** 2
    out = np.empty(len(corners), bool)
    for first in range(0, len(corners), 8192):  # pieces that stay in the cache: three times as fast as all at once
        p0, p1, p2 = np.ascontiguousarray(corners[first : first + 8192].transpose(1, 2, 0), np.float64)
        u, v = p1 - p0, p2 - p0
        a2 = u[0] * u[0] + u[1] * u[1] + u[2] * u[2]
        b2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
        dot = u[0] * v[0] + u[1] * v[1] + u[2] * v[2]
        c2 = a2 + b2 - 2.0 * dot
        shortest = np.minimum(np.minimum(a2, b2), c2)
        out[first : first + 8192] = (a2 * b2 - dot * dot) * shortest < sin2 * a2 * b2 * c2
    return out


def boundary_ratios(corners: Float32[np.ndarray, "F 3 3"]) -> Float64[np.ndarray, " F"]:
    """Depth extent over the larger lateral extent of every triangle (the release's `--filter_type boundary`)."""
    points = corners.astype(np.float64)
    extent = points.max(axis=1) - points.min(axis=1)
    return extent[:, 2] / (np.maximum(extent[:, 0], extent[:, 1]) + 1e-8)


def hidden_faces(
    corners: Float32[np.ndarray, "F 3 3"], K: Float32[np.ndarray, "3 3"], rule: MeshRule
) -> Bool[np.ndarray, " F"]:
    """Faces that the source camera did not really see: curtains between a surface and what lies behind it."""
    if rule.filter == "boundary":
        return boundary_ratios(corners) > rule.boundary_ratio
    return narrow(corners, rule.min_angle_deg(K))


def ring_faces(height: int, width: int) -> Bool[np.ndarray, " F"]:
    """Which of `grid_faces(height, width)` touch the outermost ring of vertices."""
    rows, cols = np.arange(height - 1)[:, None], np.arange(width - 1)[None, :]
    top_left = (rows == 0) | (cols == 0)
    bottom_right = (rows == height - 2) | (cols == width - 2)
    # (B, A, C) of an inner cell reaches the ring's last row or column through B or C just as (B, C, D) does.
    return np.concatenate([(top_left | bottom_right).reshape(-1)] * 2)


def unseen_pixels(visible: Bool[np.ndarray, " F"], height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Grid vertices none of whose faces is visible; `visible` follows `grid_faces(height, width)`."""
    upper, lower = visible.reshape(2, height - 1, width - 1)
    seen = np.zeros((height, width), bool)
    seen[:-1, :-1] |= upper  # as A
    seen[1:, :-1] |= upper | lower  # as B
    seen[:-1, 1:] |= upper | lower  # as C
    seen[1:, 1:] |= lower  # as D
    return ~seen


def splat_half_px(
    depth: Float32[np.ndarray, "h w"], rows: Int64[np.ndarray, " n"], cols: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Half side of the squares of unseen pixels, source pixels (see `SPLAT_HALF_PX`)."""
    h, w = depth.shape
    z = depth[rows, cols].astype(np.float64)
    supported = np.zeros(len(rows), bool)
    for di, dj in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        i, j = rows + di, cols + dj
        inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
        other = depth[np.clip(i, 0, h - 1), np.clip(j, 0, w - 1)].astype(np.float64)
        supported |= inside & (np.abs(other - z) <= DEPTH_JUMP * np.minimum(other, z))
    return np.where(supported, SPLAT_HALF_PX, SPECK_HALF_PX)
