"""From tensors to launches: workspace, queues, and the order of the kernels.

Queue lengths are known only on the device. Queues get a guessed capacity; counters count what did not fit too, and a
group of frames whose queues overflowed is drawn again into larger ones. Drawing twice changes nothing: keys are minima.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from ex4d.render.cuda import grid as cuda_grid
from ex4d.render.cuda import queue as cuda_queue
from ex4d.render.cuda import shade as cuda_resolve
from ex4d.render.cuda import soup as cuda_soup
from ex4d.render.cuda.job import GridJob, GridOutput, Tuning

#: Bytes of a middle, hard and strip entry: an id; an id, two set-up slots of nine float64 and two owners; an id.
QUEUE_BYTES = (8, 8 + 2 * (8 * cuda_queue.TABLE_ROWS + 8), 8)

#: Queue entries for each face to begin with: middle, hard, strips.
FIRST_SHARES = (1 / 8, 1 / 64, 1 / 16)

#: Lanes of a strip: one warp.
LANES = 32


@dataclass(frozen=True)
class Screen:
    """Vertices on the screen, packed positions and 1/z, and the key buffer of `hw` samples a frame."""

    positions: torch.Tensor
    inv_z: torch.Tensor
    keys: torch.Tensor
    hw: tuple[int, int]


@dataclass(frozen=True)
class Surface:
    """Where a queued face finds its corners: a depth map's grid, or vertices and faces (the other pair is unused)."""

    depth: torch.Tensor
    source: torch.Tensor
    vertices: torch.Tensor
    faces: torch.Tensor
    camera: torch.Tensor
    hidden: torch.Tensor
    num_vertices: int
    size_hw: tuple[int, int]
    grid_hw: tuple[int, int]
    grid: bool
    ring: bool


@dataclass(frozen=True)
class Queues:
    """Faces for `draw_middle` and `set_up_hard`, strips for `draw_strips`, how many of each, and set-up results."""

    middle: torch.Tensor
    hard: torch.Tensor
    strips: torch.Tensor
    counters: torch.Tensor
    table: torch.Tensor
    owner: torch.Tensor

    @classmethod
    def make(cls, capacities: list[int], device: torch.device) -> Queues:
        """Empty queues."""
        middle, hard, strips = (torch.empty(n, dtype=torch.int64, device=device) for n in capacities)
        slots = 2 * capacities[1]
        table = torch.empty((cuda_queue.TABLE_ROWS, slots), dtype=torch.float64, device=device)
        owner = torch.empty(slots, dtype=torch.int64, device=device)
        return cls(middle, hard, strips, torch.zeros(3, dtype=torch.int64, device=device), table, owner)

    @property
    def capacities(self) -> tuple[int, int, int]:
        """Entries that fit."""
        return len(self.middle), len(self.hard), len(self.strips)


@dataclass(frozen=True)
class Fullness:
    """What a group of frames wanted to queue, on the device, and how much could be queued."""

    faces: int
    counters: torch.Tensor
    capacities: tuple[int, int, int]


