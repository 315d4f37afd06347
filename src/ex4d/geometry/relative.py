"""What a new camera path is relative to: each frame's own source camera, or the world."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float64

from ex4d.errors import InputError
from ex4d.geometry.frames import invert_rigid
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
    turn = np.swapaxes(world_from_low[:, :3, :3], -1, -2) @ world_from_high[:, :3, :3]
    world_from_cam[:, :3, :3] = world_from_low[:, :3, :3] @ rotation_from_vector(part * rotation_vector(turn))
    return np.where((part == 0)[:, :, None], cam_from_world[low], invert_rigid(world_from_cam))


def rotation_vector(R: Float64[np.ndarray, "*batch 3 3"]) -> Float64[np.ndarray, "*batch 3"]:
    """Axis times angle in radians (log of SO(3)), for angles below pi; exact to rounding for small ones."""
    skew = np.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], axis=-1)
    sine = 0.5 * np.linalg.norm(skew, axis=-1)
    angle = np.arctan2(sine, 0.5 * (np.trace(R, axis1=-2, axis2=-1) - 1))
    factor = np.where(sine > 1e-9, angle / np.where(sine > 1e-9, 2 * sine, 1), 0.5)
    return skew * factor[..., None]


def rotation_from_vector(v: Float64[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3 3"]:
    """Rodrigues' formula: exp of so(3)."""
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    zero = np.zeros_like(v[..., 0])
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    rows = [np.stack(row, axis=-1) for row in ([zero, -z, y], [z, zero, -x], [-y, x, zero])]
    K = np.stack(rows, axis=-2)
    return np.eye(3) + np.sinc(angle / np.pi) * K + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (K @ K)
