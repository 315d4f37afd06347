"""CSV, for spreadsheets: one row a frame.

Convention: a header line, then frame, source_time, x, y, z (the eye in the world), qw, qx, qy, qz (camera to world, Hamilton),
fx, fy, cx, cy (pixels), width, height, fps. OpenCV camera axes; the world is x right, y down, z forward: the first source
camera. Scene units. fx and later may be left empty.
"""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, one_track, text_number
from ex4d.cameras.formats.track import CameraTrack, invert_affine
from ex4d.errors import InputError
from ex4d.geometry.frames import rigid
from ex4d.geometry.quaternion import quaternion_from_rotation, rotation_from_quaternion

_POSE = ("frame", "source_time", "x", "y", "z", "qw", "qx", "qy", "qz")
_LENS = ("fx", "fy", "cx", "cy", "width", "height")
COLUMNS = (*_POSE, *_LENS, "fps")


def detect(probe: Probe) -> bool:
    """A header line with the pose columns."""
    return bool(probe.lines) and set(_POSE[2:]) <= {name.strip() for name in probe.lines[0].split(",")}


def read(path: Path, options: ReadOptions) -> Tracks:
    """Columns by name, in any order."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    if not rows:
        raise InputError(
            f"{path} has no rows", "a header and one row a frame", "ex4d cameras convert orbit:60 example.csv"
        )

    def column(name: str, line_of: int = 2) -> np.ndarray:
        values = []
        for index, row in enumerate(rows, line_of):
            try:
                values.append(float(row[name]))
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path} line {index}, column {name}: {row.get(name)!r}", "a number", "fill it in") from error  # fmt: skip
        return np.array(values)

    def filled(*names: str) -> bool:
        return all(rows[0].get(name) not in (None, "") for name in names)

    q = np.stack([column(name) for name in ("qw", "qx", "qy", "qz")], axis=-1)
    poses = invert_affine(rigid(rotation_from_quaternion(q), np.stack([column(name) for name in "xyz"], axis=-1)))
    K = size_hw = None
    if filled(*_LENS):
        K = np.tile(np.eye(3), (len(rows), 1, 1))
        K[:, [0, 1, 0, 1], [0, 1, 2, 2]] = np.stack([column(name) for name in _LENS[:4]], axis=-1)
        size_hw = (round(column("height")[0]), round(column("width")[0]))
    time = column("source_time") if filled("source_time") else None
    fps = Fraction(rows[0]["fps"]) if filled("fps") else None
    return {"": CameraTrack(poses, K, size_hw, fps=fps, source_time=time)}


def write(path: Path, tracks: Tracks) -> None:
    """Every column; unknown ones empty."""
    track = one_track(tracks, "a CSV")
    world_from_cam = track.world_from_cam
    q = quaternion_from_rotation(world_from_cam[:, :3, :3])
    time = track.source_time if track.source_time is not None else np.arange(float(len(track)))
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for i in range(len(track)):
            pose = [text_number(v) for v in (i, time[i], *world_from_cam[i, :3, 3], *q[i])]
            lens = [""] * 6
            if track.K is not None and track.size_hw is not None:
                k, (h, w) = track.K[i], track.size_hw
                lens = [text_number(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2], w, h)]
            out.writerow([*pose, *lens, str(track.fps) if track.fps else ""])


FORMAT = Format(
    name="csv",
    title="CSV table",
    suffix=".csv",
    convention="eye x y z and quaternion w x y z, camera to world, OpenCV axes, world = first source camera, scene units; K in pixels",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"lens", "size", "fps", "source time"}),
)
