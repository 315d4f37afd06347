"""Outputs are written beside and renamed, so that nothing half-written ever carries its final name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ex4d.errors import ResourceError


def ensure_dir(path: Path) -> Path:
    """Create a folder and check that files can be written into it; ResourceError names what is in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ResourceError(
            f"cannot write into {path} ({error.strerror or error})", "a writable folder", "--out DIR"
        ) from error
    return path


def check_writable(path: Path) -> None:
    """Raise ResourceError where `ensure_dir` would, without leaving anything behind."""
    missing = missing_dirs(path)
    ensure_dir(missing[0].parent if missing else path)


def missing_dirs(path: Path) -> list[Path]:
    """The folders that would have to be made for `path`, outermost first."""
    missing = []
    while not os.path.lexists(path) and path != path.parent:
        missing.insert(0, path)
        path = path.parent
    return missing


def remove_empty_dirs(folders: list[Path]) -> None:
    """Remove folders again, outermost first in the list, as far as nothing is in them."""
    for folder in reversed(folders):
        try:
            folder.rmdir()
        except OSError:
            return


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` (same suffix); rename it on success, remove it on any error or Ctrl-C."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise ResourceError(
            f"cannot write {path} ({error.strerror or error})",
            "a writable folder with free space",
            "--out DIR on another disk",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
