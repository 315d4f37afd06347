"""Starts workers, each with its share of the cores or a card of its own, and replaces those that end, hang or die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

from ex4d.errors import Ex4dError
from ex4d.jobs.codec import encode
from ex4d.jobs.folder import JobFolder
from ex4d.jobs.types import JobError, State, Ticket
from ex4d.jobs.worker import REPLACE, WorkerConfig, worker_name

#: What starts a worker; its config follows as one argument.
COMMAND = (sys.executable, "-m", "ex4d.jobs.worker")

#: Seconds between looks at the workers, and those a worker has to stop by itself before it is killed.
LOOK_S, GRACE_S = 0.2, 5.0

#: Workers of one place that end badly in a row, without ever having claimed a job, before the keeper gives up.
BAD_STARTS = 3


@dataclass
class _Place:
    """A core group or a card, and the worker that is there now."""

    config: WorkerConfig
    process: subprocess.Popen[bytes] | None = None
    claim: Ticket | None = None
    since: float = 0.0
    cancel_since: float | None = None
    bad_starts: int = 0
    claimed: bool = False


class Keeper:
    """The workers of this machine.

    Args:
        configs: One a worker; their names are replaced, since each process needs a new one.
        command: What starts a worker.
        grace_s: Seconds between asking a worker to stop and killing it.
    """

    def __init__(
        self, configs: list[WorkerConfig], command: tuple[str, ...] = COMMAND, grace_s: float = GRACE_S
    ) -> None:
        self._places = [_Place(config) for config in configs]
        self._command, self._grace_s = command, grace_s
        self._folder = JobFolder(configs[0].folder, configs[0].limits)

    def run(self) -> None:
        """Keep the workers until all have ended by themselves."""
        try:
            while self.look():
                time.sleep(LOOK_S)
        finally:
            self.stop()

    def look(self) -> bool:
        """Start what is missing, end what hangs; False once every worker has ended in order."""
        running = {ticket.worker: ticket for ticket in self._folder.jobs(State.RUNNING)}
        working = False
        for place in self._places:
            if place.process is None:
                self._start(place)
            code = None if place.process is None else place.process.poll()
            ticket = running.get(place.config.name)
            if code is None:
                self._enforce(place, ticket)
                working = True
            elif code == 0:
                continue
            else:
                self._ended(place, code, ticket)
                working = True
        return working

    def stop(self) -> None:
        """Ask every worker to let go of its job, and kill those that do not."""
        alive = [place for place in self._places if place.process is not None and place.process.poll() is None]
        for place in alive:
            assert place.process is not None
            place.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + self._grace_s
        for place in alive:
            assert place.process is not None
            try:
                place.process.wait(max(end - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                place.process.kill()
                place.process.wait()
                for ticket in self._claims(place):
                    self._folder.release(ticket)

    def _start(self, place: _Place) -> None:
        place.config = replace(place.config, name=worker_name())
        place.claim, place.cancel_since, place.claimed = None, None, False
        place.process = subprocess.Popen(
            [*self._command, json.dumps(encode(place.config))], env=_environment(place.config), start_new_session=True
        )
        if place.config.cores:
            os.sched_setaffinity(place.process.pid, place.config.cores)

    def _enforce(self, place: _Place, ticket: Ticket | None) -> None:
        """Kill a worker that does not stop when its job is cancelled or over its time."""
        now = time.monotonic()
        if ticket != place.claim:
            place.claim, place.since, place.cancel_since = ticket, now, None
        if ticket is None:
            return
        place.claimed, place.bad_starts = True, 0
        if place.cancel_since is None and self._folder.cancel_asked(ticket.id):
            place.cancel_since = now
        limit_s = place.config.time_limit_s
        if place.cancel_since is not None and now - place.cancel_since > self._grace_s:
            self._kill(place)
            self._folder.give_up(ticket)
        elif limit_s is not None and now - place.since > limit_s + self._grace_s:
            self._kill(place)
            self._folder.fail(ticket, JobError("TimeLimit", f"it took longer than {limit_s:g} s, and did not stop"))

    def _kill(self, place: _Place) -> None:
        assert place.process is not None
        place.process.kill()
        place.process.wait()
        place.process = None

    def _ended(self, place: _Place, code: int, ticket: Ticket | None) -> None:
        """A worker that wants to be replaced, or died; what it held is taken over at once, for it is certainly gone."""
        for held in self._claims(place):
            place.claimed = True
            if self._folder.cancel_asked(held.id):
                self._folder.give_up(held)
            else:
                self._folder.lose(held, f"died ({_said(code)})")
        if code != REPLACE and not place.claimed and ticket is None:
            place.bad_starts += 1
            if place.bad_starts >= BAD_STARTS:
                raise Ex4dError(
                    f"{place.bad_starts} workers ended at once ({_said(code)})", "one that starts", "ex4d doctor"
                )
        place.process = None

    def _claims(self, place: _Place) -> list[Ticket]:
        return [ticket for ticket in self._folder.jobs(State.RUNNING) if ticket.worker == place.config.name]


def _environment(config: WorkerConfig) -> dict[str, str]:
    """Threads for its share of the cores, and its card."""
    env = dict(os.environ)
    if config.cores:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            env[name] = str(len(config.cores))
    if config.card is not None:
        env["CUDA_VISIBLE_DEVICES"] = config.card
    return env


def _said(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
