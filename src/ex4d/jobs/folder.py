"""A folder of jobs: submit, look, cancel, retry; and what the present claim alone may do: publish, fail, release.

    FOLDER/jobs.json             which layout this is
    FOLDER/jobs/ab/ID/           a job: job.json, events.jsonl, log.txt, error.CLAIM.json, work.CLAIM/, then out/
    FOLDER/queued/ab/TICKET      one empty file a job; where it lies is the job's state, its name counts the attempts
    FOLDER/running/TICKET
    FOLDER/done|failed|cancelled/ab/TICKET
    FOLDER/beats/WORKER          touched by a worker every few seconds

A job has one ticket, which is made with the job and only ever renamed. So it is claimed once, it has one state at any moment,
and whoever lost a claim cannot publish: the name it would rename is gone.
"""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree

from ex4d.errors import InputError
from ex4d.jobs.beats import BeatWatch
from ex4d.jobs.claims import Tickets
from ex4d.jobs.events import Event, append_event, last_event, read_events
from ex4d.jobs.types import Claim, FolderError, Job, JobError, Limits, State, Ticket, check_id
from ex4d.jobs.work import begin_work, settle
from ex4d.system.atomic import ensure_dir, written_whole

LAYOUT = 1

DEFAULT_LIMITS = Limits()

MARK, JOB, EVENTS, LOG, CANCEL, FIRST = "jobs.json", "job.json", "events.jsonl", "log.txt", "cancel", "ticket"


