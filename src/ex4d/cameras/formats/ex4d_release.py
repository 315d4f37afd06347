"""EX-4D release, `camera_*.npz`.

Convention: `extrinsics` float32 [N, 4, 4] world to camera, OpenGL camera axes (x right, y up, looking along -z) on a world
that is x right, y down, z forward: the first source camera as OpenCV sees it. So pose 0 is diag(1, -1, -1, 1).
`intrinsics` float32 [3, 3], one for all frames, pixels. Depth units. No fps, size or version. (EX-4D b456a41, recon.py)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, load_npz, matrices, one_track
from ex4d.cameras.formats.track import CameraTrack, need_intrinsics
from ex4d.errors import InputError
from ex4d.geometry.frames import GL_FROM_CV


def detect(probe: Probe) -> bool:
    """Arrays `extrinsics` and a single `intrinsics`."""
    return "extrinsics" in probe.npz and probe.npz.get("intrinsics") == (3, 3)


def read(path: Path, options: ReadOptions) -> Tracks:
    """Poses in the world of the first source camera; the picture is taken as twice the principal point."""
    arrays = load_npz(path, "extrinsics", "intrinsics")
    poses = GL_FROM_CV @ matrices(arrays["extrinsics"], path)
    K = arrays["intrinsics"].astype(np.float64)
    if K.shape != (3, 3):
        raise InputError(f"{path} has intrinsics of shape {K.shape}", "(3, 3)", "save it again")
    size_hw = (round(2 * K[1, 2]), round(2 * K[0, 2]))
    return {"": CameraTrack(poses, np.repeat(K[None], len(poses), axis=0), size_hw)}


def write(path: Path, tracks: Tracks) -> None:
    """The first frame's K stands for all."""
    track = one_track(tracks, "an EX-4D npz")
    K, _ = need_intrinsics(track, "an EX-4D npz")
    extrinsics = (GL_FROM_CV @ track.cam_from_world).astype(np.float32)
    with path.open("wb") as file:
        np.savez_compressed(file, extrinsics=extrinsics, intrinsics=K[0].astype(np.float32))


FORMAT = Format(
    name="ex4d-release",
    title="EX-4D release camera_*.npz",
    suffix=".npz",
    convention="world to camera 4x4 float32, OpenGL axes over an OpenCV world (pose 0 = diag(1,-1,-1,1)), depth units; one K in pixels",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"one lens", "size", "float32"}),
)
