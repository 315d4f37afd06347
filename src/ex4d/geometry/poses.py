"""What a new camera path is relative to: each frame's own source camera, or the world."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from ex4d.geometry.frames import invert_rigid
from ex4d.geometry.rotations import slerp


def poses_at(
    cam_from_world: Float64[np.ndarray, "time 4 4"], time: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n 4 4"]:
    """Poses at fractional frame times: centres interpolate linearly, rotations along the shorter arc; ends are held."""
    time = np.clip(np.asarray(time, np.float64), 0, len(cam_from_world) - 1)
    low = time.astype(int)
    high = np.minimum(low + 1, len(cam_from_world) - 1)
    part = (time - low)[:, None]
    world_from_low, world_from_high = invert_rigid(cam_from_world[low]), invert_rigid(cam_from_world[high])
    world_from_cam = world_from_low.copy()
    world_from_cam[:, :3, 3] += part * (world_from_high[:, :3, 3] - world_from_low[:, :3, 3])
    world_from_cam[:, :3, :3] = slerp(world_from_low[:, :3, :3], world_from_high[:, :3, :3], part[:, 0])
    return np.where((part == 0)[:, :, None], cam_from_world[low], invert_rigid(world_from_cam))
