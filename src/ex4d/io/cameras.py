"""cameras.json: the cameras of a clip, as every stage writes and reads them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.errors import InputError
from ex4d.io.depth.checks import fraction
from ex4d.system.atomic import written_whole
from ex4d.types import CameraPath

CAMERAS_VERSION = 1


def write_cameras(path: Path | str, camera_path: CameraPath, fps: Fraction) -> None:
    """cameras.json: OpenCV axes, world to camera, K in pixels of size_hw, source_time in frames; exact to the last bit."""
    frames = [
        {"cam_from_world": pose.tolist(), "K": K.astype(np.float64).tolist(), "source_time": float(time)}
        for pose, K, time in zip(camera_path.cam_from_world, camera_path.K, camera_path.source_time, strict=True)
    ]
    head = {
        "version": CAMERAS_VERSION,
        "axes": "opencv",
        "size_hw": [int(side) for side in camera_path.size_hw],
        "fps": float(fps),
        "name": camera_path.name,
    }
    lines = ",\n    ".join(json.dumps(frame, allow_nan=False) for frame in frames)
    text = json.dumps(head, indent=2, allow_nan=False)[:-2] + f',\n  "frames": [\n    {lines}\n  ]\n}}\n'
    with written_whole(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_cameras(path: Path | str) -> tuple[CameraPath, Fraction]:
    """The path and frame rate of a cameras.json; InputError where it is not one."""
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["version"] != CAMERAS_VERSION or record["axes"] != "opencv":
            raise InputError(
                f"{path} has version {record['version']} and axes {record['axes']}",
                f"version {CAMERAS_VERSION} and axes opencv",
                "ex4d cameras convert",
            )
        frames = record["frames"]
        h, w = record["size_hw"]
        return CameraPath(
            cam_from_world=np.array([frame["cam_from_world"] for frame in frames], np.float64).reshape(-1, 4, 4),
            K=np.array([frame["K"] for frame in frames], np.float32).reshape(-1, 3, 3),
            size_hw=(int(h), int(w)),
            source_time=np.array([frame["source_time"] for frame in frames], np.float64),
            name=record.get("name", ""),
        ), fraction(record["fps"])
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "a cameras.json") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a cameras.json ({type(error).__name__}: {error})",
            "version, axes, size_hw, fps and frames of cam_from_world, K, source_time",
            "ex4d cameras convert",
        ) from error
