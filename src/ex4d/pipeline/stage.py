"""One stage with its record: what is still valid is taken from the folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ex4d.pipeline.folder import STAGE_FILES
from ex4d.system.records import is_done, is_torn, mark_done, read_record, record_file, stage_claim


@dataclass
class RunResult:
    """What a run left behind.

    Attributes:
        out: The folder.
        seconds: Time of every stage; 0 where an earlier run's result was taken.
        notes: What the user should know.
        details: What each stage says of itself, for the manifest.
    """

    out: Path
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Add a note once."""
        if text and text not in self.notes:
            self.notes.append(text)


def _stage(result: RunResult, name: str, key: str, work: Callable[[], list[str]], inputs: Iterable[Path] = ()) -> None:
    begin = time.perf_counter()
    if is_torn(result.out, name):
        result.note(f"{record_file(result.out, name)} cannot be read, so the {name} stage is made again")
    record = read_record(result.out, name)
    if record is not None and is_done(result.out, name, key):
        result.seconds[name] = 0.0
        result.details.update(record.details)
        for note in record.notes:
            result.note(note)
        return
    notes, details = len(result.notes), set(result.details)
    with stage_claim(result.out, name, STAGE_FILES[name], inputs):
        files = work()
        said = {part: value for part, value in result.details.items() if part not in details}
        mark_done(result.out, name, key, files, result.notes[notes:], said)
    result.seconds[name] = round(time.perf_counter() - begin, 3)
