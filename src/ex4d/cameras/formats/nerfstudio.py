"""nerfstudio `transforms.json` (also instant-ngp's and NeRF-synthetic's).

Convention: `frames[].transform_matrix` 4x4 camera to world, OpenGL camera axes (x right, y up, looking along -z), a world with
z up by custom. fl_x fl_y cx cy w h in pixels for all frames or per frame; instant-ngp and NeRF-synthetic files may give
camera_angle_x (radians) instead. Readers sort frames by file name and may re-orient and rescale. No fps.
(nerfstudio-project/nerfstudio 50e0e3c7, docs/quickstart/data_conventions.md)
"""

from __future__ import annotations

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
from ex4d.cameras.formats.track import CameraTrack, invert_affine, need_intrinsics
from ex4d.errors import InputError
from ex4d.geometry.frames import GL_FROM_CV
from ex4d.geometry.pinhole import focal_px

_LENS = ("fl_x", "fl_y", "cx", "cy", "w", "h")


def detect(probe: Probe) -> bool:
    """`frames` of `transform_matrix`."""
    frames = probe.json.get("frames") if isinstance(probe.json, dict) else None
    return isinstance(frames, list) and bool(frames) and isinstance(frames[0], dict) and "transform_matrix" in frames[0]


def read(path: Path, options: ReadOptions) -> Tracks:
    """Frames in the order of their file names, as nerfstudio itself reads them."""
    document = load_json(path)
    frames = document.get("frames") if isinstance(document, dict) else None
    if not isinstance(frames, list) or not frames or any("transform_matrix" not in frame for frame in frames):
        raise InputError(f"{path} has frames without a transform_matrix", "one for every frame", "export it again")
    order = sorted(range(len(frames)), key=lambda i: str(frames[i].get("file_path", f"{i:08d}")))
    ordered = [frames[i] for i in order]
    poses = invert_affine(matrices([frame["transform_matrix"] for frame in ordered], path) @ GL_FROM_CV)
    names = tuple(str(frame.get("file_path", "")) for frame in ordered)
    K, size_hw = _lens(document, ordered)
    extras = {"document": document, "order": order}
    return {"": CameraTrack(poses, K, size_hw, names=names, world="file", extras=extras)}


def _lens(document: dict[str, Any], frames: list[dict[str, Any]]) -> tuple[np.ndarray | None, tuple[int, int] | None]:
    rows = []
    for frame in frames:
        given = {key: frame.get(key, document.get(key)) for key in (*_LENS, "camera_angle_x")}
        w, h = given["w"], given["h"]
        if w is None or h is None:
            return None, None
        fl_x = given["fl_x"] or (focal_px(w, given["camera_angle_x"]) if given["camera_angle_x"] else None)
        if fl_x is None:
            return None, (round(h), round(w))
        cx, cy = (w / 2 if given["cx"] is None else given["cx"]), (h / 2 if given["cy"] is None else given["cy"])
        rows.append([[fl_x, 0, cx], [0, given["fl_y"] or fl_x, cy], [0, 0, 1]])
    return np.array(rows, np.float64), (round(h), round(w))


def write(path: Path, tracks: Tracks) -> None:
    """Every field of the file it was read from, with the new matrices; a fresh file gets names frame_00000.png."""
    track = one_track(tracks, "a transforms.json")
    c2w = track.world_from_cam @ GL_FROM_CV
    document = dict(track.extras.get("document", {}))
    if document and len(track.extras["order"]) == len(track):
        frames = [dict(frame) for frame in document["frames"]]
        for pose, index in zip(c2w, track.extras["order"], strict=True):
            frames[index]["transform_matrix"] = tidy_list(pose)
    else:
        K, (h, w) = need_intrinsics(track, "a transforms.json")
        document = {"camera_model": "OPENCV"} | _lens_fields(K[0], h, w)
        frames = []
        for i, pose in enumerate(c2w):
            own = {} if np.array_equal(K[i], K[0]) else _lens_fields(K[i], h, w)
            name = track.names[i] if track.names else f"images/frame_{i:05d}.png"
            frames.append({"file_path": name, **own, "transform_matrix": tidy_list(pose)})
    path.write_text(dump_json(document | {"frames": frames}), encoding="utf-8")


def _lens_fields(K: np.ndarray, h: int, w: int) -> dict[str, float]:
    values = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    return dict(zip(_LENS, [tidy(float(v)) for v in values] + [w, h], strict=True))


FORMAT = Format(
    name="nerfstudio",
    title="nerfstudio transforms.json",
    suffix=".json",
    convention="camera to world 4x4, OpenGL axes (y up, looking along -z), z-up world by custom; fl_x fl_y cx cy in pixels",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"lens", "size", "names"}),
)
