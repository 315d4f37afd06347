"""ReCamMaster `camera_extrinsics.json`.

Convention: object frame0..frameN of cam01..cam10, each a string of four bracketed rows with a space behind. Rows 0-2 are the
camera's forward, right and up axes, row 3 its position in centimetres, all in Unreal's left-handed world (x forward,
y right, z up). Only motion relative to frame 0 has a meaning. No lens, fps or size; 81 frames are expected.
(KwaiVGI/ReCamMaster 39c0dc2e, inference_recammaster.py)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, dump_json, load_json, text_number
from ex4d.cameras.formats.track import CameraTrack, invert_affine
from ex4d.errors import InputError

#: Unreal's world (x forward, y right, z up; left-handed) to an OpenCV world (x right, y down, z forward): a reflection.
CV_WORLD_FROM_UNREAL = np.array([[0.0, 1, 0], [0, 0, -1], [1, 0, 0]])

METRES_PER_UNIT = 0.01


def is_container(probe: Probe) -> bool:
    """frame0 with a cam of bracketed rows."""
    document = probe.json
    if not (isinstance(document, dict) and isinstance(document.get("frame0"), dict)):
        return False
    return any(isinstance(value, str) and value.strip().startswith("[") for value in document["frame0"].values())


def first_raw(probe: Probe) -> Float64[np.ndarray, "4 4"]:
    """The first matrix of the container, rows as written."""
    return parse_rows(next(iter(probe.json["frame0"].values())), probe.path)


def detect(probe: Probe) -> bool:
    """The container whose rows read as numbers have determinant +1 (InfCam's have -1)."""
    return is_container(probe) and float(np.linalg.det(first_raw(probe)[:3, :3])) > 0


def parse_rows(text: Any, path: Path) -> Float64[np.ndarray, "4 4"]:
    """`[a b c d] [..] [..] [..] ` as rows."""
    try:
        rows = [[float(v) for v in row.strip(" []").split()] for row in str(text).strip().split("] [")]
        array = np.array(rows)
        if array.shape != (4, 4):
            raise ValueError(f"shape {array.shape}")
    except ValueError as error:
        raise InputError(f"{path} has a pose {str(text)[:60]!r} ({error})", "four bracketed rows of four numbers", "export it again") from error  # fmt: skip
    return array


def format_rows(rows: Float64[np.ndarray, "4 4"]) -> str:
    """The inverse of `parse_rows`, with the format's trailing space."""
    return "".join("[" + " ".join(text_number(v) for v in row) + "] " for row in rows)


def read_container(
    path: Path, world_from_raw: Float64[np.ndarray, "3 3"], build: Callable[[np.ndarray], CameraTrack]
) -> Tracks:
    """Every camera of the container; `world_from_raw` takes raw world axes to a right-handed OpenCV world."""
    document = load_json(path)
    frames: list[Any] = (
        [document.get(f"frame{i}") for i in range(len(document))] if isinstance(document, dict) else [None]
    )
    if not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(
            f"{path} lacks some of frame0..frame{max(len(frames) - 1, 0)}", "every frame", "export it again"
        )
    tracks = {}
    for name in frames[0]:
        if any(name not in frame for frame in frames):
            raise InputError(f"{path} lacks {name} in some frames", "every camera in every frame", "export it again")
        raw = np.stack([parse_rows(frame[name], path) for frame in frames])
        axes = np.stack([raw[:, 1, :3], -raw[:, 2, :3], raw[:, 0, :3]], axis=-1)  # columns right, down, forward
        world_from_cam = np.tile(np.eye(4), (len(raw), 1, 1))
        world_from_cam[:, :3, :3] = world_from_raw @ axes
        world_from_cam[:, :3, 3] = raw[:, 3, :3] @ world_from_raw.T * METRES_PER_UNIT
        tracks[name] = build(invert_affine(world_from_cam))
    return tracks


def write_container(path: Path, tracks: Tracks, raw_from_world: Float64[np.ndarray, "3 3"]) -> None:
    """The container of one or more cameras of the same length."""
    lengths = {len(track) for track in tracks.values()}
    if len(lengths) != 1:
        raise InputError(f"cameras of {sorted(lengths)} frames", "the same number in one file", "one file per length")
    document: dict[str, dict[str, str]] = {f"frame{i}": {} for i in range(lengths.pop())}
    for index, (name, track) in enumerate(tracks.items()):
        key = name if name.startswith("cam") else f"cam{index + 1:02d}"
        world_from_cam = track.world_from_cam
        axes = raw_from_world @ world_from_cam[:, :3, :3]
        for i, pose in enumerate(world_from_cam):
            rows = np.eye(4)
            rows[:3, :3] = np.stack([axes[i, :, 2], axes[i, :, 0], -axes[i, :, 1]])
            rows[3, :3] = raw_from_world @ pose[:3, 3] / METRES_PER_UNIT
            rows[:3, 3] = 0
            document[f"frame{i}"][key] = format_rows(rows)
    path.write_text(dump_json(document), encoding="utf-8")


def read(path: Path, options: ReadOptions) -> Tracks:
    """cam01, cam02, ...; metres."""
    return read_container(path, CV_WORLD_FROM_UNREAL, lambda poses: CameraTrack(poses, unit="metric", world="file"))


def write(path: Path, tracks: Tracks) -> None:
    """Unreal's axes, as the original files."""
    write_container(path, tracks, CV_WORLD_FROM_UNREAL.T)


FORMAT = Format(
    name="recammaster",
    title="ReCamMaster camera_extrinsics.json",
    suffix=".json",
    convention="camera to world as rows forward, right, up, position; Unreal world (left-handed, z up), centimetres; relative to frame 0",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset(),
)
