"""Tickets in their folders: found, claimed and moved by rename alone, so that of several who try exactly one succeeds."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ex4d.jobs.types import State, Ticket

#: States whose tickets lie in folders by the first two digits of the id. Few jobs run at a time: those lie together.
SHARDED = (State.QUEUED, State.DONE, State.FAILED, State.CANCELLED)

#: How often a job is looked for in all states before it is called missing: it may move while it is looked for.
LOOKS = 50


class Tickets:
    """The tickets of a job folder.

    Args:
        root: The job folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, ticket: Ticket) -> Path:
        """Where it lies."""
        return self._folder(ticket.state, ticket.id) / ticket.file_name

    def move(self, ticket: Ticket, to: Ticket, *, own: bool = False) -> bool:
        """Rename a ticket; False if it does not lie there any more.

        Args:
            ticket: Where it was seen.
            to: Where it shall lie.
            own: `to` bears a claim that nobody else makes: then a rename whose answer got lost on the way from a file server,
                and that failed when it was sent again, counts as done.
        """
        source, target = self.path(ticket), self.path(to)
        try:
            os.rename(source, target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)  # workers remove folders that they found empty
            try:
                os.rename(source, target)
            except FileNotFoundError:
                return own and target.exists()
        return True

    def lies(self, ticket: Ticket) -> bool:
        """Whether it is there as it was seen."""
        return self.path(ticket).exists()

    def of(self, state: State) -> Iterator[Ticket]:
        """All tickets in a state, in no order, as they are found; memory does not grow with their number."""
        for folder in self._folders(state):
            for name in _names(folder):
                if (ticket := Ticket.parse(state, name)) is not None:
                    yield ticket

    def find(self, job_id: str) -> Ticket | None:
        """A job's ticket, None if the job has none in any state."""
        for _ in range(LOOKS):
            for state in State:
                for name in _names(self._folder(state, job_id)):
                    if name.startswith(job_id) and (ticket := Ticket.parse(state, name)) is not None:
                        return ticket
        return None

    def _folder(self, state: State, job_id: str) -> Path:
        return self.root / state / job_id[:2] if state in SHARDED else self.root / state

    def _folders(self, state: State) -> list[Path]:
        folder = self.root / state
        return [folder / name for name in _names(folder)] if state in SHARDED else [folder]


class Claimer:
    """One worker's way through the queue: it reads a shard at a time and begins at a random one, so a claim costs a rename.

    Args:
        tickets: The folder's.
        worker: The worker's name, unlike any other's.
        rng: Decides the order of shards and of tickets in them.
    """

    def __init__(self, tickets: Tickets, worker: str, rng: random.Random) -> None:
        self._tickets, self._worker, self._rng = tickets, worker, rng
        self._count = 0
        self._tickets_seen: list[Ticket] = []

    def next(self) -> Ticket | None:
        """Claim one job; its ticket in `running`, or None if nothing is queued."""
        while self._tickets_seen or self._look():
            ticket = self._tickets_seen.pop()
            claim = f"{self._worker}.{self._count}"
            running = replace(ticket, state=State.RUNNING, claim=claim)
            if self._tickets.move(ticket, running, own=True):
                self._count += 1
                return running
        return None

    def _look(self) -> bool:
        """Read the first shard, in random order, that holds any ticket."""
        queue = self._tickets.root / State.QUEUED
        shards = _names(queue)
        self._rng.shuffle(shards)
        for shard in shards:
            found = [
                ticket for name in _names(queue / shard) if (ticket := Ticket.parse(State.QUEUED, name)) is not None
            ]
            if found:
                self._rng.shuffle(found)
                self._tickets_seen = found
                return True
            with suppress(OSError):  # not empty any more, or removed by another worker
                os.rmdir(queue / shard)
        return False


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