class JobFolder:
    """The door of the room.

    Args:
        root: The folder.
        limits: When a job is given up.
        create: Make the folder; without it, one that holds no jobs is refused.

    Attributes:
        root, limits: As given.
        tickets: Where every job stands.
    """

    def __init__(self, root: Path, limits: Limits = DEFAULT_LIMITS, *, create: bool = False) -> None:
        self.root, self.limits = Path(root).absolute(), limits
        self.tickets = Tickets(self.root)
        self.beats = self.root / "beats"
        mark = self.root / MARK
        if create and not mark.exists():
            ensure_dir(self.root)
            for name in ("jobs", "new", "beats", *State):
                (self.root / name).mkdir(exist_ok=True)
            with written_whole(mark) as temporary:
                temporary.write_text(json.dumps({"layout": LAYOUT}) + "\n", encoding="utf-8")
        check_mark(mark)

    # what anybody may do

    def submit(self, job: Job) -> Ticket:
        """Queue a job, unless the folder has it already: the same job is done once, whoever asks for it and how often."""
        folder = self.job_dir(job.id)
        if not folder.is_dir():
            making = self.root / "new" / f"{job.id}.{secrets.token_hex(6)}"
            making.mkdir(parents=True)
            with written_whole(making / JOB) as temporary:
                record = {"id": job.id, "name": job.name, "inputs": dict(job.inputs), "config": job.config}
                temporary.write_text(json.dumps(record, ensure_ascii=False, allow_nan=False), encoding="utf-8")
            append_event(making / EVENTS, "submitted")
            (making / FIRST).touch()
            folder.parent.mkdir(exist_ok=True)
            try:
                os.rename(making, folder)
            except OSError:  # another process was faster: its folder stands, and is never empty
                if not folder.is_dir():
                    raise
                rmtree(making, ignore_errors=True)
        return self.status(job.id)

    def status(self, job_id: str) -> Ticket:
        """Where a job stands; InputError for one that was never submitted."""
        folder = self.job_dir(check_id(job_id))
        if not folder.is_dir():
            raise InputError(f"{self.root} has no job {job_id}", "the id of a submitted job", "ex4d batch lists them")
        queued = Ticket(job_id, State.QUEUED)
        with suppress(FileNotFoundError):  # whoever comes first queues a job whose submitter was killed on the way
            queue = self.tickets.path(queued)
            queue.parent.mkdir(exist_ok=True)
            os.rename(folder / FIRST, queue)
            return queued
        ticket = self.tickets.find(job_id)
        if ticket is None:
            raise FolderError(
                f"job {job_id} has no ticket in {self.root}", "one", f"rm -r {folder}, and submit it again"
            )
        return ticket

    def repair(self) -> int:
        """Queue every job whose submitter was killed before it could; how many there were. Walks through all jobs."""
        found = 0
        for shard in os.scandir(self.root / "jobs"):
            for folder in os.scandir(shard.path):
                if os.path.exists(f"{folder.path}/{FIRST}"):
                    self.status(folder.name)
                    found += 1
        return found

    def jobs(self, *states: State) -> Iterator[Ticket]:
        """Tickets of all jobs, or of those in some states; one that moves meanwhile may come twice."""
        for state in states or State:
            yield from self.tickets.of(state)

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        found = Counter(ticket.state for ticket in self.jobs())
        return {state: found[state] for state in State}

    def job(self, job_id: str) -> Job:
        """What was submitted."""
        path = self.job_dir(check_id(job_id)) / JOB
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return Job(record["id"], record["config"], record["inputs"], record["name"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{path} is no job", "what submit wrote", "submit the job again elsewhere") from error

    def result(self, job_id: str) -> Path | None:
        """Folder of a published result; None until there is one."""
        ticket = self.status(job_id)
        return settle(self.job_dir(job_id), ticket.claim) if ticket.state is State.DONE and ticket.claim else None

    def error(self, ticket: Ticket) -> JobError | None:
        """Why a failed job was parked."""
        if ticket.state is not State.FAILED:
            return None
        try:
            record = json.loads(self._error_file(ticket).read_text(encoding="utf-8"))
            return JobError(record["kind"], record["line"], record["detail"])
        except (OSError, ValueError, KeyError, TypeError):
            return JobError("Unknown", f"no record of the error ({ticket.errors} errors, {ticket.lost} lost claims)")

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """What happened to a job behind the offset `after` (`Event.end`)."""
        return read_events(self.job_dir(check_id(job_id)) / EVENTS, after)

    def progress(self, job_id: str) -> Event | None:
        """The latest progress."""
        return last_event(self.job_dir(check_id(job_id)) / EVENTS, "progress")

    def cancel(self, job_id: str) -> Ticket:
        """Stop a job: at once in the queue, at its worker's next look while it runs; what is final stays as it is."""
        while True:
            ticket = self.status(job_id)
            if ticket.state is State.QUEUED:
                if self._move(ticket, ticket.to(State.CANCELLED), "cancelled"):
                    return ticket.to(State.CANCELLED)
                continue
            if ticket.state is State.RUNNING:
                (self.job_dir(job_id) / CANCEL).touch()
                if not self.tickets.lies(ticket):
                    continue  # it went back to the queue, or ended
            return ticket

    def cancel_asked(self, job_id: str) -> bool:
        """Whether somebody wants a running job stopped."""
        return (self.job_dir(job_id) / CANCEL).exists()

    def retry(self, job_id: str) -> Ticket:
        """Queue a failed or cancelled job again with no errors counted; what it has finished is kept."""
        ticket = self.status(job_id)
        if ticket.state not in (State.FAILED, State.CANCELLED):
            return ticket
        (self.job_dir(job_id) / CANCEL).unlink(missing_ok=True)
        self._move(ticket, Ticket(job_id, State.QUEUED), "retried")
        return self.status(job_id)

    # what only whoever holds the claim can do

    def begin(self, ticket: Ticket) -> Claim | None:
        """A claimed ticket (`claims.Claimer`) with its job and folder; None if it was cancelled, or taken away again."""
        assert ticket.claim is not None
        if self.cancel_asked(ticket.id):
            self._move(ticket, ticket.to(State.CANCELLED), "cancelled")
            return None
        folder = self.job_dir(ticket.id)
        job = self.job(ticket.id)
        append_event(folder / EVENTS, "claimed", ticket.claim, errors=ticket.errors, lost=ticket.lost)
        work = begin_work(folder, ticket.claim)
        return Claim(ticket, job, work) if self.tickets.lies(ticket) else None

    def publish(self, claim: Claim, **data: object) -> bool:
        """Make the work folder the result; False, and nothing happens, if the claim was taken away meanwhile."""
        if not self._move(claim.ticket, claim.ticket.to(State.DONE), "published", **data):
            return False
        assert claim.ticket.claim is not None
        settle(self.job_dir(claim.ticket.id), claim.ticket.claim)
        return True

    def fail(self, ticket: Ticket, error: JobError) -> bool:
        """Count an error: back to the queue, or parked with it if it was one too many."""
        return self._count(ticket, error, ticket.to(State.QUEUED, error=1), ticket.errors + 1 >= self.limits.max_errors)

    def lose(self, ticket: Ticket, why: str) -> bool:
        """Take a claim away whose worker is gone: back to the queue, or parked if it was lost once too often."""
        times = ticket.lost + 1
        error = JobError("Lost", f"its worker {why}, {times} time{'s' * (times > 1)} in all")
        return self._count(ticket, error, ticket.to(State.QUEUED, lost=1), times >= self.limits.max_lost)

    def release(self, ticket: Ticket) -> bool:
        """Put a claim back and count nothing: its worker was told to end."""
        return self._move(ticket, ticket.to(State.QUEUED), "released")

    def give_up(self, ticket: Ticket) -> bool:
        """End a claim whose job was cancelled."""
        return self._move(ticket, ticket.to(State.CANCELLED), "cancelled")

    def sweep(self, watch: BeatWatch) -> list[Ticket]:
        """Take over the claims of lost workers, as far as this process has seen; any process may, at any time."""
        running = list(self.tickets.of(State.RUNNING))
        lost = []
        for worker in sorted({ticket.worker for ticket in running if ticket.worker}):
            if watch.is_lost(worker):
                lost += [ticket for ticket in running if ticket.worker == worker]
        workers = {ticket.worker for ticket in running if ticket.worker}
        watch.forget_all_but(workers)
        taken = []
        for ticket in lost:
            if self.cancel_asked(ticket.id):
                taken += [ticket] * self.give_up(ticket)
            else:
                taken += [ticket] * self.lose(ticket, f"{ticket.worker} gave no sign for {watch.expiry_s:g} s")
        return taken

    def job_dir(self, job_id: str) -> Path:
        """The job's folder."""
        return self.root / "jobs" / job_id[:2] / job_id

    def _count(self, ticket: Ticket, error: JobError, back: Ticket, park: bool) -> bool:
        if not self.tickets.lies(ticket):
            return False
        with written_whole(self._error_file(ticket)) as temporary:
            temporary.write_text(json.dumps(asdict(error), ensure_ascii=False), encoding="utf-8")
        kind = "parked" if park else "lost" if error.kind == "Lost" else "error"
        to = Ticket(back.id, State.FAILED, back.errors, back.lost, ticket.claim) if park else back
        return self._move(ticket, to, kind, error=error.kind, line=error.line)

    def _error_file(self, ticket: Ticket) -> Path:
        return self.job_dir(ticket.id) / f"error.{ticket.claim}.json"

    def _move(self, ticket: Ticket, to: Ticket, kind: str, **data: object) -> bool:
        moved = self.tickets.move(ticket, to, own=to.claim is not None and to.state is not State.QUEUED)
        if moved:
            append_event(self.job_dir(ticket.id) / EVENTS, kind, ticket.claim, **data)
        return moved


def check_mark(mark: Path) -> None:
    """Refuse a folder that holds no jobs, or those of another layout."""
    try:
        layout = json.loads(mark.read_text(encoding="utf-8"))["layout"]
    except FileNotFoundError as error:
        raise InputError(f"{mark.parent} holds no jobs", "a folder that `ex4d batch` made", "check the path") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{mark} cannot be read", "what `ex4d batch` wrote", "another folder") from error
    if layout != LAYOUT:
        raise InputError(
            f"{mark} has layout {layout!r}", f"layout {LAYOUT}", "the ex4d that made it, or another folder"
        )
