"""The CPU rasteriser: the raster law in numba, on all cores, the same bytes for any number of threads."""

from __future__ import annotations

import threading

import numpy as np
from jaxtyping import Float

from ex4d.render import kernels
from ex4d.render.base import Fragments
from ex4d.render.workers import Workers, default_threads
from ex4d.types import WatertightMesh

#: Faces, vertices and rows a thread takes at a time: large against the cost of a call, small against the whole.
FACES_BAND, VERTICES_BAND, ROWS_BAND = 1 << 14, 1 << 15, 32


class CpuRasterizer:
    """Draws meshes by the raster law of `render.base`.

    Args:
        threads: Threads to use; None uses every core this process may.
    """

    name = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or default_threads()
        self._workers = Workers(self.threads)
        self._lock = threading.Lock()
        self._keys = np.empty((0, 0, 0), np.int64)
        self._weights = np.empty((0, 0, 0, 2), np.float32)

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
        with self._lock:
            keys, weights = self._buffers(size_hw)

            def project(_worker: int, first: int, last: int) -> None:
                kernels.project_vertices(first, last, mesh.vertices, px_from_world, screen)

            def draw(worker: int, first: int, last: int) -> None:
                kernels.draw_faces(
                    first, last, mesh.faces, mesh.visible, mesh.vertices, px_from_world, screen,
                    keys[worker], weights[worker],
                )  # fmt: skip

            def resolve(_worker: int, top: int, bottom: int) -> None:
                kernels.resolve_fragments(
                    top, bottom, keys, weights, mesh.faces, mesh.color, face_id, color, depth
                )  # fmt: skip

            self._workers.map_bands(len(mesh.vertices), VERTICES_BAND, project)
            self._workers.map_bands(len(mesh.faces), FACES_BAND, draw)
            self._workers.map_bands(size_hw[0], ROWS_BAND, resolve)
        return Fragments(face_id, color, depth)

    def _buffers(self, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Empty z-buffers, one per thread, kept between frames of one size."""
        if self._keys.shape[1:] != size_hw:
            self._keys = np.empty((self.threads, *size_hw), np.int64)
            self._weights = np.empty((self.threads, *size_hw, 2), np.float32)
        self._keys[:] = 0
        return self._keys, self._weights
