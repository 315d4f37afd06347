"""NeoVerse trajectory JSON: operations at key frames, key matrices, or an npz of matrices.

Convention: camera to world 4x4, OpenCV axes, reconstruction units. Mode "relative" (default): on top of the moving source
camera; "global": in the world of its first frame. Key-frame operations are deltas on the pose before, multiplied left to
right; rotations are joined by slerp, positions by straight lines. `zoom_ratio` is the focal length at the last frame over
that at the first, growing linearly. Output is 16 fps. Missing parameters of an operation mean angle 30, distance 0.1,
orbit_radius 0.5. (IamCreateAI/NeoVerse bb97880d, diffsynth/utils/auxiliary.py)
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.formats.base import (  # fmt: skip
    Format,
    Probe,
    ReadOptions,
    Tracks,
    dump_json,
    load_json,
    load_npz,
    matrices,
    one_track,
    tidy_list,
)
from ex4d.cameras.formats.track import CameraTrack, invert_affine, relative_zoom
from ex4d.cameras.rig import rotation
from ex4d.errors import InputError
from ex4d.geometry.frames import rigid
from ex4d.geometry.rotations import slerp

FPS = Fraction(16)
NUM_FRAMES = 81

#: operation -> (rotation axis, its sign) and (translation axis, its sign); orbit has both, around (0, 0, orbit_radius).
_TURNS = {"pan_right": (1, 1), "pan_left": (1, -1), "tilt_up": (0, 1), "tilt_down": (0, -1)}
_MOVES = {"move_right": (0, 1), "move_left": (0, -1), "push_in": (2, 1), "pull_out": (2, -1), "boom_up": (1, -1), "boom_down": (1, 1)}  # fmt: skip
_ORBITS = {"orbit_right": 1, "orbit_left": -1}


def detect(probe: Probe) -> bool:
    """Key frames that are single-key objects of operations, or a trajectory of matrices."""
    if probe.keys("frame_indices", "frame_matrices") or {"frame_indices", "frame_matrices"} <= set(probe.npz):
        return True
    if not isinstance(probe.json, dict):
        return False
    trajectory, keys = probe.json.get("trajectory"), probe.json.get("keyframes")
    if isinstance(trajectory, dict) and ("file" in trajectory or "frame_matrices" in trajectory):
        return True
    return isinstance(keys, list) and bool(keys) and all(_is_operation_key(key) for key in keys)


def _is_operation_key(key: Any) -> bool:
    return isinstance(key, dict) and len(key) == 1 and next(iter(key)).isdigit() and isinstance(next(iter(key.values())), list)  # fmt: skip


def read(path: Path, options: ReadOptions) -> Tracks:
    """The dense path over `num_frames` of the file."""
    if path.suffix == ".npz":
        arrays = load_npz(path, "frame_indices", "frame_matrices")
        document: dict[str, Any] = {"num_frames": len(arrays["frame_matrices"])}
        keys = (arrays["frame_indices"].astype(np.float64), matrices(arrays["frame_matrices"], path))
    else:
        document = load_json(path)
        keys = _keys(document, path)
    n = options.num_frames or int(document.get("num_frames", NUM_FRAMES))
    world_from_cam = dense(*keys, n)
    zoom = np.linspace(1.0, float(document.get("zoom_ratio", 1.0)), n)
    extras = {"document": document, "dense": world_from_cam, "num_frames": n}
    return {"": CameraTrack(invert_affine(world_from_cam), zoom=zoom, fps=FPS, extras=extras)}


def _keys(document: dict[str, Any], path: Path) -> tuple[np.ndarray, np.ndarray]:
    if "keyframes" in document:
        return _operation_keys(document, path)
    trajectory = document.get("trajectory", {})
    if "file" in trajectory:
        file = _find_npz(str(trajectory["file"]), path)
        arrays = load_npz(file, "frame_indices", "frame_matrices")
        return arrays["frame_indices"].astype(np.float64), matrices(arrays["frame_matrices"], file)
    if not {"frame_indices", "frame_matrices"} <= set(trajectory):
        raise InputError(f"{path} has neither keyframes nor a trajectory of matrices", "one of them", "export it again")
    indices, poses = np.array(trajectory["frame_indices"], np.float64), matrices(trajectory["frame_matrices"], path)
    if len(indices) != len(poses) or indices[0] != 0 or (np.diff(indices) <= 0).any():
        raise InputError(f"{path} has frame_indices {trajectory['frame_indices']}", "0 first, ascending, one per matrix", "repair them")  # fmt: skip
    return indices, poses


def _find_npz(name: str, path: Path) -> Path:
    for candidate in (Path(name), path.parent / name, path.parent / Path(name).name):
        if candidate.is_file():
            return candidate
    raise InputError(f"{path} names {name}, which is not here", "that npz beside the JSON", f"put it at {path.parent / Path(name).name}")  # fmt: skip


def _operation_keys(document: dict[str, Any], path: Path) -> tuple[np.ndarray, np.ndarray]:
    frames, poses, pose = [], [], np.eye(4)
    for key in document["keyframes"]:
        frame, operations = next(iter(key.items()))
        if not frame.isdigit():
            raise InputError(f"{path} has the key frame {frame!r}", "whole numbers", "repair it")
        for operation in operations:
            name, given = next(iter(operation.items()))
            pose = pose @ operation_matrix(name, given, path)
        frames.append(float(frame))
        poses.append(pose)
    last = int(document.get("num_frames", NUM_FRAMES)) - 1
    if len(frames) < 2 or frames[0] != 0 or frames[-1] != last or (np.diff(frames) <= 0).any():
        raise InputError(f"{path} has key frames {[int(f) for f in frames]}", f"0 to {last}, ascending", "repair them")
    return np.array(frames), np.stack(poses)


def operation_matrix(name: str, given: dict[str, Any], path: Path) -> Float64[np.ndarray, "4 4"]:
    """Camera to world of one operation."""
    angle = np.array(np.radians(float(given.get("angle", 30))))
    distance, radius = float(given.get("distance", 0.1)), float(given.get("orbit_radius", 0.5))
    pose = np.eye(4)
    if name in _TURNS:
        axis, sign = _TURNS[name]
        pose[:3, :3] = rotation(axis, np.array(sign * angle))
    elif name in _MOVES:
        axis, sign = _MOVES[name]
        pose[axis, 3] = sign * distance
    elif name in _ORBITS:
        turn = _ORBITS[name] * angle
        pose[:3, :3] = rotation(1, np.array(-turn))
        pose[:3, 3] = radius * np.sin(turn), 0, radius * (1 - np.cos(turn))
    elif name != "static":
        raise InputError(f"{path} has the operation {name!r}", f"one of {', '.join([*_TURNS, *_MOVES, *_ORBITS, 'static'])}", "repair it")  # fmt: skip
    return pose


def dense(
    indices: Float64[np.ndarray, " keys"], poses: Float64[np.ndarray, "keys 4 4"], num_frames: int
) -> Float64[np.ndarray, "time 4 4"]:
    """Every frame; as many matrices as frames are taken as they are. Index times stretch to the last index."""
    if len(poses) == num_frames:
        return poses
    share = np.linspace(0, 1, num_frames) * indices[-1]
    right = np.clip(np.searchsorted(indices, share, side="right"), 1, len(indices) - 1)
    local = (share - indices[right - 1]) / (indices[right] - indices[right - 1])
    t = np.stack([np.interp(share, indices, poses[:, i, 3]) for i in range(3)], axis=-1)
    return rigid(slerp(poses[right - 1, :3, :3], poses[right, :3, :3], local), t)


def write(path: Path, tracks: Tracks) -> None:
    """One matrix a frame, or the document it was read from when nothing has changed."""
    track = one_track(tracks, "a NeoVerse JSON")
    if "document" in track.extras and "file" not in track.extras["document"].get("trajectory", {"file": ""}):
        document = track.extras["document"]
    elif "keyframes" in track.extras.get("document", {}):
        document = track.extras["document"]
    else:
        document = None
    if document is None or not np.allclose(track.world_from_cam, track.extras["dense"], atol=1e-12):
        document = _document(track)
    path.write_text(dump_json(document), encoding="utf-8")


def _document(track: CameraTrack) -> dict[str, Any]:
    zoom = relative_zoom(track)
    if np.abs(zoom - np.linspace(zoom[0], zoom[-1], len(zoom))).max() > 1e-6 or abs(zoom[0] - 1) > 1e-6:
        raise InputError("a lens that does not zoom evenly, for NeoVerse's zoom_ratio", "an even zoom or none", "re10k or ex4d, which hold every frame's lens")  # fmt: skip
    old = track.extras.get("document", {})
    return {
        "name": old.get("name", "path"),
        "mode": old.get("mode", "relative"),
        "num_frames": len(track),
        "zoom_ratio": float(zoom[-1]),
        "use_first_frame": bool(old.get("use_first_frame", True)),
        "trajectory": {
            "frame_indices": list(range(len(track))),
            "frame_matrices": [tidy_list(pose) for pose in track.world_from_cam],
        },
    }


FORMAT = Format(
    name="neoverse",
    title="NeoVerse trajectory JSON",
    suffix=".json",
    convention="camera to world 4x4 per key frame or operations on it, OpenCV axes, on top of the source camera; focal ratio, 16 fps",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"zoom ramp"}),
)
