"""GEN3C video input, `camera.npz`.

Convention: `w2c` float32 [T, 4, 4] world to camera, OpenCV axes, reconstruction units; `intrinsics` float32 [T, 3, 3] pixels.
(nv-tlabs/GEN3C db2ffe12, gui/api/v2v_utils.py)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, load_npz, matrices, one_track
from ex4d.cameras.formats.track import CameraTrack, need_intrinsics
from ex4d.errors import InputError


def detect(probe: Probe) -> bool:
    """Arrays `w2c` and `intrinsics` [T, 3, 3]."""
    return "w2c" in probe.npz and len(probe.npz.get("intrinsics", ())) == 3


def read(path: Path, options: ReadOptions) -> Tracks:
    """Poses of the file's world; the picture is taken as twice the principal point."""
    arrays = load_npz(path, "w2c", "intrinsics")
    poses, K = matrices(arrays["w2c"], path), arrays["intrinsics"].astype(np.float64)
    if K.shape != (len(poses), 3, 3):
        raise InputError(f"{path} has intrinsics of shape {K.shape}", f"({len(poses)}, 3, 3)", "save it again")
    return {"": CameraTrack(poses, K, (round(2 * K[0, 1, 2]), round(2 * K[0, 0, 2])), world="file")}


def write(path: Path, tracks: Tracks) -> None:
    """Float32, as the tool reads it."""
    track = one_track(tracks, "a GEN3C npz")
    K, _ = need_intrinsics(track, "a GEN3C npz")
    with path.open("wb") as file:
        np.savez(file, w2c=track.cam_from_world.astype(np.float32), intrinsics=K.astype(np.float32))


FORMAT = Format(
    name="gen3c-npz",
    title="GEN3C camera.npz",
    suffix=".npz",
    convention="world to camera 4x4 float32, OpenCV axes, reconstruction units; K per frame in pixels",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"lens", "size", "float32"}),
)
