"""`cameras.json`, this project's own file: everything a `CameraPath` holds.

Convention: cam_from_world 4x4, OpenCV axes (x right, y down, z forward); the world is the first source camera, scene units;
K in pixels of size_hw with (0, 0) the outer corner of the first pixel; source_time in source frames, fractions allowed.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, dump_json, load_json, matrices, one_track
from ex4d.cameras.formats.track import CameraTrack, need_intrinsics
from ex4d.errors import InputError

VERSION = 1


def detect(probe: Probe) -> bool:
    """An object with axes "opencv" and frames of cam_from_world."""
    if not probe.keys("frames", "axes"):
        return False
    frames = probe.json["frames"]
    return isinstance(frames, list) and bool(frames) and "cam_from_world" in frames[0]


def read(path: Path, options: ReadOptions) -> Tracks:
    """The path, exactly."""
    document = load_json(path)
    try:
        frames, size = document["frames"], document["size_hw"]
        poses = matrices([frame["cam_from_world"] for frame in frames], path)
        K = np.array([frame["K"] for frame in frames], np.float64)
        time = np.array([frame.get("source_time", i) for i, frame in enumerate(frames)], np.float64)
        size_hw = (int(size[0]), int(size[1]))
        fps = Fraction(str(document["fps"])).limit_denominator(100_000) if document.get("fps") else None
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path} lacks or breaks {error}", "size_hw and frames of cam_from_world, K, source_time", "write it again") from error  # fmt: skip
    if document.get("axes") != "opencv":
        raise InputError(f"{path} has axes {document.get('axes')!r}", '"opencv"', "ex4d cameras convert from its real format")  # fmt: skip
    if K.shape != (len(poses), 3, 3):
        raise InputError(f"{path} has K of shape {K.shape}", f"({len(poses)}, 3, 3)", "write it again")
    world = "file" if document.get("world") == "file" else "source"
    return {"": CameraTrack(poses, K, size_hw, fps=fps, source_time=time, unit=document.get("unit", "relative"), world=world)}  # fmt: skip


def write(path: Path, tracks: Tracks) -> None:
    """Full precision: reads back bit for bit."""
    track = one_track(tracks, "cameras.json")
    K, size_hw = need_intrinsics(track, "cameras.json")
    time = track.source_time if track.source_time is not None else np.arange(float(len(track)))
    frames = [
        {"cam_from_world": pose.tolist(), "K": k.tolist(), "source_time": float(t)}
        for pose, k, t in zip(track.cam_from_world, K, time, strict=True)
    ]
    document = {"version": VERSION, "axes": "opencv", "size_hw": list(size_hw)}
    document |= {"fps": float(track.fps) if track.fps else None, "unit": track.unit}
    document |= {"world": track.world, "frames": frames}
    path.write_text(dump_json(document), encoding="utf-8")


FORMAT = Format(
    name="ex4d",
    title="this project's cameras.json",
    suffix=".json",
    convention="cam_from_world 4x4, OpenCV axes, world = first source camera, scene units; K in pixels; source time per frame",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"lens", "size", "fps", "source time", "world", "unit"}),
)
