"""What happened to a job, one JSON object a line; a torn line of a killed writer is passed over."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Event:
    """One line.

    Attributes:
        kind: submitted, claimed, progress, published, error, lost, released, late, cancelled, parked or retried.
        time_s: Seconds since 1970 by the writer's clock; for people, nothing is decided by it.
        claim: Who says so, if a claim does.
        data: What belongs to the kind, such as done, total and what of progress.
        end: Offset in bytes behind the line, from which reading goes on.
    """

    kind: str
    time_s: float
    claim: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    end: int = 0


def append_event(path: Path, kind: str, claim: str | None = None, **data: Any) -> None:
    """Add one line in a single write; a torn last line of another writer is closed first."""
    record = {"kind": kind, "time_s": round(time.time(), 3), "claim": claim, "data": data}
    line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line
        os.write(file, line)
    finally:
        os.close(file)


def read_events(path: Path, after: int = 0) -> Iterator[Event]:
    """The events behind the byte offset `after`, in order; a line that is not finished yet is left for the next call."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        stream.seek(after)
        end = after
        for line in stream:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            event = _event(line, end)
            if event is not None:
                yield event


def last_event(path: Path, kind: str, tail_bytes: int = 16384) -> Event | None:
    """The latest event of a kind among the last bytes of the file."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    found = [event for event in read_events(path, max(size - tail_bytes, 0)) if event.kind == kind]
    return found[-1] if found else None


def _event(line: bytes, end: int) -> Event | None:
    try:
        record = json.loads(line)
        return Event(record["kind"], float(record["time_s"]), record["claim"], record["data"], end)
    except (ValueError, KeyError, TypeError):
        return None  # the torn line of a writer that was killed
