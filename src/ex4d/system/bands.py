"""Rows of a picture over threads, for kernels that release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

#: Rows a thread takes at a time; smaller pictures are not worth another thread.
BAND_ROWS = 64
MAX_THREADS = 8


def in_bands(rows: int, work: Callable[[int, int], None]) -> None:
    """Call work(first, last) for bands of range(rows) until all are done."""
    if rows <= BAND_ROWS:
        work(0, rows)
        return
    starts = range(0, rows, BAND_ROWS)
    list(_pool().map(lambda first: work(first, min(first + BAND_ROWS, rows)), starts))


@cache
def _pool() -> ThreadPoolExecutor:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(max(1, min(cores, MAX_THREADS)), "ex4d-fill")
