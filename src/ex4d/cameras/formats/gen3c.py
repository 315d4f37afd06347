"""GEN3C camera path JSON (its instant-ngp based editor): keys, not frames.

Convention: `path` of {R: quaternion x y z w, T, fov, timestamp}; camera to world, OpenCV axes, in the world of the poses it
was seeded with; `fov` is vertical, degrees. Timestamps are the ends of segments in seconds: key 0 stands at 0, key i at
timestamp[i-1]; unless they ascend from above 0 they are replaced by even ones over 3 s. `spline_order` 1 joins keys by
straight lines in T, R (normalised) and fov; 3 (the default) is a uniform cubic B-spline that misses its keys. No fps or size.
Orders 0 and 2 could not be established and are refused. (nv-tlabs/GEN3C db2ffe12, gui/src/camera_path.cu)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.formats.base import (
    Format,
    Probe,
    ReadOptions,
    Tracks,
    dump_json,
    load_json,
    one_track,
    tidy,
    tidy_list,
)
from ex4d.cameras.formats.track import CameraTrack, focal_over_height, invert_affine
from ex4d.errors import InputError
from ex4d.geometry.frames import rigid
from ex4d.geometry.quaternion import quaternion_from_rotation, rotation_from_quaternion

#: The editor's length of a path without usable timestamps, and its server's fps where none is said.
DEFAULT_SECONDS, DEFAULT_FPS = 3.0, 24.0


def detect(probe: Probe) -> bool:
    """`path` of objects with R, T and fov."""
    if not probe.keys("path") or not isinstance(probe.json["path"], list) or not probe.json["path"]:
        return False
    return isinstance(probe.json["path"][0], dict) and {"R", "T", "fov"} <= set(probe.json["path"][0])


def read(path: Path, options: ReadOptions) -> Tracks:
    """The sampled path: `options.num_frames`, else one frame per key (order 1) or the clip's length at 24 fps."""
    document = load_json(path)
    try:
        keys = document["path"]
        table = np.array([[*key["R"], *key["T"], float(key["fov"]), float(key.get("timestamp", 0))] for key in keys])
        if table.ndim != 2 or table.shape[1] != 9:
            raise ValueError("R must have 4 numbers, T 3")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} lacks or breaks {error}", "path of R (4), T (3), fov, timestamp", "export it again") from error  # fmt: skip
    order = int(document.get("spline_order", 3))
    if order not in (1, 3):
        raise InputError(f"{path} has spline_order {order}", "1 or 3", "set spline_order to 1 in the editor")
    times, seconds = key_times(table[:, 8])
    n = options.num_frames or (len(table) if order == 1 else max(math.ceil(seconds * DEFAULT_FPS), 1))
    q, T, fov = _sampled(table, times, np.linspace(0, times[-1], n), order)
    world_from_cam = rigid(rotation_from_quaternion(q[:, [3, 0, 1, 2]]), T)
    focal = 0.5 / np.tan(np.radians(fov) / 2)
    extras = {"document": document, "world_from_cam": world_from_cam, "focal": focal}
    return {"": CameraTrack(invert_affine(world_from_cam), focal_over_height=focal, world="file", extras=extras)}


def key_times(stamps: Float64[np.ndarray, " keys"]) -> tuple[Float64[np.ndarray, " keys"], float]:
    """When each key is reached, and the seconds of the whole."""
    if not (stamps[0] > 0 and (np.diff(stamps) > 0).all()):
        stamps = DEFAULT_SECONDS * np.arange(1, len(stamps) + 1) / len(stamps)
    return np.concatenate([[0.0], stamps[:-1]]), float(stamps[-1])


def _sampled(
    table: np.ndarray, times: np.ndarray, at: np.ndarray, order: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    q = table[:, :4].copy()
    for i in range(1, len(q)):  # neighbours on one side, so that blending takes the short way
        if q[i] @ q[i - 1] < 0:
            q[i] *= -1
    values = np.concatenate([q, table[:, 4:8]], axis=1)
    if len(values) == 1:
        blended = np.repeat(values, len(at), axis=0)
    else:
        span = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(times) - 2)
        s = ((at - times[span]) / (times[span + 1] - times[span]))[:, None]
        if order == 1:
            blended = values[span] * (1 - s) + values[span + 1] * s
        else:
            p = [values[np.clip(span + k, 0, len(values) - 1)] for k in (-1, 0, 1, 2)]
            weights = ((1 - s) ** 3, 3 * s**3 - 6 * s**2 + 4, -3 * s**3 + 3 * s**2 + 3 * s + 1, s**3)
            blended = np.sum([w * v for w, v in zip(weights, p, strict=True)], axis=0) / 6
    unit = blended[:, :4] / np.linalg.norm(blended[:, :4], axis=1, keepdims=True)
    return unit, blended[:, 4:7], blended[:, 7]


def write(path: Path, tracks: Tracks) -> None:
    """One key a frame with spline_order 1, so that the editor shows the path as it is; an unchanged document as it was."""
    track = one_track(tracks, "a GEN3C JSON")
    path.write_text(dump_json(_document(track)), encoding="utf-8")


def _document(track: CameraTrack) -> Any:
    world_from_cam, focal = track.world_from_cam, focal_over_height(track)
    if "document" in track.extras and len(track) == len(track.extras["focal"]):
        same = np.allclose(world_from_cam, track.extras["world_from_cam"], atol=1e-12)
        if same and np.allclose(focal, track.extras["focal"], rtol=1e-12):
            return track.extras["document"]
    q = quaternion_from_rotation(world_from_cam[:, :3, :3])[:, [1, 2, 3, 0]]
    fps = float(track.fps) if track.fps else DEFAULT_FPS
    keys = [
        {"R": tidy_list(q[i]), "T": tidy_list(world_from_cam[i, :3, 3]), "fov": tidy(fov), "timestamp": (i + 1) / fps}
        for i, fov in enumerate(np.degrees(2 * np.arctan(0.5 / focal)))
    ]
    return {"loop": False, "time": 0.0, "path": keys, "duration_seconds": len(track) / fps, "spline_order": 1}


FORMAT = Format(
    name="gen3c",
    title="GEN3C camera path JSON",
    suffix=".json",
    convention="camera to world as quaternion x y z w and position, OpenCV axes; vertical fov in degrees; keys joined by splines",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"fov"}),
)
