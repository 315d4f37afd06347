"""All formats: found by content, or named as `format:path`; one camera of many as `path#name`."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks
from ex4d.cameras.formats.track import CameraTrack
from ex4d.cameras.words.moves import PRESETS
from ex4d.cameras.words.released import parse_released
from ex4d.errors import InputError

#: Modules of this folder that define FORMAT, in the order in which detection asks them.
MODULES = (
    "cameras_json",
    "ex4d_release",
    "vista4d",
    "gen3c_npz",
    "neoverse",
    "recammaster",
    "infcam",
    "cam_info",
    "nerfstudio_path",
    "blender",
    "gen3c",
    "nerfstudio",
    "colmap_bin",
    "colmap",
    "csv_table",
    "re10k",
    "tum",
    "trajectorycrafter",
)


@cache
def formats() -> dict[str, Format]:
    """Every format by its name on the command line."""
    found = [import_module(f"ex4d.cameras.formats.{module}").FORMAT for module in MODULES]
    return {format.name: format for format in found}


def get_format(name: str) -> Format:
    """A format by name; InputError names close ones."""
    if name not in formats():
        close = difflib.get_close_matches(name, formats(), n=3, cutoff=0.4)
        raise InputError(f"unknown camera format {name!r}", f"one of {', '.join(formats())}", " or ".join(close) or "ex4d")  # fmt: skip
    return formats()[name]


def split_spec(spec: str) -> tuple[str | None, Path, str | None]:
    """`format:path#camera` to its parts; a Windows drive letter is no format."""
    head, colon, rest = spec.partition(":")
    format_name, path = (head, rest) if colon and head in formats() else (None, spec)
    if "#" in path and not Path(path).exists():
        path, _, camera = path.rpartition("#")
        return format_name, Path(path), camera
    return format_name, Path(path), None


def is_camera_file(spec: str) -> bool:
    """True when a spec means a file rather than a path in words."""
    head = re.split(r"[:,@+> ]", spec.strip(), maxsplit=1)[0]
    if not head or head in PRESETS or parse_released(head):
        return False
    format_name, path, _ = split_spec(spec)
    return format_name is not None or path.exists() or bool(path.suffix in (".json", ".npz", ".txt", ".csv", ".yaml", ".yml", ".bin"))  # fmt: skip


def detect(path: Path) -> Format:
    """The format of a file, by its content alone."""
    if not path.exists():
        raise InputError(f"{path} does not exist", "a camera file", "a preset such as orbit:60")
    probe = Probe(path)
    for format in formats().values():
        if format.detect(probe):
            return format
    raise InputError(f"{path} is of no known camera format", f"one of {', '.join(formats())}", f"FORMAT:{path}")


def read_tracks(spec: str, options: ReadOptions | None = None) -> tuple[Format, Tracks]:
    """Every camera of `path`, `format:path` or `path#camera`.

    Raises:
        InputError: no such file, no such camera, a file that breaks its format.
    """
    format_name, path, camera = split_spec(spec)
    if not path.exists():
        raise InputError(f"{path} does not exist", "a camera file", "a preset such as orbit:60")
    format = get_format(format_name) if format_name else detect(path)
    tracks = format.read(path, options or ReadOptions())
    if camera is not None:
        if camera not in tracks:
            raise InputError(f"{path} has no camera {camera!r}", f"one of {', '.join(tracks)}", f"{path}#{next(iter(tracks))}")  # fmt: skip
        tracks = {camera: tracks[camera]}
    return format, tracks


def read_track(spec: str, options: ReadOptions | None = None) -> CameraTrack:
    """One camera: the one that is named, else the file's first."""
    return next(iter(read_tracks(spec, options)[1].values()))


def losses(path: Path, format: Format, tracks: Tracks) -> list[str]:
    """What the file that was just written could not hold."""
    first = next(iter(tracks.values()))
    notes = []
    if first.source_time is not None and "source time" not in format.keeps:
        if not np.allclose(first.source_time, np.arange(len(first)), atol=1e-6):
            notes.append(f"{format.name} holds no time remap: every frame shows its own source frame again")
    if first.K is not None and "lens" not in format.keeps and "fov" not in format.keeps:
        if not np.allclose(first.K, first.K[0], rtol=1e-6) and "zoom ramp" not in format.keeps:
            notes.append(f"{format.name} holds no zooming lens: only the first frame's is kept")
    if first.fps and "fps" not in format.keeps:
        notes.append(f"{format.name} holds no fps: {first.fps} is lost")
    if not format.exact:
        radius = float(first.extras.get("radius", 1.0))
        again = format.read(path, ReadOptions(num_frames=len(first), radius=radius))
        miss = np.abs(next(iter(again.values())).rebased().cam_from_world - first.rebased().cam_from_world).max()
        if miss > 1e-6:
            notes.append(f"{format.name} smooths its keys: read back, the path is off by up to {miss:.3g}")
    return notes


def without_extras(track: CameraTrack) -> CameraTrack:
    """The track as another format's writer should see it."""
    return replace(track, extras={})
