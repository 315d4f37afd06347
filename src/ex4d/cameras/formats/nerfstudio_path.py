"""nerfstudio viewer `camera_path.json`.

Convention: `camera_path[]` of camera_to_world, 16 numbers row by row, OpenGL camera axes, in the viewer's (re-oriented, rescaled)
world; `fov` vertical, degrees; `render_height`, `render_width`. The renderer's fps is len / `seconds`. `keyframes` serve the
viewer only: a flat row-major list in the current one, a JSON string in column order in the old one; they are kept as found.
(nerfstudio-project/nerfstudio 50e0e3c7, nerfstudio/cameras/camera_paths.py)
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.cameras.formats.base import (  # fmt: skip
    Format,
    Probe,
    ReadOptions,
    Tracks,
    dump_json,
    load_json,
    matrices,
    one_track,
    tidy,
    tidy_list,
)
from ex4d.cameras.formats.track import CameraTrack, focal_over_height, invert_affine
from ex4d.errors import InputError
from ex4d.geometry.frames import GL_FROM_CV


def detect(probe: Probe) -> bool:
    """`camera_path` of `camera_to_world`."""
    path = probe.json.get("camera_path") if isinstance(probe.json, dict) else None
    return isinstance(path, list) and bool(path) and isinstance(path[0], dict) and "camera_to_world" in path[0]


def read(path: Path, options: ReadOptions) -> Tracks:
    """The dense path; K from the vertical field of view and the render size."""
    document = load_json(path)
    try:
        entries = document["camera_path"]
        flat = [np.array(entry["camera_to_world"], np.float64).reshape(4, 4) for entry in entries]
        focal = 0.5 / np.tan(np.radians([float(entry["fov"]) for entry in entries]) / 2)
        h, w = int(document["render_height"]), int(document["render_width"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} lacks or breaks {error}", "camera_path of camera_to_world (16) and fov, render_height, render_width", "export it again") from error  # fmt: skip
    poses = invert_affine(matrices(flat, path) @ GL_FROM_CV)
    K = np.tile(np.array([[1.0, 0, w / 2], [0, 1.0, h / 2], [0, 0, 1]]), (len(poses), 1, 1))
    K[:, [0, 1], [0, 1]] = (focal * h)[:, None]
    seconds = float(document.get("seconds") or 0)
    fps = Fraction(len(poses) / seconds).limit_denominator(1001) if seconds > 0 else None
    return {"": CameraTrack(poses, K, (h, w), fps=fps, world="file", extras={"document": document})}


def write(path: Path, tracks: Tracks) -> None:
    """Two key frames, first and last, for the viewer; a read file keeps its own."""
    track = one_track(tracks, "a camera_path.json")
    h, w = track.size_hw or (0, 0)
    if not h:
        raise InputError(
            "cameras without a picture size, for a camera_path.json", "height and width", "--size 1024x576"
        )
    fov_deg = np.degrees(2 * np.arctan(0.5 / focal_over_height(track)))
    c2w = track.world_from_cam @ GL_FROM_CV
    old = track.extras.get("document")
    entries: list[dict[str, Any]] = []
    for i, pose in enumerate(c2w):
        kept = dict(old["camera_path"][i]) if old and len(old["camera_path"]) == len(c2w) else {"aspect": w / h}
        entries.append(kept | {"camera_to_world": tidy_list(pose.ravel()), "fov": tidy(float(fov_deg[i]))})
    fps = track.fps or Fraction(24)
    document = dict(old) if old else _fresh(c2w, fov_deg, w / h, float(fps))
    document |= {"render_height": h, "render_width": w, "seconds": float(len(c2w) / fps), "camera_path": entries}
    path.write_text(dump_json(document), encoding="utf-8")


def _fresh(c2w: np.ndarray, fov_deg: np.ndarray, aspect: float, fps: float) -> dict[str, Any]:
    keys = [
        {
            "matrix": tidy_list(c2w[i].ravel()),
            "fov": tidy(float(fov_deg[i])),
            "aspect": aspect,
            "override_transition_enabled": False,
            "override_transition_sec": None,
        }
        for i in (0, -1)
    ]
    return {
        "default_fov": tidy(float(fov_deg[0])),
        "default_transition_sec": 2.0,
        "keyframes": keys,
        "camera_type": "perspective",
        "fps": fps,
        "is_cycle": False,
        "smoothness_value": 0.0,
    }


FORMAT = Format(
    name="nerfstudio-path",
    title="nerfstudio camera_path.json",
    suffix=".json",
    convention="camera to world 4x4 row-major, OpenGL axes, the viewer's own world; vertical fov in degrees; fps = frames / seconds",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"fov", "size", "fps"}),
)
