"""The thread beside a worker's job: it beats, and looks whether the job shall go on."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

from ex4d.jobs.beats import beat, end_beats
from ex4d.jobs.folder import JobFolder
from ex4d.jobs.types import Claim, Stopped, StopReason

#: Seconds between looks for a cancelled job, a lost claim and a job over its time, where beats are not closer together.
LOOK_S = 0.5

#: Exit code of a worker whose parent died.
ORPHANED = 3


class Heart:
    """Beats from its own thread, so that a stage of several minutes is no lost worker; use it as a context manager.

    Args:
        folder: The job folder.
        worker: The worker's name.
        beat_s: Seconds between beats.
        time_limit_s: Longest a job may take, None for no limit.
        parent: Process without which this one shall not live on, None for any.
    """

    def __init__(
        self,
        folder: JobFolder,
        worker: str,
        beat_s: float,
        time_limit_s: float | None = None,
        parent: int | None = None,
    ) -> None:
        self._folder, self._worker, self._beat_s = folder, worker, beat_s
        self._limit_s, self._parent = time_limit_s, parent
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._claim: Claim | None = None
        self._begin = 0.0
        self._reason: StopReason | None = None
        self._released = False
        self._thread = threading.Thread(target=self._run, name="ex4d-heart", daemon=True)

    def __enter__(self) -> Heart:
        beat(self._folder.beats, self._worker)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._thread.join()
        end_beats(self._folder.beats, self._worker)

    @property
    def reason(self) -> StopReason | None:
        """Why the job in hand shall stop; None while it may go on."""
        return StopReason.RELEASED if self._released else self._reason

    @property
    def released(self) -> bool:
        """Whether the worker was told to end."""
        return self._released

    def release(self) -> None:
        """Let go of the job in hand and take no other; may be called from a signal handler."""
        self._released = True

    def take(self, claim: Claim | None) -> None:
        """Watch over another job, or over none."""
        with self._lock:
            self._claim, self._reason, self._begin = claim, None, time.monotonic()

    def check(self) -> None:
        """Raise Stopped if the job in hand shall stop; what a job's progress calls."""
        if (reason := self.reason) is not None:
            raise Stopped(reason)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._ending.wait(min(LOOK_S, self._beat_s)):
            with suppress(OSError):  # a disk that is away for a moment: the claim may be lost, the work is not wrong
                if time.monotonic() - last >= self._beat_s:
                    last = time.monotonic()
                    beat(self._folder.beats, self._worker)
                self._look()

    def _look(self) -> None:
        with self._lock:
            claim = self._claim
            if self._parent is not None and os.getppid() != self._parent:
                if claim is not None:
                    self._folder.release(claim.ticket)
                os._exit(ORPHANED)
            if claim is None or self._reason is not None:
                return
            if not self._folder.tickets.lies(claim.ticket):
                self._reason = StopReason.LOST
            elif self._folder.cancel_asked(claim.ticket.id):
                self._reason = StopReason.CANCELLED
            elif self._limit_s is not None and time.monotonic() - self._begin > self._limit_s:
                self._reason = StopReason.TOO_LONG
