"""The camera rig: a few named motions that add up, and the pose they give.

The camera hangs on an arm around the subject. Every motion starts at zero, where the camera is the source camera itself,
so motions may be added in any order and the first frame of a path is the identity.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Float64

from ex4d.cameras.subject import Subject
from ex4d.geometry.frames import rigid

#: Columns of a rig state. Angles in radians, `closer` and `zoom` natural logarithms, lengths in scene units.
#: yaw, pitch: around the subject, +yaw to +x, +pitch up. roll: the picture is seen to turn clockwise. pan, tilt: on the
#: spot, to the right and up. closer: towards the subject (log 2 halves the distance). forward, right, up: along the
#: camera's own axes. zoom: longer focal length.
MOTIONS = ("yaw", "pitch", "roll", "pan", "tilt", "closer", "forward", "right", "up", "zoom")
COLUMN = {name: index for index, name in enumerate(MOTIONS)}

Rig = Float64[np.ndarray, "*batch motion=10"]


def rig_delta(**motions: float) -> Float64[np.ndarray, " 10"]:
    """A rig state with the named motions set."""
    state = np.zeros(len(MOTIONS))
    for name, value in motions.items():
        state[COLUMN[name]] = value
    return state


def rotation(axis: int, angle_rad: Float64[np.ndarray, "*batch"]) -> Float64[np.ndarray, "*batch 3 3"]:
    """Right-handed rotation about x (0), y (1) or z (2)."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    R = np.zeros((*np.shape(angle_rad), 3, 3))
    R[..., axis, axis] = 1
    R[..., i, i], R[..., i, j] = c, -s
    R[..., j, i], R[..., j, j] = s, c
    return R


def rig_poses(rig: Float64[np.ndarray, "*batch 10"], subject: Subject) -> Float64[np.ndarray, "*batch 4 4"]:
    """cam_from_world (OpenCV axes; the world is the first source camera) of rig states.

    Turning around the subject keeps the subject where it stands in the camera, so that it stays on its pixel:
    x_cam = R (x - P) + P scaled by the distance, then the camera's own moves and turns.
    """
    yaw, pitch, roll, pan, tilt, closer, forward, right, up, _ = (rig[..., i] for i in range(len(MOTIONS)))
    R = rotation(0, pitch) @ rotation(1, yaw)
    P = subject.point
    t = np.exp(-closer)[..., None] * P - R @ P - np.stack([right, -up, forward], axis=-1)
    turn = rotation(2, roll) @ rotation(0, -tilt) @ rotation(1, -pan)
    return rigid(turn @ R, (turn @ t[..., None])[..., 0])


def rig_intrinsics(rig: Float64[np.ndarray, "time 10"], K: Float[np.ndarray, "3 3"]) -> Float32[np.ndarray, "time 3 3"]:
    """K per frame: the source's, with both focal lengths multiplied by the zoom."""
    out = np.repeat(K[None].astype(np.float64), len(rig), axis=0)
    out[:, :2, :2] *= np.exp(rig[:, COLUMN["zoom"]])[:, None, None]
    return out.astype(np.float32)
