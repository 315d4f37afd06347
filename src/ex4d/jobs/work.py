"""The folder a claim works in: it begins with the finished files of the claim before, and becomes the result at the end.

Its name is the claim's, and no claim ever touches another one's folder: it links the files it can use into its own. So whatever
a late worker still writes lands in a folder that nobody will publish.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

OUT, WORK = "out", "work."


def begin_work(job_dir: Path, claim: str) -> Path:
    """A claim's own folder, with links to what the most advanced claim before has finished."""
    mine = job_dir / f"{WORK}{claim}"
    mine.mkdir(exist_ok=True)
    others = [other for other in work_folders(job_dir) if other != mine]
    if others:
        _take_over(max(others, key=_advance), mine)
    return mine


def settle(job_dir: Path, claim: str) -> Path:
    """Give the folder of the claim that was published its final name; whoever looks first does it."""
    out, work = job_dir / OUT, job_dir / f"{WORK}{claim}"
    if not out.exists():
        try:
            os.rename(work, out)
        except FileNotFoundError:
            if not out.exists():
                raise
        for other in work_folders(job_dir):
            shutil.rmtree(other, ignore_errors=True)  # a late worker may still be writing there, which harms nobody
    return out


def work_folders(job_dir: Path) -> list[Path]:
    """Those of whatever claims there were."""
    return [job_dir / name for name in os.listdir(job_dir) if name.startswith(WORK)]


def flush(folder: Path) -> None:
    """Bring every file below a folder to the disk, so that a result which is said to be there survives a power cut."""
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(os.path.join(parent, name))
        _sync(parent)


def _take_over(other: Path, mine: Path) -> None:
    """Link every finished file; size and time of change stay, by which the line knows its stages again."""
    for parent, _, names in os.walk(other):
        target = mine / Path(parent).relative_to(other)
        target.mkdir(exist_ok=True)
        for name in names:
            if name.startswith(".") and ".tmp" in name:
                continue  # half written, and perhaps still open in a late worker
            try:
                _link(os.path.join(parent, name), os.fspath(target / name))
            except FileNotFoundError:
                continue  # replaced by a late worker at this moment: its stage will be done again


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a disk without links
        shutil.copy2(source, target)


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _advance(work: Path) -> tuple[int, str]:
    """How far a folder has come: the number of its files."""
    return sum(len(names) for _, _, names in os.walk(work)), work.name
