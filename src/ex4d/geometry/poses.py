"""What a new camera path is relative to: each frame's own source camera, or the world."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float64

from ex4d.errors import InputError
from ex4d.geometry.frames import invert_rigid
from ex4d.geometry.rotations import slerp
from ex4d.types import CameraPath

RelativeTo = Literal["source", "world"]


def place_path(
    path: CameraPath, source_cam_from_world: Float64[np.ndarray, "time 4 4"] | None, relative_to: RelativeTo = "source"
) -> CameraPath:
    """The path in the world that the source cameras live in.

    "source": the path is written in the axes of the source camera of the frame it shows (`source_time`), so the new camera
    rides along: new_from_world = new_from_source @ source_from_world. A path that stays at the identity then returns the input
    video whatever its camera does. "world": the path is in the world already (the axes of the first source camera) and comes
    back unchanged: the new camera ignores how the source moved. Without source poses both are the same.

    Args:
        path: Poses relative to what `relative_to` says.
        source_cam_from_world: Source poses of the whole clip, or None when the camera stands still.
    """
    if relative_to not in ("source", "world"):
        raise InputError(f"relative to {relative_to!r}", "source or world", "--relative-to source")
    if source_cam_from_world is None or relative_to == "world":
        return path
    return replace(path, cam_from_world=path.cam_from_world @ poses_at(source_cam_from_world, path.source_time))


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
