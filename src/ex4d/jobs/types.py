"""What crosses the room: a job, its ticket, the limits of a folder, and why a worker stops in the middle of a job."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ex4d.errors import Cancelled, Ex4dError, InputError
from ex4d.types import Progress

#: A job's id: the hexadecimal digits of a SHA-256.
_ID = re.compile(r"[0-9a-f]{16,64}")

#: A ticket's file name: id, errors so far, lost claims so far, and the claim that moved it last.
_TICKET = re.compile(r"([0-9a-f]{16,64})\.(\d+)\.(\d+)(?:@([A-Za-z0-9-]+\.\d+))?")


class State(StrEnum):
    """Where a job stands; also the name of the folder that holds its ticket."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing happens to the job any more by itself."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class Limits:
    """When a folder gives a job up.

    Attributes:
        expiry_s: Seconds without a new beat, on the watcher's own steady clock, after which a claim is taken over.
        max_errors: A job that raised this often is parked as failed.
        max_lost: A job whose worker was lost this often is parked as failed.
    """

    expiry_s: float = 60.0
    max_errors: int = 3
    max_lost: int = 5

    def __post_init__(self) -> None:
        if not self.expiry_s > 0:
            raise InputError(f"an expiry of {self.expiry_s} s", "more than 0", "60, and several beats long")
        if self.max_errors < 1 or self.max_lost < 1:
            raise InputError(
                f"{self.max_errors} errors and {self.max_lost} lost claims", "1 or more of each", "3 and 5"
            )


@dataclass(frozen=True)
class Job:
    """One run of the line, as data.

    Attributes:
        id: Content key of inputs and config; the same work has the same id whoever asks for it, and where the files lie.
        config: A RunConfig as JSON (`codec.encode_config`); its `out` is left out, the job's folder decides that.
        inputs: Name -> absolute path of what is read; "video" is the clip.
        name: What tables show; no part of the id.
    """

    id: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        check_id(self.id)


def check_id(job_id: str) -> str:
    """The id itself; InputError for text that is none, so that no id can name a path."""
    if not _ID.fullmatch(job_id):
        raise InputError(f"job id {job_id!r}", "16 to 64 hexadecimal digits", "ex4d batch FOLDER lists them")
    return job_id


@dataclass(frozen=True)
class Ticket:
    """The one file that says where a job stands; it is only ever renamed, so a job has exactly one state.

    Attributes:
        id: The job's.
        state: Which folder it lies in.
        errors: How often the job has raised.
        lost: How often its worker stopped beating or died.
        claim: WORKER.NUMBER of the claim that moved it here; None in the queue.
    """

    id: str
    state: State
    errors: int = 0
    lost: int = 0
    claim: str | None = None

    @property
    def file_name(self) -> str:
        """Everything but the state."""
        return f"{self.id}.{self.errors}.{self.lost}" + (f"@{self.claim}" if self.claim else "")

    @property
    def worker(self) -> str | None:
        """Whose claim it is."""
        return None if self.claim is None else self.claim.rpartition(".")[0]

    def to(self, state: State, *, error: int = 0, lost: int = 0) -> Ticket:
        """This ticket in another state, with so many errors and lost claims more; the queue forgets the claim."""
        claim = None if state is State.QUEUED else self.claim
        return replace(self, state=state, errors=self.errors + error, lost=self.lost + lost, claim=claim)

    @classmethod
    def parse(cls, state: State, file_name: str) -> Ticket | None:
        """None for a file that is no ticket."""
        match = _TICKET.fullmatch(file_name)
        if match is None:
            return None
        job_id, errors, lost, claim = match.groups()
        return cls(job_id, state, int(errors), int(lost), claim)


@dataclass(frozen=True)
class Claim:
    """A job in one worker's hands.

    Attributes:
        ticket: As it lies in `running`.
        job: What to do.
        work: The folder to do it in; it may hold finished stages of an earlier claim. Taking the claim over renames it.
    """

    ticket: Ticket
    job: Job
    work: Path


@dataclass(frozen=True)
class JobError:
    """Why an attempt ended.

    Attributes:
        kind: Class of the exception, or "Lost" and "TimeLimit" of a worker that ended otherwise.
        line: One line for the user.
        detail: The traceback, if there is one.
    """

    kind: str
    line: str
    detail: str = ""


class StopReason(StrEnum):
    """Why a job in hand is let go before its end."""

    CANCELLED = "cancelled"
    LOST = "lost"
    TOO_LONG = "too long"
    RELEASED = "released"


class Stopped(Cancelled):
    """Raised out of a job's progress callback."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(f"the job was stopped ({reason})")
        self.reason = reason


class FolderError(Ex4dError):
    """A job folder that holds what no step of ours leaves behind."""


#: Does one job in a folder, and returns what the event of its publication should say of it.
Work = Callable[[Job, Path, Progress], Mapping[str, Any]]
