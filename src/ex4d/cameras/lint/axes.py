"""Axes and directions that were mixed up, told by where the optical axes meet.

A camera that circles something looks at it: the lines along its optical axes (nearly) meet in one point in front of it. When
they do not, but would if the matrices were inverted or if another axis were the optical one, that is what happened.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.formats.track import CameraTrack, invert_affine
from ex4d.geometry.frames import rotation_angle_rad

#: (lines meet, lines stay apart), as shares of the eyes' spread: an exact look-at path against a slight miss, or a path held
#: by hand against a clear one.
EVIDENCE = ((1e-3, 2e-3), (0.02, 0.2))
#: Eyes that move by less than this share of their distance from the origin stand still.
ON_THE_SPOT = 1e-4
#: Less turning than this (radians) says nothing.
MIN_TURN = np.radians(5.0)

_NAMES = {
    (2, -1): ("OpenGL", "y up, looking along -z"),
    (0, 1): ("Unreal", "x forward, y right, z up"),
    (0, -1): ("some other", "looking along -x"),
    (1, 1): ("z-up world", "looking along +y"),
    (1, -1): ("z-up world", "looking along -y"),
}

_FIRST_POSES = {
    "OpenGL camera axes (y up, looking along -z) on an OpenCV world": np.diag([1.0, -1, -1]),
    "PyTorch3D camera axes (x left, y up)": np.diag([-1.0, -1, 1]),
    "Unreal camera axes (x forward, y right, z up)": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "z-up camera axes (y forward)": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}


def axes_findings(track: CameraTrack) -> list[tuple[str, str, str, int | None]]:
    """(code, message, fix, frame) of what is mixed up, at most one."""
    poses = track.cam_from_world
    if track.world == "source":
        for name, R in _FIRST_POSES.items():
            if np.abs(poses[0, :3, :3] - R).max() < 1e-3 or np.abs(poses[0, :3, :3] - R.T).max() < 1e-3:
                return [("axes", f"the first pose is that of {name}", "convert from its real format", 0)]
    eye = track.world_from_cam[:, :3, 3]
    if np.ptp(eye, axis=0).max() < ON_THE_SPOT * np.abs(eye).max(initial=0.0):
        return []  # a camera that turns on the spot far from the origin; inverted, it would circle the origin
    own = meeting(poses, 2)
    if own is None or (own[0] < EVIDENCE[0][1] and own[1] > 0):
        return []
    if own[0] < EVIDENCE[1][0] and own[1] < 0:
        return [_axes((2, -1))]
    inverted = meeting(invert_affine(poses), 2)
    if inverted is not None and inverted[1] > 0 and _better(inverted[0], own[0]):
        return [("inverted", "the optical axes meet only when the matrices are inverted: camera-to-world given as world-to-camera, or the other way round", "invert the matrices", None)]  # fmt: skip
    for axis in (0, 1):
        found = meeting(poses, axis)
        if found is not None and found[0] < EVIDENCE[0][0] and _better(found[0], own[0]):
            return [_axes((axis, 1 if found[1] > 0 else -1))]
    return []


def _better(other: float, own: float) -> bool:
    return any(other < meets and own > max(apart, 10 * other) for meets, apart in EVIDENCE)


def _axes(which: tuple[int, int]) -> tuple[str, str, str, int | None]:
    name, words = _NAMES[which]
    return ("axes", f"the cameras circle a point that lies along {name} axes ({words}), not OpenCV's", "convert from its real format", None)  # fmt: skip


def meeting(cam_from_world: Float64[np.ndarray, "time 4 4"], axis: int) -> tuple[float, float] | None:
    """How well the lines along a camera axis meet: (miss / spread of the eyes, signed distance / spread), None if untold.

    The point is the least-squares one; a distance near 0 (a camera turning on the spot) or of both signs is no meeting.
    """
    R = cam_from_world[:, :3, :3]
    eye = -(np.swapaxes(R, -1, -2) @ cam_from_world[:, :3, 3:])[..., 0]
    direction = R[:, axis, :]
    spread = float(np.sqrt(((eye - eye.mean(axis=0)) ** 2).sum(axis=1).mean()))
    turn = rotation_angle_rad(R @ R[0].T)
    if not np.isfinite(spread) or turn.max() < MIN_TURN or spread < 1e-9:
        return None
    across = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    A, b = across.sum(axis=0), (across @ eye[..., None]).sum(axis=0)[:, 0]
    if np.linalg.eigvalsh(A)[0] < 1e-4 * len(eye):  # parallel lines meet nowhere
        return np.inf, 1.0
    to_point = np.linalg.solve(A, b) - eye
    along = (to_point * direction).sum(axis=1)
    miss = float(np.sqrt(((across @ to_point[..., None])[..., 0] ** 2).sum(axis=1).mean()))
    if (along > 0).any() and (along < 0).any() or np.abs(along).min() < 0.2 * spread:
        return np.inf, 1.0
    return miss / spread, float(np.sign(along[0]) * np.abs(along).min() / spread)
