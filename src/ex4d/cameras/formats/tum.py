"""TUM trajectory txt.

Convention: `timestamp tx ty tz qx qy qz qw` a line, single spaces, `#` comments. Camera to world: t is the optical centre in
metres, the Hamilton quaternion (w last) turns camera axes into the world. The axes are not declared; the data set's cameras
are OpenCV's. Seconds, absolute world. No lens, size or fps. (MichaelGrupp/evo 26d0953d, file_interface.py)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, number_rows, one_track, tidy
from ex4d.cameras.formats.track import CameraTrack, invert_affine
from ex4d.geometry.frames import rigid
from ex4d.geometry.quaternion import quaternion_from_rotation, rotation_from_quaternion


def detect(probe: Probe) -> bool:
    """Eight numbers on the first lines that are not comments."""
    lines = [line.split() for line in probe.lines[:-1] or probe.lines if line.strip() and not line.startswith("#")]
    return bool(lines) and all(len(line) == 8 and _numbers(line) for line in lines[:5])


def _numbers(fields: list[str]) -> bool:
    try:
        return bool([float(field) for field in fields])
    except ValueError:
        return False


def read(path: Path, options: ReadOptions) -> Tracks:
    """Poses of the file's world, timestamps in seconds."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = number_rows(["" if line.startswith("#") else line for line in lines], 8, path)
    world_from_cam = rigid(rotation_from_quaternion(rows[:, [7, 4, 5, 6]]), rows[:, 1:4])
    return {"": CameraTrack(invert_affine(world_from_cam), time_s=rows[:, 0], unit="metric", world="file", extras={"quaternion": rows[:, 4:]})}  # fmt: skip


def write(path: Path, tracks: Tracks) -> None:
    """17 significant digits; the quaternion keeps the sign of the file it came from."""
    track = one_track(tracks, "a TUM txt")
    n = len(track)
    time_s = track.time_s if track.time_s is not None else np.arange(n) / float(track.fps) if track.fps else np.arange(float(n))  # fmt: skip
    world_from_cam = track.world_from_cam
    q = quaternion_from_rotation(world_from_cam[:, :3, :3])[:, [1, 2, 3, 0]]
    if "quaternion" in track.extras:
        q = np.where((q * track.extras["quaternion"]).sum(axis=1, keepdims=True) < 0, -q, q)
    rows = np.concatenate([time_s[:, None], world_from_cam[:, :3, 3], q], axis=1)
    path.write_text("".join(" ".join(repr(tidy(float(v))) for v in row) + "\n" for row in rows), encoding="utf-8")


FORMAT = Format(
    name="tum",
    title="TUM trajectory txt",
    suffix=".txt",
    convention="seconds, position, quaternion x y z w; camera to world, OpenCV axes, metres",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset(),
)
