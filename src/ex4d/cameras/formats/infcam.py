"""InfCam `camera_extrinsics*.json`: ReCamMaster's container with another meaning.

Convention: rows forward, right, up, position in centimetres, but in the source camera's own OpenCV world, so the matrices read
as numbers have determinant -1. Poses are absolute: frame 0 need not be the identity. (emjay73/InfCam 8436c340)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks
from ex4d.cameras.formats.recammaster import first_raw, is_container, read_container, write_container
from ex4d.cameras.formats.track import CameraTrack


def detect(probe: Probe) -> bool:
    """The container with determinant -1."""
    return is_container(probe) and float(np.linalg.det(first_raw(probe)[:3, :3])) < 0


def read(path: Path, options: ReadOptions) -> Tracks:
    """cam01, cam02, ...; metres, in the source camera's world."""
    return read_container(path, np.eye(3), lambda poses: CameraTrack(poses, unit="metric"))


def write(path: Path, tracks: Tracks) -> None:
    """The identity becomes `[0 0 1 0] [1 0 0 0] [0 -1 0 0] [0 0 0 1] `."""
    write_container(path, tracks, np.eye(3))


FORMAT = Format(
    name="infcam",
    title="InfCam camera_extrinsics.json",
    suffix=".json",
    convention="as recammaster, but in the source camera's OpenCV world and absolute (determinant -1 as written), centimetres",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset(),
)
