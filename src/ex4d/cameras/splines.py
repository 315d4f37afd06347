"""Rotations, rigid motions and splines through them.

A path between keys is a cubic Bezier on SE(3): straight lines are replaced by screw motions, so two keys of an orbit give the
orbit's own arc, and four control poses per span are reduced by de Casteljau's construction. Neighbouring spans share their
twist (velocity in the camera's own frame), which makes the path once differentiable and lets it pass through every key.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from ex4d.geometry.frames import invert_rigid, rigid, rotation_angle_rad
from ex4d.geometry.quaternion import quaternion_from_rotation

_SMALL = 1e-7


def _hat(v: Float64[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3 3"]:
    x, y, z = np.moveaxis(v, -1, 0)
    o = np.zeros_like(x)
    return np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], -2)


def so3_exp(w: Float64[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3 3"]:
    """Rotation by |w| radians about w (Rodrigues)."""
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    W = _hat(w)
    small = angle < _SMALL
    safe = np.where(small, 1.0, angle)
    a = np.where(small, 1.0, np.sin(safe) / safe)
    b = np.where(small, 0.5, (1 - np.cos(safe)) / safe**2)
    return np.eye(3) + a * W + b * (W @ W)


def so3_log(R: Float64[np.ndarray, "*batch 3 3"]) -> Float64[np.ndarray, "*batch 3"]:
    """The shortest rotation vector, good up to and at half a turn."""
    q = quaternion_from_rotation(R)
    v, w = q[..., 1:], q[..., :1]
    length = np.linalg.norm(v, axis=-1, keepdims=True)
    small = length < _SMALL
    return v * np.where(small, 2.0, 2 * np.arctan2(length, w) / np.where(small, 1.0, length))


def _left_jacobian(w: Float64[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3 3"]:
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    W = _hat(w)
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    b = np.where(small, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    c = np.where(small, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    return np.eye(3) + b * W + c * (W @ W)


def se3_exp(twist: Float64[np.ndarray, "*batch 6"]) -> Float64[np.ndarray, "*batch 4 4"]:
    """The rigid motion of a twist (rotation vector, then velocity)."""
    w, v = twist[..., :3], twist[..., 3:]
    return rigid(so3_exp(w), (_left_jacobian(w) @ v[..., None])[..., 0])


def se3_log(T: Float64[np.ndarray, "*batch 4 4"]) -> Float64[np.ndarray, "*batch 6"]:
    """The twist of a rigid motion: the inverse of `se3_exp` for turns up to half a turn."""
    w = so3_log(T[..., :3, :3])
    v = np.linalg.solve(_left_jacobian(w), T[..., :3, 3:])[..., 0]
    return np.concatenate([w, v], axis=-1)


def slerp(
    start: Float64[np.ndarray, "*batch 3 3"],
    stop: Float64[np.ndarray, "*batch 3 3"],
    share: Float64[np.ndarray, "*batch"],
) -> Float64[np.ndarray, "*batch 3 3"]:
    """Rotation at a share of the shortest way."""
    return start @ so3_exp(so3_log(np.swapaxes(start, -1, -2) @ stop) * share[..., None])


def screw(
    start: Float64[np.ndarray, "*batch 4 4"],
    stop: Float64[np.ndarray, "*batch 4 4"],
    share: Float64[np.ndarray, "*batch"],
) -> Float64[np.ndarray, "*batch 4 4"]:
    """Pose at a share of the screw motion from one pose to another (world from camera)."""
    return start @ se3_exp(se3_log(invert_rigid(start) @ stop) * share[..., None])


def spline_poses(
    keys: Float64[np.ndarray, "keys 4 4"],
    key_times: Float64[np.ndarray, " keys"],
    times: Float64[np.ndarray, " time"],
    smooth: bool = True,
) -> Float64[np.ndarray, "time 4 4"]:
    """Poses (world from camera) at `times` along a path through every key.

    Args:
        keys: World from camera.
        key_times: Ascending.
        times: Clamped to the keys' range.
        smooth: False joins keys by plain screw motions.
    """
    if len(keys) == 1:
        return np.repeat(keys, len(times), axis=0)
    times = np.clip(times, key_times[0], key_times[-1])
    span = np.clip(np.searchsorted(key_times, times, side="right") - 1, 0, len(keys) - 2)
    length = np.diff(key_times)
    share = (times - key_times[span]) / length[span]
    a, d = keys[span], keys[span + 1]
    if not smooth or len(keys) == 2:
        return screw(a, d, share)
    velocity = _key_twists(keys, length)
    b = a @ se3_exp(velocity[span] * (length[span] / 3)[:, None])
    c = d @ se3_exp(-velocity[span + 1] * (length[span] / 3)[:, None])
    ab, bc, cd = screw(a, b, share), screw(b, c, share), screw(c, d, share)
    return screw(screw(ab, bc, share), screw(bc, cd, share), share)


def _key_twists(keys: np.ndarray, length: np.ndarray) -> Float64[np.ndarray, "keys 6"]:
    """Catmull-Rom on a group: the twist at a key is the mean of its two spans', weighted as a parabola's would be."""
    rate = se3_log(invert_rigid(keys[:-1]) @ keys[1:]) / length[:, None]
    inner = (rate[:-1] * length[1:, None] + rate[1:] * length[:-1, None]) / (length[:-1] + length[1:])[:, None]
    return np.concatenate([rate[:1], inner, rate[-1:]])


def path_lengths(poses: Float64[np.ndarray, "time 4 4"], turn_length: float) -> Float64[np.ndarray, " steps"]:
    """Length of each step (world from camera): the eye's way, or, where it does not move, the turn times `turn_length`."""
    way = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=-1)
    turn = rotation_angle_rad(np.swapaxes(poses[:-1, :3, :3], -1, -2) @ poses[1:, :3, :3]) * turn_length
    return np.where(way > 1e-6 * turn_length, way, turn)


def constant_speed_times(
    keys: Float64[np.ndarray, "keys 4 4"],
    key_times: Float64[np.ndarray, " keys"],
    num_frames: int,
    turn_length: float,
    smooth: bool = True,
    samples: int = 1024,
) -> Float64[np.ndarray, " time"]:
    """Times at which the spline's equal steps along its own length lie, first and last key included."""
    fine = np.linspace(key_times[0], key_times[-1], samples)
    done = np.concatenate([[0.0], np.cumsum(path_lengths(spline_poses(keys, key_times, fine, smooth), turn_length))])
    if done[-1] <= 0:
        return np.linspace(key_times[0], key_times[-1], num_frames)
    strictly = np.concatenate([[True], np.diff(done) > 0])
    return np.interp(np.linspace(0, done[-1], num_frames), done[strictly], fine[strictly])
