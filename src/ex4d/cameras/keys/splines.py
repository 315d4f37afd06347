"""Splines through rigid motions.

A path between keys is a cubic Bezier on SE(3): straight lines are replaced by screw motions, so two keys of an orbit give the
orbit's own arc, and four control poses per span are reduced by de Casteljau's construction. Neighbouring spans share their
twist (velocity in the camera's own frame), which makes the path once differentiable and lets it pass through every key.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from ex4d.geometry.frames import invert_rigid, rotation_angle_rad
from ex4d.geometry.rotations import screw, se3_exp, se3_log


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
