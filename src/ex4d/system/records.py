"""One record per stage in an output folder: what is done, which files are ours, and what was said of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ex4d.errors import InputError
from ex4d.system.atomic import ensure_dir, missing_dirs, remove_empty_dirs, written_whole
from ex4d.system.manifest import plain

#: Folder, inside an output folder, with one record per finished stage.
STAGES_DIR = ".stages"


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage left in `.stages/NAME.json`.

    Attributes:
        key: See `content_key`.
        files: Name inside the folder -> (size in bytes, time of change in ns) of every file it wrote.
        notes: What the user was told.
        details: What the manifest says of it.
    """

    key: str
    files: Mapping[str, tuple[int, int]]
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def record_file(out_dir: Path, stage: str) -> Path:
    """Where a stage's record stands."""
    return Path(out_dir) / STAGES_DIR / f"{stage}.json"


def read_record(out_dir: Path, stage: str) -> StageRecord | None:
    """The record of a stage; None where there is none, or one that cannot be read (`is_torn` tells which)."""
    try:
        record = json.loads(record_file(out_dir, stage).read_text(encoding="utf-8"))
        files = {str(name): (int(size), int(time)) for name, (size, time) in record["files"].items()}
        notes, details = record.get("notes", []), record.get("details", {})
        return StageRecord(str(record["key"]), files, tuple(map(str, notes)), dict(details))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_torn(out_dir: Path, stage: str) -> bool:
    """Whether a stage has a record that cannot be read: emptied, cut off by a full disk, or not ours."""
    return record_file(out_dir, stage).is_file() and read_record(out_dir, stage) is None


def is_done(out_dir: Path, stage: str, key: str) -> bool:
    """True when `stage` was finished with this key and its files are as it left them (size and time of change)."""
    record = read_record(out_dir, stage)
    try:
        return (
            record is not None
            and record.key == key
            and all(_stamp(Path(out_dir) / name) == stamp for name, stamp in record.files.items())
        )
    except OSError:
        return False


def mark_done(
    out_dir: Path,
    stage: str,
    key: str,
    files: Iterable[str],
    notes: Iterable[str] = (),
    details: Mapping[str, object] | None = None,
) -> None:
    """Record that `stage` wrote `files` (names inside `out_dir`) with this key, and what it said."""
    out_dir = Path(out_dir)
    stamps = {name: _stamp(out_dir / name) for name in files}
    _write_record(out_dir, stage, StageRecord(key, stamps, tuple(notes), details or {}))


def check_outputs(out_dir: Path, names: Mapping[str, Iterable[str]], inputs: Iterable[Path]) -> None:
    """Refuse, before any work, to write over a file that is not an output of an earlier run in the same folder.

    Args:
        out_dir: Folder of the outputs; need not be there.
        names: Stage -> names inside `out_dir` that it may write.
        inputs: Files that are read.

    Raises:
        InputError: An input would be replaced, or a file of such a name is there that no record lists.
    """
    out_dir, inputs = Path(out_dir), list(inputs)
    listed = _listed(out_dir)
    for stage, files in names.items():
        torn = is_torn(out_dir, stage)  # the record was ours, so the stage's files are
        for name in files:
            path = out_dir / name
            if not os.path.lexists(path):
                continue
            if _is_one_of(path, inputs):
                raise InputError(f"{path} is read, and this would write over it", "another folder", "--out DIR")
            if name not in listed and not torn:
                raise InputError(
                    f"{path} is there, and no earlier run in {out_dir} wrote it",
                    "a folder without it, since an output has this name",
                    "--out DIR, or move the file away",
                )


@contextmanager
def stage_claim(out_dir: Path, stage: str, names: Iterable[str], inputs: Iterable[Path]) -> Iterator[None]:
    """Around a stage's work: what is written in the block is known as this stage's, however the block ends.

    The record says "not done" meanwhile. If the block ends well, files that the earlier record lists and the new one (from
    `mark_done`) does not are removed, but never one of `inputs`. If it fails before it wrote anything, the folder is as it was.

    Args:
        out_dir: Folder of the outputs.
        stage: Name of the stage.
        names: Names inside `out_dir` that it may write.
        inputs: Files that are read.
    """
    out_dir, file = Path(out_dir), record_file(out_dir, stage)
    earlier, old = file.read_bytes() if file.is_file() else None, read_record(out_dir, stage)
    owned = {*names, *(old.files if old else ())} if earlier is not None else set()
    before = {name: _stamp_or_none(out_dir / name) for name in {*names, *owned}}
    made = missing_dirs(out_dir / STAGES_DIR)
    try:
        _write_record(out_dir, stage, StageRecord("", {name: stamp or (0, 0) for name, stamp in before.items()}))
        yield
    except BaseException:
        if all(_stamp_or_none(out_dir / name) == stamp for name, stamp in before.items()):
            if earlier is None:
                file.unlink(missing_ok=True)
            else:
                with written_whole(file) as temporary:
                    temporary.write_bytes(earlier)
            remove_empty_dirs(made)
        raise
    new = read_record(out_dir, stage)
    for name in owned - set(new.files if new else owned):
        if Path(name).name == name and not _is_one_of(out_dir / name, inputs):
            (out_dir / name).unlink(missing_ok=True)


def _listed(out_dir: Path) -> set[str]:
    """Names in all records of a folder."""
    records = (read_record(out_dir, file.stem) for file in (out_dir / STAGES_DIR).glob("*.json"))
    return {name for record in records if record is not None for name in record.files}


def _is_one_of(path: Path, inputs: Iterable[Path]) -> bool:
    return path.exists() and any(Path(file).exists() and os.path.samefile(path, file) for file in inputs)


def _write_record(out_dir: Path, stage: str, record: StageRecord) -> None:
    ensure_dir(out_dir / STAGES_DIR)
    with written_whole(record_file(out_dir, stage)) as temporary:
        temporary.write_text(json.dumps(plain(record)), encoding="utf-8")


def _stamp_or_none(path: Path) -> tuple[int, int] | None:
    try:
        return _stamp(path)
    except OSError:
        return None


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
