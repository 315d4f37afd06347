"""The one process that runs jobs: long-lived, one a card or core group, replaced after a cancel, a time limit or N jobs.

python -m ex4d.jobs.worker '{"type": "WorkerConfig", ...}'      what `keeper` starts
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ex4d.errors import Ex4dError, InputError
from ex4d.jobs.beats import BeatWatch
from ex4d.jobs.claims import Claimer
from ex4d.jobs.events import append_event
from ex4d.jobs.folder import EVENTS, LOG, JobFolder
from ex4d.jobs.heart import Heart
from ex4d.jobs.types import Claim, JobError, Limits, State, StopReason, Work
from ex4d.jobs.work import flush

#: Exit code of a worker that wants to be replaced by a fresh process.
REPLACE = 75

#: Seconds between two events of progress.
PROGRESS_S = 0.5


@dataclass(frozen=True)
class WorkerConfig:
    """How one worker works.

    Attributes:
        folder: The job folder.
        name: Unlike any other worker's; letters, digits and dashes.
        limits: When a job is given up.
        cores: CPU cores it keeps to; empty: all of this process's.
        card: What CUDA_VISIBLE_DEVICES shall say, None leaves it alone.
        beat_s: Seconds between signs of life; several times shorter than the expiry.
        poll_s: Seconds between looks into an empty queue.
        max_jobs: Jobs after which it is replaced.
        time_limit_s: Longest a job may take; it counts as an error.
        until_empty: End once nothing is queued or running, instead of waiting for more.
    """

    folder: Path
    name: str
    limits: Limits = Limits()
    cores: tuple[int, ...] = ()
    card: str | None = None
    beat_s: float = 5.0
    poll_s: float = 0.5
    max_jobs: int = 100
    time_limit_s: float | None = None
    until_empty: bool = False

    def __post_init__(self) -> None:
        if not 0 < 2 * self.beat_s <= self.limits.expiry_s:
            raise InputError(
                f"a beat every {self.beat_s:g} s and an expiry of {self.limits.expiry_s:g} s",
                "an expiry of two beats or more",
                "a longer expiry",
            )
        if not self.name.replace("-", "").isalnum() or not self.name.isascii():
            raise InputError(f"worker name {self.name!r}", "letters, digits and dashes", "another name")


def worker_name() -> str:
    """HOST-PID-RANDOM, which no other worker has."""
    host = "".join(c if c.isascii() and c.isalnum() else "-" for c in socket.gethostname())[:40]
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(4)}"


def work(config: WorkerConfig, do: Work, *, parent: int | None = None) -> int:
    """Take jobs and do them until told to end; the exit code for the process, `REPLACE` or 0.

    Args:
        config: See `WorkerConfig`.
        do: Does one job in a folder; `make.run_job` runs the line.
        parent: Process without which this one shall end.
    """
    folder = JobFolder(config.folder, config.limits)
    claimer = Claimer(folder.tickets, config.name, random.Random(config.name))
    watch = BeatWatch(folder.beats, config.limits.expiry_s)
    jobs_done = 0
    with Heart(folder, config.name, config.beat_s, config.time_limit_s, parent) as heart, _told_to_end(heart):
        swept = float("-inf")
        while not heart.released:
            if time.monotonic() - swept >= config.beat_s:
                folder.sweep(watch)
                swept = time.monotonic()
            ticket = claimer.next()
            if ticket is None:
                if config.until_empty and next(folder.jobs(State.QUEUED, State.RUNNING, State.QUEUED), None) is None:
                    return 0
                time.sleep(config.poll_s)
                continue
            claim = folder.begin(ticket)
            if claim is None:
                continue
            reason = do_job(folder, claim, do, heart)
            jobs_done += 1
            if reason in (StopReason.CANCELLED, StopReason.TOO_LONG) or jobs_done >= config.max_jobs:
                return REPLACE
    return 0


def do_job(folder: JobFolder, claim: Claim, do: Work, heart: Heart) -> StopReason | None:
    """Do a claimed job and say how it ended; None if it ran to its end, published or failed."""
    heart.take(claim)
    events, told = folder.job_dir(claim.ticket.id) / EVENTS, [float("-inf"), ""]

    def progress(done: int, total: int | None, what: str) -> None:
        heart.check()
        now = time.monotonic()
        if now - float(told[0]) >= PROGRESS_S:
            told[:] = [now, what]
            append_event(events, "progress", claim.ticket.claim, done=done, total=total, what=what)

    try:
        with _output_to(folder.job_dir(claim.ticket.id) / LOG):
            try:
                said = do(claim.job, claim.work, progress)
                heart.check()
                flush(claim.work)
            except Exception:
                traceback.print_exc()
                raise
    except Exception as error:  # whatever a job raises is the job's: the next one may be sound
        return _ended_early(folder, claim, heart.reason, error)
    finally:
        heart.take(None)
    if not folder.publish(claim, **said):
        append_event(events, "late", claim.ticket.claim)
        return StopReason.LOST
    return None


def _ended_early(folder: JobFolder, claim: Claim, reason: StopReason | None, error: Exception) -> StopReason | None:
    ticket = claim.ticket
    detail = "".join(traceback.format_exception(error))
    if reason is None:
        line = str(error) if isinstance(error, Ex4dError) else f"{type(error).__name__}: {error}"
        folder.fail(ticket, JobError(type(error).__name__, line, detail))
    elif reason is StopReason.CANCELLED:
        folder.give_up(ticket)
    elif reason is StopReason.RELEASED:
        folder.release(ticket)
    elif reason is StopReason.TOO_LONG:
        folder.fail(ticket, JobError("TimeLimit", "it took longer than the time limit", detail))
    return reason


@contextmanager
def _told_to_end(heart: Heart) -> Iterator[None]:
    """SIGTERM and Ctrl-C let go of the job in hand."""
    old = {number: signal.signal(number, lambda *_: heart.release()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Whatever this process prints, native code included, goes to the job's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in enumerate(kept, start=1):
            os.dup2(old, number)
            os.close(old)


def main() -> int:
    """The process that `keeper` starts."""
    import json

    from ex4d.jobs.codec import decode
    from ex4d.jobs.make import run_job

    try:
        return work(decode(WorkerConfig, json.loads(sys.argv[1]), "worker"), run_job, parent=os.getppid())
    except Ex4dError as error:
        print(f"ex4d worker: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
