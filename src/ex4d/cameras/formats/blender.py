"""Blender, through a script without an add-on: `blender_export.py`.

Convention: `frames[].c2w` 16 numbers row by row, camera to world, OpenGL camera axes (x right, y up, looking along -z), Blender's
world (z up, right-handed), Blender units; `unit_scale` metres per unit. Lens per frame: lens_mm, sensor_width_mm,
sensor_height_mm, sensor_fit, shift_x, shift_y of a picture width x height with pixel_aspect_x, pixel_aspect_y.
fps is `fps` / `fps_base`. Read into an OpenCV world (y down) by turning z-up to y-down.
(lens formula: DLR-RM/BlenderProc, blenderproc/python/camera/CameraUtility.py, with the corner convention for pixels)
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
    matrices,
    one_track,
    tidy,
    tidy_list,
)
from ex4d.cameras.formats.track import CameraTrack, invert_affine, need_intrinsics
from ex4d.errors import InputError
from ex4d.geometry.frames import GL_FROM_CV

MARK = "ex4d-blender"
CONVENTION = "opengl_c2w, world z-up, right-handed"

#: Blender's world (z up) to an OpenCV world (y down, z forward): Blender's +y is forward.
CV_FROM_BLENDER = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])

#: Blender's own default sensor.
SENSOR_MM = 36.0


def detect(probe: Probe) -> bool:
    """The exporter's mark, or its frames of c2w with a lens in millimetres."""
    if not isinstance(probe.json, dict):
        return False
    frames = probe.json.get("frames")
    ours = (
        isinstance(frames, list)
        and bool(frames)
        and isinstance(frames[0], dict)
        and {"c2w", "lens_mm"} <= set(frames[0])
    )
    return probe.json.get("format") == MARK or ours


def read(path: Path, options: ReadOptions) -> Tracks:
    """Poses in metres of an OpenCV world; K in pixels."""
    document = load_json(path)
    try:
        frames = document["frames"]
        scale = float(document.get("unit_scale", 1.0))
        h, w = int(document["height"]), int(document["width"])
        flat = [np.array(frame["c2w"], np.float64).reshape(4, 4) for frame in frames]
        K = np.stack([lens_to_K(document, frame) for frame in frames])
        fps = Fraction(str(document.get("fps", 24))) / Fraction(str(document.get("fps_base", 1)))
        if any(frame.get("type", document.get("type", "PERSP")) != "PERSP" for frame in frames):
            raise ValueError("type: only PERSP cameras have a pinhole lens")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} lacks or breaks {error}", "the fields that blender_export.py writes", "export it again") from error  # fmt: skip
    world_from_cam = CV_FROM_BLENDER @ matrices(flat, path) @ GL_FROM_CV
    poses = invert_affine(world_from_cam)
    poses[:, :3, 3] *= scale
    unit = "metric" if document.get("unit_system", "METRIC") != "NONE" else "relative"
    return {"": CameraTrack(poses, K, (h, w), fps=fps, unit=unit, world="file", extras={"document": document})}


def lens_to_K(document: dict[str, Any], frame: dict[str, Any]) -> Float64[np.ndarray, "3 3"]:
    """Pixels from Blender's millimetres; shift_x moves the picture right, shift_y up, in shares of the fitted side."""
    w, h = float(document["width"]), float(document["height"])
    aspect = float(document.get("pixel_aspect_y", 1)) / float(document.get("pixel_aspect_x", 1))
    fit = frame.get("sensor_fit", "AUTO")
    horizontal = fit == "HORIZONTAL" or (fit == "AUTO" and w >= h * aspect)
    view = w if horizontal else h * aspect
    sensor = float(frame.get("sensor_height_mm", 24) if fit == "VERTICAL" else frame.get("sensor_width_mm", SENSOR_MM))
    fx = float(frame["lens_mm"]) / sensor * view
    cx = w / 2 - float(frame.get("shift_x", 0)) * view
    cy = h / 2 + float(frame.get("shift_y", 0)) * view / aspect
    return np.array([[fx, 0, cx], [0, fx / aspect, cy], [0, 0, 1]])


def write(path: Path, tracks: Tracks) -> None:
    """Square or oblong pixels and an off-centre principal point become Blender's aspect and shift."""
    track = one_track(tracks, "a Blender JSON")
    K, (h, w) = need_intrinsics(track, "a Blender JSON")
    old = track.extras.get("document", {})
    scale = float(old.get("unit_scale", 1.0))
    poses = track.cam_from_world.copy()
    poses[:, :3, 3] /= scale
    c2w = CV_FROM_BLENDER.T @ invert_affine(poses) @ GL_FROM_CV
    same_lens = bool(old) and len(old["frames"]) == len(track) and np.allclose([lens_to_K(old, f) for f in old["frames"]], K, rtol=1e-12)  # fmt: skip
    first = int(old.get("frame_start", 1))
    fps = track.fps or Fraction(24)
    document: dict[str, Any] = (
        dict(old)
        if same_lens
        else {
            "format": MARK,
            "version": 1,
            "convention": CONVENTION,
            "unit_scale": scale,
            "unit_system": "METRIC" if track.unit == "metric" else "NONE",
            "fps": fps.numerator,
            "fps_base": fps.denominator,
            "frame_start": first,
            "frame_end": first + len(track) - 1,
            "frame_step": 1,
            "width": w,
            "height": h,
            **_pixel_aspect(K),
            "type": "PERSP",
        }
    )
    frames = [dict(frame) for frame in old["frames"]] if same_lens else [_lens_fields(K[i], h, w, first + i, i) for i in range(len(track))]  # fmt: skip
    for frame, pose in zip(frames, c2w, strict=True):
        frame["c2w"] = tidy_list(pose.ravel())
    path.write_text(dump_json(document | {"frames": frames}), encoding="utf-8")


def _pixel_aspect(K: np.ndarray) -> dict[str, float]:
    ratio = float(K[0, 0, 0] / K[0, 1, 1])  # pixel_aspect_y / pixel_aspect_x
    return {"pixel_aspect_x": 1.0, "pixel_aspect_y": tidy(ratio)}


def _lens_fields(K: np.ndarray, h: int, w: int, frame: int, index: int) -> dict[str, Any]:
    aspect = float(K[0, 0] / K[1, 1])
    return {
        "frame": frame,
        "index": index,
        "lens_mm": tidy(float(K[0, 0]) * SENSOR_MM / w),
        "sensor_width_mm": SENSOR_MM,
        "sensor_height_mm": 24.0,
        "sensor_fit": "HORIZONTAL",
        "shift_x": tidy((w / 2 - float(K[0, 2])) / w),
        "shift_y": tidy((float(K[1, 2]) - h / 2) * aspect / w),
    }


FORMAT = Format(
    name="blender",
    title="Blender JSON (blender_export.py)",
    suffix=".json",
    convention="camera to world 4x4 row-major, OpenGL axes, z-up world, Blender units with metres per unit; lens in mm per frame",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"lens", "size", "fps"}),
)
