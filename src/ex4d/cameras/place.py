"""Where a path stands: in the world of the source camera's poses, or riding on the source camera's own motion."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float64

from ex4d.errors import InputError
from ex4d.geometry.poses import poses_at
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
