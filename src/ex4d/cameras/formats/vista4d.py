"""Vista4D target cameras, npz.

Convention: `cam_c2w` [N, 4, 4] camera to world, OpenCV axes; the world is the source's first camera, in reconstruction units.
`intrinsics` [N, 4] = fx, fy, cx, cy in pixels of the source video. Files of its editor also hold `cam_c2w_fsff` and
`intrinsics_fsff`: the same path made to start at the source's first frame; read as the camera named "fsff".
(Eyeline-Labs/Vista4D 15cc2fc6, utils/media.py)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, load_npz, matrices
from ex4d.cameras.formats.track import CameraTrack, invert_affine, need_intrinsics
from ex4d.errors import InputError


def detect(probe: Probe) -> bool:
    """Arrays `cam_c2w` and `intrinsics` [N, 4]."""
    return "cam_c2w" in probe.npz and len(probe.npz.get("intrinsics", ())) == 2 and probe.npz["intrinsics"][1] == 4


def read(path: Path, options: ReadOptions) -> Tracks:
    """The camera "" and, where the file has it, "fsff"."""
    arrays = load_npz(path, "cam_c2w", "intrinsics")
    names = {"": ""} | ({"fsff": "_fsff"} if "cam_c2w_fsff" in arrays else {})
    return {name: _track(arrays, end, path) for name, end in names.items()}


def _track(arrays: dict[str, np.ndarray], end: str, path: Path) -> CameraTrack:
    poses = invert_affine(matrices(arrays["cam_c2w" + end], path))
    lens = arrays.get("intrinsics" + end, arrays["intrinsics"]).astype(np.float64)
    if lens.shape != (len(poses), 4):
        raise InputError(f"{path} has intrinsics of shape {lens.shape}", f"({len(poses)}, 4)", "save it again")
    K = np.tile(np.eye(3), (len(poses), 1, 1))
    K[:, [0, 1, 0, 1], [0, 1, 2, 2]] = lens
    return CameraTrack(poses, K, (round(2 * lens[0, 3]), round(2 * lens[0, 2])), extras={"dtype": arrays["cam_c2w" + end].dtype})  # fmt: skip


def write(path: Path, tracks: Tracks) -> None:
    """The minimal file, and the first-frame variant where there is one."""
    if not set(tracks) <= {"", "fsff"} and len(tracks) == 1:
        tracks = {"": next(iter(tracks.values()))}
    arrays = {}
    for name, track in tracks.items():
        K, _ = need_intrinsics(track, "a Vista4D npz")
        end = f"_{name}" if name else ""
        arrays["cam_c2w" + end] = track.world_from_cam.astype(track.extras.get("dtype", np.float64))
        arrays["intrinsics" + end] = K[:, [0, 1, 0, 1], [0, 1, 2, 2]].astype(track.extras.get("dtype", np.float64))
    with path.open("wb") as file:
        np.savez(file, **arrays)


FORMAT = Format(
    name="vista4d",
    title="Vista4D npz",
    suffix=".npz",
    convention="camera to world 4x4, OpenCV axes, world = first source camera, reconstruction units; fx fy cx cy per frame in source pixels",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"lens", "size"}),
)
