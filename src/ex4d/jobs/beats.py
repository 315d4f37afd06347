"""Signs of life: a worker touches its file every few seconds, and whoever watches counts on a clock of its own.

Machines that share a disk do not share a clock. So a watcher never compares a beat's time with its own: it remembers when it
first saw the beat that lies there, and calls the worker lost once that same beat has lain there for the expiry.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path


class BeatWatch:
    """What one process has seen of the workers' beats.

    Args:
        folder: Where the beats lie, one file a worker.
        expiry_s: Seconds for which a beat may lie there unchanged.
        clock: Seconds that only rise.
    """

    def __init__(self, folder: Path, expiry_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.expiry_s, self._clock = folder, expiry_s, clock
        self._seen: dict[str, tuple[tuple[int, int] | None, float]] = {}

    def is_lost(self, worker: str) -> bool:
        """Look at a worker's beat; True once the same one, or none at all, has been seen for longer than the expiry."""
        now = (
            self._clock()
        )  # before the look: if this process is stopped in between, it takes no old beat for a late one
        beat = read_beat(self.folder, worker)
        known = self._seen.get(worker)
        if known is None or known[0] != beat:
            self._seen[worker] = beat, now
            return False
        return now - known[1] > self.expiry_s

    def forget_all_but(self, workers: Collection[str]) -> None:
        """Keep no more than what is known of these."""
        for worker in self._seen.keys() - set(workers):
            del self._seen[worker]


def beat(folder: Path, worker: str) -> None:
    """Leave a sign of life."""
    path = folder / worker
    try:
        os.utime(path)
    except FileNotFoundError:
        path.touch()


def read_beat(folder: Path, worker: str) -> tuple[int, int] | None:
    """What changes with every beat: time of change and inode, None without one."""
    try:
        status = (folder / worker).stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino


def end_beats(folder: Path, worker: str) -> None:
    """The last sign of a worker that ends in order."""
    (folder / worker).unlink(missing_ok=True)
