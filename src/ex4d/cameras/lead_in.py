"""A few frames from the source camera to where a path starts, so that image-to-video models get a clean first frame."""

from __future__ import annotations

import numpy as np

from ex4d.errors import InputError
from ex4d.geometry.frames import eye_in_world, rigid
from ex4d.geometry.rotations import slerp
from ex4d.types import CameraPath


def with_lead_in(path: CameraPath, num_frames: int) -> CameraPath:
    """`num_frames` poses from the identity to the path's first pose, eased, time standing still, then the path itself.

    Rotation turns about one axis, the camera centre moves straight.
    """
    if num_frames < 0:
        raise InputError(f"a lead-in of {num_frames} frames", "0 or more", "--lead-in 16")
    if num_frames == 0:
        return path
    share = np.arange(num_frames) / num_frames
    share = share * share * (3 - 2 * share)
    first = path.cam_from_world[0]
    R = slerp(np.tile(np.eye(3), (num_frames, 1, 1)), np.tile(first[:3, :3], (num_frames, 1, 1)), share)
    poses = rigid(R, -(R @ (eye_in_world(first) * share[:, None])[..., None])[..., 0])
    return CameraPath(
        np.concatenate([poses, path.cam_from_world]),
        np.concatenate([np.repeat(path.K[:1], num_frames, axis=0), path.K]),
        path.size_hw,
        np.concatenate([np.repeat(path.source_time[:1], num_frames), path.source_time]),
        path.name,
    )
