"""What the GPU rasteriser is asked to do: tensors of a group of frames, parameter tables, tuning. No Triton here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ex4d.mesh.rule import MIN_DEPTH, DepthRange, MeshRule, cap_faces, hidden_faces, lift

#: Columns of the per-frame table of a depth map; `cuda_source.py` reads them by position.
SOURCE_FIELDS = (
    "k00", "k01", "k02", "k11", "k12",  # inverse intrinsics of the source
    "first",  # pixel position of the grid's first vertex
    "near", "far",  # depths are clamped to this span
    "border",  # depth of the ring or border
    "limit",  # sin^2 of the least angle, or the boundary ratio
    "caps_hidden",  # bit 0, 1: the first, second cap
)  # fmt: skip


@dataclass(frozen=True)
class Tuning:
    """Sizes that change speed and never results.

    Attributes:
        tiny: Pixels of the largest box that the first pass draws itself, at most 49.
        middle: Rows plus pixels of the largest face drawn by one lane.
        segment: Pixels that one lane of a strip draws at most, about.
        block, warps: Lanes and warps of a program that draws tiny faces.
        queue_block: Lanes of a program that draws queued faces, one warp.
        vertex_block, splat_block, pixel_block: Lanes of a program over vertices, source pixels, pixels; 32 a warp.
        pixel_registers: Registers a lane of the last pass may use; what only clipped faces need then goes to memory.
        programs: Programs that stride through a queue.
        queue_floor: Entries that a queue has room for at least.
        workspace_bytes: Frames are drawn in groups whose keys, vertices and queues fit in this.
    """

    tiny: int = 16
    middle: int = 96
    segment: int = 256
    block: int = 32
    warps: int = 1
    queue_block: int = 32
    splat_block: int = 32
    vertex_block: int = 128
    pixel_block: int = 128
    pixel_registers: int = 64
    programs: int = 132 * 32
    queue_floor: int = 1 << 12
    workspace_bytes: int = 1 << 30


@dataclass(frozen=True)
class GridJob:
    """A group of depth maps and the cameras to draw them from, on the device.

    Attributes:
        depth: [T, h, w] float32.
        color: [T, h, w, 3] uint8, or None.
        source: [T, len(SOURCE_FIELDS)] float64.
        camera: [T, 12] float64: K [R | t], row by row.
        caps: [T, 2] uint8: which caps are drawn.
        limits: [2] float32: far plane and alpha threshold.
        rule: The mesh rule.
        size_hw: Output size.
        samples: Samples a pixel along each axis.
    """

    depth: torch.Tensor
    color: torch.Tensor | None
    source: torch.Tensor
    camera: torch.Tensor
    caps: torch.Tensor
    limits: torch.Tensor
    rule: MeshRule
    size_hw: tuple[int, int]
    samples: int

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Size of the vertex grid."""
        extra = 2 if self.rule.ring else 0
        return self.depth.shape[1] + extra, self.depth.shape[2] + extra

    @property
    def sample_hw(self) -> tuple[int, int]:
        """Size of the key buffer."""
        return self.size_hw[0] * self.samples, self.size_hw[1] * self.samples

    def frames(self, first: int, last: int) -> GridJob:
        """The same job for fewer frames."""
        color = None if self.color is None else self.color[first:last]
        return GridJob(
            self.depth[first:last], color, self.source[first:last], self.camera[first:last], self.caps[first:last],
            self.limits, self.rule, self.size_hw, self.samples,
        )  # fmt: skip


@dataclass(frozen=True)
class GridOutput:
    """Where the results of a job go: views [T, h, w, ...] of the caller's tensors; None is not wanted.

    Attributes:
        mask: uint8, 1 where seen.
        color: uint8 RGB.
        depth: float32.
        coverage: uint8, with more than one sample.
        face: int32 face ids of every sample, as `cuda_grid` counts them.
        unseen: [T, h, w] uint8 of the source: pixels that have a splat.
        hidden: [T, cells] uint8 of the source grid: bit 0 and 1 where a cell's upper and lower face is hidden.
    """

    mask: torch.Tensor
    color: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    coverage: torch.Tensor | None = None
    face: torch.Tensor | None = None
    unseen: torch.Tensor | None = None
    hidden: torch.Tensor | None = None

    def frames(self, first: int, last: int) -> GridOutput:
        """Views of fewer frames."""
        values = (self.mask, self.color, self.depth, self.coverage, self.face, self.unseen, self.hidden)
        return GridOutput(*(None if x is None else x[first:last] for x in values))  # type: ignore[arg-type]


def source_table(
    K: np.ndarray, size_hw: tuple[int, int], rule: MeshRule, clip: DepthRange
) -> tuple[np.ndarray, np.ndarray]:
    """Parameter rows [T, fields] and drawn caps [T, 2] for source intrinsics [T, 3, 3]."""
    distinct, which = np.unique(K.reshape(len(K), 9), axis=0, return_inverse=True)
    rows = np.empty((len(distinct), len(SOURCE_FIELDS)))
    caps = np.ones((len(distinct), 2), np.uint8)
    for t, k in enumerate(distinct.reshape(-1, 3, 3)):
        inverse = np.linalg.inv(k.astype(np.float64))
        limit = rule.boundary_ratio
        if rule.filter == "angle":
            limit = math.sin(math.radians(rule.min_angle_deg(k))) ** 2
        hidden = caps_hidden(k, size_hw, rule, clip)
        rows[t] = (
            *inverse[0], *inverse[1, 1:], rule.pixel_offset - rule.ring,
            np.float32(MIN_DEPTH), rule.far_depth(clip), rule.ring_depth(clip), limit, hidden @ [1, 2],
        )  # fmt: skip
        caps[t] = rule.keep_hidden | ~hidden
    return rows[which.reshape(-1)], caps[which.reshape(-1)]


def caps_hidden(k: np.ndarray, size_hw: tuple[int, int], rule: MeshRule, clip: DepthRange) -> np.ndarray:
    """Which of the two caps are hidden: all of a ring's; else by the rule, from the grid's corners."""
    if rule.ring:
        return np.ones(2, bool)
    h, w = size_hw
    first = rule.pixel_offset
    corner_px = np.array(
        [[first, first], [first + w - 1, first], [first, first + h - 1], [first + w - 1, first + h - 1]]
    )
    depth = np.full(4, rule.ring_depth(clip), np.float32)
    points = lift(corner_px[:, 0], corner_px[:, 1], depth, k)
    return hidden_faces(points[cap_faces(0, 1, 2, 3)], k, rule)


def camera_table(K: np.ndarray, cam_from_source: np.ndarray, samples: int) -> np.ndarray:
    """[T, 12] float64 rows of K [R | t], in pixels of `samples` a pixel."""
    scale = np.array([[samples], [samples], [1]], np.float32)
    return ((K * scale).astype(np.float64) @ cam_from_source[:, :3].astype(np.float64)).reshape(len(K), 12)
