"""Reshoot-Anything `cam_info.json` (and its ancestor, Uni3C's).

Convention: `extrinsic` is a list of world to camera 4x4 matrices, OpenCV axes, metres: entry 0 is the SOURCE camera and the
path begins at entry 1 (any consistent world). `intrinsic` 3x3 pixels of `height`, `width`, one for all frames. Uni3C's files
have the same keys but no extra source entry; a file without `k_resolution` is read as Uni3C's. No fps.
(morphicfilms/video-to-video 6928767c, visualizer/export.py; alibaba-damo-academy/Uni3C 75ed6e21, cam_render.py)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import (
    Format,
    Probe,
    ReadOptions,
    Tracks,
    dump_json,
    load_json,
    matrices,
    one_track,
    tidy_list,
)
from ex4d.cameras.formats.track import CameraTrack, invert_affine, need_intrinsics
from ex4d.errors import InputError


def detect(probe: Probe) -> bool:
    """`intrinsic`, `extrinsic`, `height` and `width`."""
    return probe.keys("intrinsic", "extrinsic", "height", "width")


def read(path: Path, options: ReadOptions) -> Tracks:
    """The target poses, in the world of the source camera."""
    document = load_json(path)
    try:
        K = np.array(document["intrinsic"], np.float64)
        size_hw = (int(document["height"]), int(document["width"]))
        poses = matrices(document["extrinsic"], path)
        if K.shape != (3, 3):
            raise ValueError(f"intrinsic of shape {K.shape}")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} lacks or breaks {error}", "intrinsic 3x3, extrinsic, height, width", "export it again") from error  # fmt: skip
    source = poses[0]
    uni3c = "k_resolution" not in document
    targets = poses if uni3c else poses[1:]
    if not len(targets):
        raise InputError(f"{path} has one extrinsic", "the source camera and at least one target", "export it again")
    extras = {
        "source": source,
        "uni3c": uni3c,
        "k_resolution": document.get("k_resolution"),
        "K": document["intrinsic"],
    }
    K_all = np.repeat(K[None], len(targets), axis=0)
    return {"": CameraTrack(targets @ invert_affine(source), K_all, size_hw, unit="metric", extras=extras)}


def write(path: Path, tracks: Tracks) -> None:
    """The source camera first (the identity, unless the file it came from had another), then the path."""
    track = one_track(tracks, "a cam_info.json")
    K, (h, w) = need_intrinsics(track, "a cam_info.json")
    source = track.extras.get("source", np.eye(4))
    poses = list(track.cam_from_world @ source)
    document = {
        "intrinsic": tidy_list(K[0]),
        "extrinsic": [tidy_list(pose) for pose in (poses if track.extras.get("uni3c") else [source, *poses])],
        "height": h,
        "width": w,
    }
    if not track.extras.get("uni3c"):
        document["k_resolution"] = track.extras.get("k_resolution") or [h, w]
    path.write_text(dump_json(document), encoding="utf-8")


FORMAT = Format(
    name="cam-info",
    title="Reshoot-Anything / Uni3C cam_info.json",
    suffix=".json",
    convention="world to camera 4x4, OpenCV axes, metres; entry 0 is the source camera, the path begins at entry 1; one K in pixels",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"one lens", "size"}),
)
