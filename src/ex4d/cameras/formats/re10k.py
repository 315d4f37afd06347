"""RealEstate10K txt, as CameraCtrl and VideoX-Fun (Wan-Fun Camera) read it.

Convention: line 1 is a header and always skipped; then 19 numbers a line, single spaces: timestamp in microseconds,
fx/W, fy/H, cx/W, cy/H, two unused, and the 3x4 world to camera matrix row by row. OpenCV axes, arbitrary scale, and only
motion relative to the first line has a meaning. Pixels are square, which tells the picture's aspect (16:9 in their files).
(hehao13/CameraCtrl af45a7a0, inference.py)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, number_rows, one_track, text_number
from ex4d.cameras.formats.track import CameraTrack, need_intrinsics
from ex4d.errors import InputError

#: CameraCtrl's and VideoX-Fun's `original_pose_height`; the width follows from square pixels (1280 in their own files).
NOMINAL_HEIGHT = 720


def detect(probe: Probe) -> bool:
    """19 numbers on the second line, and not on the first."""
    counts = [len(line.split()) for line in probe.lines[:3]]
    return len(counts) > 1 and counts[1] == 19 and (counts[0] != 19)


def read(path: Path, options: ReadOptions) -> Tracks:
    """K in pixels of a 1280x720 picture."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if lines and len(lines[0].split()) == 19:
        raise InputError(f"{path} begins with a pose", "a header line first (readers skip line 1)", "put an empty line on top")  # fmt: skip
    rows = number_rows(lines[1:], 19, path, first_line=2)
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows[:, 7:].reshape(-1, 3, 4)
    h, w = NOMINAL_HEIGHT, max(round(NOMINAL_HEIGHT * float(rows[0, 2] / rows[0, 1])), 1) if rows[0, 1] > 0 else 1280
    K = np.tile(np.eye(3), (len(rows), 1, 1))
    K[:, [0, 1, 0, 1], [0, 1, 2, 2]] = rows[:, 1:5] * [w, h, w, h]
    time_s = rows[:, 0] * 1e-6 if (rows[:, 0] != 0).any() else None
    extras = {"header": lines[0], "unused": rows[:, 5:7]}
    return {"": CameraTrack(poses, K, (h, w), time_s=time_s, world="file", extras=extras)}


def write(path: Path, tracks: Tracks) -> None:
    """Timestamps from the file it was read from, else from fps, else 0 as in VideoX-Fun's assets."""
    track = one_track(tracks, "a RealEstate10K txt")
    K, (h, w) = need_intrinsics(track, "a RealEstate10K txt")
    n = len(track)
    time_s = track.time_s if track.time_s is not None else np.arange(n) / float(track.fps) if track.fps else np.zeros(n)
    lens = K[:, [0, 1, 0, 1], [0, 1, 2, 2]] / [w, h, w, h]
    unused = track.extras.get("unused", np.zeros((n, 2)))
    lines = [str(track.extras.get("header", ""))]
    for i in range(n):
        numbers = [round(time_s[i] * 1e6), *lens[i], *unused[i], *track.cam_from_world[i, :3].ravel()]
        lines.append(" ".join(text_number(v) for v in numbers))
    path.write_text(
        "\n".join(lines), encoding="utf-8"
    )  # no trailing newline: their readers choke on an empty last line


FORMAT = Format(
    name="re10k",
    title="RealEstate10K / CameraCtrl / VideoX-Fun txt",
    suffix=".txt",
    convention="header line, then time (us), fx/W fy/H cx/W cy/H, 0 0, world to camera 3x4 row-major; OpenCV axes, arbitrary scale",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"lens"}),
)
