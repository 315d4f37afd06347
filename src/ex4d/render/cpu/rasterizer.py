"""The CPU rasteriser: the raster law in numba, on all cores, the same bytes for any number of threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float, Float32, UInt8

from ex4d.errors import InputError
from ex4d.mesh.rule import (
    DEPTH_JUMP,
    SPECK_HALF_PX,
    SPLAT_HALF_PX,
    DepthRange,
    MeshRule,
    cap_faces,
    grid_depth,
    hidden_faces,
    lift,
)
from ex4d.render.base import Fragments, SeenFrame, is_identity, seen_from_source
from ex4d.render.cpu import kernels
from ex4d.system.workers import Workers, default_threads
from ex4d.types import WatertightMesh

#: Faces, vertices and rows a thread takes at a time: large against the cost of a call, small against the whole.
FACES_BAND, VERTICES_BAND, ROWS_BAND = 1 << 14, 1 << 15, 32

#: Rows and columns of a grid fit in this many bits, so that a face id fits in 31.
MAX_GRID_BITS = 14


class CpuRasterizer:
    """Draws meshes and depth maps by the raster law of `render.base`.

    Args:
        threads: Threads to use; None uses every core this process may.
        identity_law: Answer the source camera's own view by the mesh law, without drawing.
    """

    name = "cpu"

    def __init__(self, threads: int | None = None, *, identity_law: bool = True) -> None:
        self.identity_law = identity_law
        self.threads = threads or default_threads()
        self._workers = Workers(self.threads)
        self._lock = threading.Lock()
        self._kept: np.ndarray | None = None

    def draw(
        self,
        mesh: WatertightMesh,
        cam_from_world: Float[np.ndarray, "4 4"],
        K: Float[np.ndarray, "3 3"],
        size_hw: tuple[int, int],
    ) -> Fragments:
        """The nearest surface of every pixel, by the law of `render.base`."""
        px_from_world = K.astype(np.float64) @ cam_from_world[:3].astype(np.float64)
        screen = np.empty((len(mesh.vertices), 3))
        face_id = np.empty(size_hw, np.int32)
        color = np.empty((*size_hw, 4), np.float32)
        depth = np.empty(size_hw, np.float32)
        with self._buffers(size_hw) as buffers:

            def project(_worker: int, first: int, last: int) -> None:
                kernels.project_vertices(first, last, mesh.vertices, px_from_world, screen)

            def draw(worker: int, first: int, last: int) -> None:
                kernels.draw_faces(
                    first, last, mesh.faces, mesh.visible, mesh.vertices, px_from_world, screen,
                    buffers[worker],
                )  # fmt: skip

            def resolve(_worker: int, top: int, bottom: int) -> None:
                kernels.resolve_fragments(top, bottom, buffers, mesh.faces, mesh.color, face_id, color, depth)

            self._workers.map_bands(len(mesh.vertices), VERTICES_BAND, project)
            self._workers.map_bands(len(mesh.faces), FACES_BAND, draw)
            self._workers.map_bands(size_hw[0], ROWS_BAND, resolve)
        return Fragments(face_id, color, depth)

    def draw_depth(
        self,
        depth: Float32[np.ndarray, "h w"],
        color: UInt8[np.ndarray, "h w 3"],
        source_K: Float32[np.ndarray, "3 3"],
        rule: MeshRule,
        clip: DepthRange,
        cam_from_source: Float[np.ndarray, "4 4"],
        K: Float[np.ndarray, "3 3"],
        size_hw: tuple[int, int],
    ) -> SeenFrame:
        """The watertight mesh of one source frame, seen from another camera, without building the mesh."""
        if self.identity_law and is_identity(rule, depth.shape, source_K, cam_from_source, K, size_hw):
            return seen_from_source(depth, color, rule, clip)
        if rule.ring == rule.per_vertex:
            raise ValueError("rules with a ring mark faces, rules without one mark vertices")
        grid = grid_depth(depth, rule, clip)
        h, w = grid.shape
        bits = (max(h, w) - 1).bit_length()
        if bits > MAX_GRID_BITS:
            raise InputError(f"a picture of {w}x{h}", f"at most {1 << MAX_GRID_BITS} pixels a side", "--size smaller")
        P = K.astype(np.float64) @ cam_from_source[:3].astype(np.float64)
        inverse_K = np.linalg.inv(source_K.astype(np.float64))
        first_px = float(rule.pixel_offset - rule.ring)
        limit = rule.boundary_ratio
        if rule.filter == "angle":
            limit = math.sin(math.radians(rule.min_angle_deg(source_K))) ** 2
        color = np.ascontiguousarray(color)
        visible = np.empty((2, h - 1, w - 1), bool)
        out = SeenFrame(np.empty((*size_hw, 3), np.uint8), np.empty(size_hw, bool), np.empty(size_hw, np.float32))

        with self._buffers(size_hw) as buffers:

            def mark(_worker: int, top: int, bottom: int) -> None:
                kernels.mark_cells(
                    top, bottom, grid, inverse_K, first_px, rule.ring, rule.filter == "boundary", limit, visible
                )  # fmt: skip

            def draw(worker: int, top: int, bottom: int) -> None:
                kernels.draw_cells(
                    top, bottom, grid, inverse_K, first_px, P, visible, rule.ring, SPLAT_HALF_PX, SPECK_HALF_PX,
                    DEPTH_JUMP, rule.keep_hidden, rule.per_vertex, bits, buffers[worker],
                )  # fmt: skip

            self._workers.map_bands(h - 1, ROWS_BAND, mark)
            self._workers.map_bands(h - 1, ROWS_BAND, draw)
            caps = self._visible_caps(grid, source_K, rule)
            if rule.keep_hidden or caps.any():
                kernels.draw_caps(grid, inverse_K, first_px, P, caps, rule.keep_hidden, bits, buffers[0])
            self._resolve(rule, visible, caps, color, bits, buffers, out)
        return out

    def _resolve(self, rule: MeshRule, visible, caps, color, bits: int, buffers, out: SeenFrame) -> None:
        far = np.float32(rule.far_plane)
        if not rule.per_vertex:

            def resolve(_worker: int, top: int, bottom: int) -> None:
                kernels.resolve_faces(
                    top, bottom, buffers, color.reshape(-1), color.shape[1], bits, far, out.color.reshape(-1), out.mask, out.depth
                )  # fmt: skip
        else:
            opaque = self._opaque(rule, visible, caps)
            threshold = np.float32(rule.alpha_threshold)

            def resolve(_worker: int, top: int, bottom: int) -> None:
                kernels.resolve_alpha(
                    top, bottom, buffers, color, opaque, bits, threshold, far, out.color, out.mask, out.depth
                )  # fmt: skip

        self._workers.map_bands(out.mask.shape[0], ROWS_BAND, resolve)

    def _opaque(self, rule: MeshRule, visible: np.ndarray, caps: np.ndarray) -> np.ndarray:
        """Vertices that keep their colour under the released per-vertex rule."""
        h, w = visible.shape[1] + 1, visible.shape[2] + 1
        opaque = np.ones((h, w), bool)
        if rule.keep_hidden:
            self._workers.map_bands(
                h, ROWS_BAND, lambda _worker, top, bottom: kernels.mark_opaque(top, bottom, visible, opaque)
            )
            for cap, shown in zip(cap_faces(0, w - 1, (h - 1) * w, h * w - 1), caps, strict=True):
                opaque.reshape(-1)[cap] &= shown
        return opaque

    @staticmethod
    def _visible_caps(grid: np.ndarray, K: np.ndarray, rule: MeshRule) -> np.ndarray:
        if rule.ring:
            return np.zeros(2, bool)
        h, w = grid.shape
        x, y = np.array([0.0, w - 1] * 2), np.array([0.0, 0, h - 1, h - 1])
        corners = lift(x + rule.pixel_offset, y + rule.pixel_offset, grid[[0, 0, -1, -1], [0, -1, 0, -1]], K)
        return ~hidden_faces(corners[cap_faces(0, 1, 2, 3)], K, rule)

    @contextmanager
    def _buffers(self, size_hw: tuple[int, int]) -> Iterator[np.ndarray]:
        """Empty z-buffers, one per thread, kept between frames of one size; resolving empties them again."""
        with self._lock:
            buffers, self._kept = self._kept, None
            if buffers is None or buffers.shape[1:3] != tuple(size_hw):
                buffers = np.zeros((self.threads, *size_hw, 2), np.int64)
            yield buffers
            self._kept = buffers  # not reached after an error: half-drawn buffers are dropped
