"""What every format does, how a file is looked at, and how numbers are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.formats.track import CameraTrack
from ex4d.errors import InputError

#: Bytes of a file that detection looks at when it is text.
HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class ReadOptions:
    """What a file may leave open.

    Attributes:
        num_frames: Frames wanted, for formats of keys that are sampled; others ignore it.
        radius: Scene units of one "radius", for formats whose lengths are shares of it.
    """

    num_frames: int | None = None
    radius: float = 1.0


Tracks = dict[str, CameraTrack]


@dataclass(frozen=True)
class Format:
    """A camera file format.

    Attributes:
        name: On the command line, as in `NAME:path`.
        title: Whose format it is.
        suffix: Of files written; "" for a folder.
        convention: Axes, direction, units and order, in words: one row of the table of conventions.
        detect: True when a file is certainly of this format, by its content.
        read: Every camera of the file, by name ("" where the format holds one).
        write: The same, back.
        keeps: What survives a round trip besides the poses: "lens" (K of every frame), "one lens", "zoom", "fov" (vertical),
            "size", "fps", "source time", "names"; "float32" when numbers are rounded to it.
        exact: False when only some paths can be expressed.
    """

    name: str
    title: str
    suffix: str
    convention: str
    detect: Callable[[Probe], bool]
    read: Callable[[Path, ReadOptions], Tracks]
    write: Callable[[Path, Tracks], None]
    keeps: frozenset[str]
    exact: bool = True


class Probe:
    """A file looked at once, for detection; nothing here raises on a strange file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def npz(self) -> dict[str, tuple[int, ...]]:
        """Array names and shapes of an npz file, else empty."""
        if self.path.is_dir() or self.path.suffix != ".npz":
            return {}
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return {key: file[key].shape for key in file.files}
        except Exception:  # any damage at all only means: not this format
            return {}

    @cached_property
    def json(self) -> Any:
        """Parsed JSON, else None."""
        if self.path.is_dir() or not self.text.lstrip().startswith(("{", "[")):
            return None
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (ValueError, OSError):
            return None

    @cached_property
    def text(self) -> str:
        """The first part of a text file, else empty."""
        if self.path.is_dir():
            return ""
        with self.path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if b"\0" in head:
            return ""
        return head.decode("utf-8", errors="replace")

    @cached_property
    def lines(self) -> list[str]:
        """Lines of `text`; the last one may be cut."""
        return self.text.splitlines()

    def has_file(self, name: str) -> bool:
        """True for a folder that holds `name`, and for that file itself."""
        return (self.path / name).is_file() if self.path.is_dir() else self.path.name == name

    def keys(self, *names: str) -> bool:
        """True when the JSON is an object with all these keys."""
        return isinstance(self.json, dict) and set(names) <= set(self.json)


def load_json(path: Path) -> Any:
    """Parsed JSON, or one line that says where it is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not JSON ({error})", "a complete JSON file", "export it again") from error


def load_npz(path: Path, *keys: str) -> dict[str, np.ndarray]:
    """Arrays of an npz file; InputError names the keys that are missing."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # zip, header and dtype damage all raise their own kinds
        raise InputError(f"{path} cannot be read as npz ({error})", "a complete NumPy zip", "save it again") from error
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise InputError(f"{path} has arrays {', '.join(arrays)}", f"also {', '.join(missing)}", "ex4d cameras lint FILE")  # fmt: skip
    return arrays


def matrices(values: Any, path: Path, rows: int = 4) -> Float64[np.ndarray, "time 4 4"]:
    """[time, 4, 4] from nested lists or arrays of 4x4 (or 3x4 with rows=3), checked for shape."""
    try:
        array = np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} has matrices that are not numbers or not alike", f"{rows}x4 numbers each", "export it again") from error  # fmt: skip
    if array.ndim != 3 or array.shape[1:] not in ((rows, 4), (4, 4)) or not len(array):
        raise InputError(f"{path} has matrices of shape {array.shape}", f"[frames, {rows}, 4]", "export it again")
    if array.shape[1] == 3:
        array = np.concatenate([array, np.tile([[[0.0, 0, 0, 1]]], (len(array), 1, 1))], axis=1)
    return array


def number_rows(lines: list[str], columns: int, path: Path, first_line: int = 1) -> Float64[np.ndarray, "rows columns"]:
    """A table of numbers; InputError names the line."""
    rows = []
    for index, line in enumerate(lines, first_line):
        fields = line.split()
        if not fields:
            continue
        try:
            row = [float(field) for field in fields]
        except ValueError:
            row = []
        if len(row) != columns:
            raise InputError(f"{path} line {index} is {line[:60]!r}", f"{columns} numbers", "remove or repair that line")  # fmt: skip
        rows.append(row)
    if not rows:
        raise InputError(f"{path} has no poses", f"lines of {columns} numbers", "export it again")
    return np.array(rows)


def one_track(tracks: Tracks, format_name: str) -> CameraTrack:
    """The only camera, for formats that hold one."""
    if len(tracks) != 1:
        raise InputError(f"{len(tracks)} cameras for {format_name}", "one", f"FILE#{next(iter(tracks), 'name')} to pick one")  # fmt: skip
    return next(iter(tracks.values()))


def tidy(value: float) -> float:
    """The shortest decimal within rounding noise (a few 1e-16), so that 3392.48 comes back as 3392.48."""
    if abs(value) < 1e-15:
        return 0.0
    short = float(f"{value:.13g}")
    return short if abs(short - value) <= 2e-15 * max(1.0, abs(value)) else float(value)


def tidy_list(array: Any) -> Any:
    """Nested lists of tidy numbers."""
    return [tidy_list(a) for a in array] if np.ndim(array) else tidy(float(array))


def text_number(value: float) -> str:
    """A number as text that reads back to the same double."""
    value = tidy(float(value))
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def dump_json(document: Any, depth: int = 0) -> str:
    """JSON with one object member a line and every matrix on one line."""
    pad, end = "  " * (depth + 1), "  " * depth
    if isinstance(document, dict) and document:
        members = [f"{pad}{json.dumps(key)}: {dump_json(value, depth + 1)}" for key, value in document.items()]
        text = "{\n" + ",\n".join(members) + f"\n{end}}}"
    elif isinstance(document, list) and any(isinstance(item, dict) for item in document):
        text = "[\n" + ",\n".join(pad + dump_json(item, depth + 1) for item in document) + f"\n{end}]"
    else:
        text = json.dumps(document, allow_nan=False)
    return text if depth else text + "\n"