class Launcher:
    """Runs the kernels; remembers how full the queues were."""

    def __init__(self, device: torch.device, tuning: Tuning) -> None:
        self.device, self.tuning = device, tuning
        self._shares = list(FIRST_SHARES)

    def render(self, job: GridJob, out: GridOutput) -> None:
        """Draw all frames, in groups that fit the workspace; wait for the device once, when all is started."""
        todo = [(0, len(job.depth))]
        while todo:
            started = []
            for first, end in todo:
                while first < end:
                    last = min(first + self._group_size(job), end)
                    started.append((first, last, self._draw_group(job.frames(first, last), out.frames(first, last))))
                    first = last
            todo = [(first, last) for first, last, full in started if not self._fits(full)]

    def _group_size(self, job: GridJob) -> int:
        vertices = math.prod(job.grid_hw)
        queues = sum(share * size for share, size in zip(self._shares, QUEUE_BYTES, strict=True))
        frame = vertices * (16 + 1 + job.rule.per_vertex + 2 * queues) + 8 * math.prod(job.sample_hw)
        return max(1, int(self.tuning.workspace_bytes // frame))

    def _queues(self, faces: int) -> Queues:
        return Queues.make(
            [max(self.tuning.queue_floor, int(share * faces) + 1) for share in self._shares], self.device
        )

    def _fits(self, full: Fullness) -> bool:
        """Whether every entry found room; if not, remember to make more."""
        fits = True
        for queue, (need, capacity) in enumerate(zip(full.counters.tolist(), full.capacities, strict=True)):
            if need > capacity:
                self._shares[queue] = max(self._shares[queue], 1.25 * need / full.faces)
                fits = False
        return fits

    def _screen(self, frames: int, vertices: int, hw: tuple[int, int]) -> Screen:
        positions = torch.empty((frames, vertices), dtype=torch.int64, device=self.device)
        inv_z = torch.empty((frames, vertices), dtype=torch.float64, device=self.device)
        keys = torch.full((frames, *hw), 2**63 - 1, dtype=torch.int64, device=self.device)
        return Screen(positions, inv_z, keys, hw)

    def _draw_group(self, job: GridJob, out: GridOutput) -> Fullness:
        """Draw a group and write its results, which are wrong where a queue was too small."""
        rule = job.rule
        count, height, width = job.depth.shape
        grid_h, grid_w = job.grid_hw
        vertices, cells = grid_h * grid_w, (grid_h - 1) * (grid_w - 1)
        screen = self._screen(count, vertices, job.sample_hw)
        hidden = out.hidden
        if hidden is None:
            hidden = torch.empty((count, cells), dtype=torch.uint8, device=self.device)
        surface = Surface(
            job.depth, job.source, job.depth, job.depth, job.camera, hidden, vertices, (height, width), job.grid_hw,
            grid=True, ring=rule.ring,
        )  # fmt: skip
        faces = 2 * cells * count
        queues = self._queues(faces)
        self._draw_grid(job, surface, screen, queues, out)
        self._draw_queues(surface, screen, queues)
        self._resolve_grid(job, surface, screen, out)
        return Fullness(faces, queues.counters, queues.capacities)

    def _draw_grid(self, job: GridJob, surface: Surface, screen: Screen, queues: Queues, out: GridOutput) -> None:
        t, rule, hidden = self.tuning, job.rule, surface.hidden
        count, height, width = job.depth.shape
        (grid_h, grid_w), (out_h, out_w) = job.grid_hw, screen.hw
        launch(
            cuda_grid.project_grid, (blocks(grid_h * grid_w, t.vertex_block), count),
            job.depth, job.source, job.camera, screen.positions, screen.inv_z, hidden, height, width,
            RING=rule.ring, BOUNDARY=rule.filter == "boundary", BLOCK=t.vertex_block, num_warps=warps(t.vertex_block),
            enable_fp_fusion=False,
        )  # fmt: skip
        launch(
            cuda_grid.draw_grid, (blocks((grid_h - 1) * (grid_w - 1), t.block), count),
            screen.positions, screen.inv_z, hidden, screen.keys, queues.middle, queues.hard, queues.counters,
            len(queues.middle), len(queues.hard), grid_h, grid_w, out_h, out_w, job.caps,
            TINY=t.tiny, MIDDLE=t.middle, DROP_HIDDEN=not rule.keep_hidden, BLOCK=t.block, num_warps=t.warps,
        )  # fmt: skip
        if rule.ring:
            launch(
                cuda_grid.draw_splats, (blocks(height * width, t.splat_block), count),
                job.depth, job.source, job.camera, hidden, screen.keys, hidden if out.unseen is None else out.unseen,
                queues.hard, queues.counters, len(queues.hard), height, width, out_h, out_w,
                TINY=t.tiny, STORE=out.unseen is not None, BLOCK=t.splat_block, num_warps=warps(t.splat_block), enable_fp_fusion=False,
            )  # fmt: skip

    def _draw_queues(self, surface: Surface, screen: Screen, queues: Queues) -> None:
        t, (out_h, out_w), (grid_h, grid_w) = self.tuning, screen.hw, surface.grid_hw
        launch(
            cuda_queue.draw_middle, (t.programs,),
            queues.middle, queues.counters, len(queues.middle), screen.positions, screen.inv_z, surface.hidden,
            surface.faces, screen.keys, surface.num_vertices, grid_h, grid_w, out_h, out_w,
            GRID=surface.grid, BLOCK=t.queue_block, num_warps=1,
        )  # fmt: skip
        launch(
            cuda_queue.set_up_hard, (t.programs,),
            queues.hard, queues.counters, len(queues.hard), queues.strips, len(queues.strips), queues.table,
            queues.owner, surface.depth, surface.source, surface.vertices, surface.faces, surface.camera,
            surface.hidden, *surface.size_hw, grid_h, grid_w, out_h, out_w,
            GRID=surface.grid, RING=surface.ring, LANES=LANES, SEGMENT=t.segment, BLOCK=t.queue_block, num_warps=1,
            enable_fp_fusion=False,
        )  # fmt: skip
        launch(
            cuda_queue.draw_strips, (t.programs,),
            queues.strips, queues.counters, len(queues.strips), queues.table, queues.owner, len(queues.owner),
            screen.keys, out_h, out_w, LANES=LANES, SEGMENT=t.segment, num_warps=1,
        )  # fmt: skip

    def _resolve_grid(self, job: GridJob, surface: Surface, screen: Screen, out: GridOutput) -> None:
        t, rule, hidden = self.tuning, job.rule, surface.hidden
        count, height, width = job.depth.shape
        (grid_h, grid_w), (out_h, out_w) = job.grid_hw, job.size_hw
        alpha = hidden
        if rule.per_vertex:
            alpha = torch.ones((count, surface.num_vertices), dtype=torch.uint8, device=self.device)
            if rule.keep_hidden:
                launch(
                    cuda_grid.vertex_alpha, (blocks(surface.num_vertices, t.vertex_block), count),
                    hidden, job.source, alpha, grid_h, grid_w, BLOCK=t.vertex_block, num_warps=warps(t.vertex_block),
                )  # fmt: skip
        optional = [out.mask if x is None else x for x in (out.depth, out.coverage, out.face)]
        launch(
            cuda_resolve.resolve_grid, (blocks(out_h * out_w, t.pixel_block), count),
            screen.keys, screen.positions, screen.inv_z, alpha, job.depth, job.source, job.camera,
            hidden if job.color is None else job.color, job.limits,
            out.mask if out.color is None else out.color, out.mask, *optional, height, width, out_h, out_w,
            RING=rule.ring, ALPHA=rule.per_vertex, COLOR=out.color is not None, DEPTH=out.depth is not None,
            FACES=out.face is not None, SAMPLES=job.samples, BLOCK=t.pixel_block, num_warps=warps(t.pixel_block), maxnreg=t.pixel_registers, enable_fp_fusion=False,
        )  # fmt: skip

    def draw_soup(
        self,
        vertices: torch.Tensor,
        faces: torch.Tensor,
        hidden: torch.Tensor,
        colors: torch.Tensor,
        camera: torch.Tensor,
        size_hw: tuple[int, int],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Face id, RGBA and depth of a general mesh: tensors [V, 3], [F, 3], [F] uint8, [V, 4], [12]."""
        t, (out_h, out_w), device = self.tuning, size_hw, self.device
        screen = self._screen(1, len(vertices), size_hw)
        surface = Surface(
            vertices, vertices, vertices, faces, camera, hidden, len(vertices), (2, 2), (2, 2), grid=False, ring=False
        )
        launch(
            cuda_soup.project_points, (blocks(len(vertices), t.vertex_block),),
            vertices, camera, screen.positions, screen.inv_z, len(vertices),
            BLOCK=t.vertex_block, num_warps=warps(t.vertex_block), enable_fp_fusion=False,
        )  # fmt: skip
        fits = False
        while not fits:
            queues = self._queues(len(faces))
            launch(
                cuda_soup.draw_soup, (blocks(len(faces), t.block),),
                screen.positions, screen.inv_z, faces, hidden, screen.keys, queues.middle, queues.hard,
                queues.counters, len(queues.middle), len(queues.hard), len(faces), out_h, out_w,
                TINY=t.tiny, MIDDLE=t.middle, BLOCK=t.block, num_warps=t.warps,
            )  # fmt: skip
            self._draw_queues(surface, screen, queues)
            fits = self._fits(Fullness(len(faces), queues.counters, queues.capacities))
        face = torch.empty(size_hw, dtype=torch.int32, device=device)
        color = torch.empty((*size_hw, 4), dtype=torch.float32, device=device)
        depth = torch.empty(size_hw, dtype=torch.float32, device=device)
        launch(
            cuda_resolve.resolve_soup, (blocks(out_h * out_w, t.pixel_block),),
            screen.keys, screen.positions, screen.inv_z, vertices, faces, camera, colors, face, color, depth,
            out_h, out_w, BLOCK=t.pixel_block, num_warps=warps(t.pixel_block), maxnreg=t.pixel_registers, enable_fp_fusion=False,
        )  # fmt: skip
        return face, color, depth


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Start a Triton kernel."""
    kernel[grid](*args, **options)


def blocks(count: int, size: int) -> int:
    """Programs of `size` lanes that cover `count`."""
    return -(-count // size)


def warps(lanes: int) -> int:
    """One warp for 32 lanes, eight at most."""
    return min(max(lanes // 32, 1), 8)
