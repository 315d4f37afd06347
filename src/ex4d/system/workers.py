"""Threads for kernels that release the GIL: work is cut into bands that idle threads take, with one z-buffer a thread.

The front surface of a pixel is the greatest of totally ordered keys, so the bytes do not depend on who drew what.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

#: More z-buffers than this cost more to merge than they save.
MAX_THREADS = 8


def default_threads() -> int:
    """Cores this process may use, at most `MAX_THREADS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MAX_THREADS))


class Workers:
    """A fixed number of threads, one of them the caller's own."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "ex4d-render") if threads > 1 else None

    def map_bands(self, total: int, band: int, work: Callable[[int, int, int], None]) -> None:
        """Call work(worker, first, last) for every band of range(total); each worker takes the next one when free."""
        if total <= band or self._pool is None:
            work(0, 0, total)
            return
        starts = itertools.count(0, band)  # next() on it is atomic under the GIL

        def take(worker: int) -> None:
            for first in starts:
                if first >= total:
                    return
                work(worker, first, min(first + band, total))

        others = [self._pool.submit(take, worker) for worker in range(1, self.threads)]
        try:
            take(0)
        finally:
            for other in others:
                other.result()
