"""Depth as pictures: EXR and 16-bit PNG, one file or a folder of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.errors import InputError
from ex4d.io.depth.checks import PNG_INVALID, PNG_SCALE, checked_K, checked_kind, checked_poses, fraction
from ex4d.io.depth.exr import read_exr, write_exr
from ex4d.io.depth.file import DepthFile
from ex4d.system.atomic import ensure_dir, written_whole
from ex4d.types import DepthClip

SIDECAR = "depth.json"


def open_pictures(path: Path) -> DepthFile:
    """One .exr or 16-bit .png, or a folder of them in the order of their names (numbers as numbers); see `open_depth`."""
    folder = path if path.is_dir() else path.parent
    files = _pictures_in(path) if path.is_dir() else [path]
    suffix = files[0].suffix.lower() if files else ""
    if suffix not in (".exr", ".png"):
        raise InputError(
            f"{path} is {'a folder without .exr and .png files' if path.is_dir() else f'a {suffix or chr(63)} file'}",
            "a depth.npz, or EXR or 16-bit PNG files",
            "--depth FILE",
        )
    about = _sidecar(folder / SIDECAR)
    scale = float(about.get("scale", PNG_SCALE))
    load: Callable[[Path], np.ndarray] = read_exr if suffix == ".exr" else lambda file: read_png16(file, scale)
    first = load(files[0])

    def read(start: int, stop: int) -> np.ndarray:
        maps = [load(file) for file in files[start:stop]]
        for file, one in zip(files[start:stop], maps, strict=True):
            if one.shape != first.shape:
                raise InputError(f"{file} has size {one.shape}", f"{first.shape}, as {files[0].name}")
        return np.stack(maps)

    K, poses = about.get("K"), about.get("cam_from_world")
    return DepthFile(
        read=read,
        num_frames=len(files),
        size_hw=(first.shape[0], first.shape[1]),
        kind=checked_kind(about.get("kind", about.get("unit")), folder / SIDECAR),
        K=None if K is None else checked_K(np.array(K, np.float32), len(files), folder / SIDECAR),
        cam_from_world=None if poses is None else checked_poses(np.array(poses), len(files), folder / SIDECAR),
        fps=None if "fps" not in about else fraction(about["fps"]),
        name=str(path),
    )


def write_depth_exr(path: Path, clip: DepthClip, *, start: int = 0, half: bool = False) -> None:
    """One .exr (channel Z) for a path that ends in .exr and a clip of one frame, else a folder of depth_00000.exr, ...

    A folder also gets depth.json with unit and, per call, K of the clip's first frame.
    """
    if path.suffix.lower() == ".exr":
        if len(clip) != 1:
            raise InputError(f"{len(clip)} frames for the single file {path}", "one frame, or a folder")
        write_exr(path, clip.depth[0], half=half)
        return
    ensure_dir(path)
    for i, frame in enumerate(clip.depth):
        write_exr(path / f"depth_{start + i:05d}.exr", frame, half=half)
    with written_whole(path / SIDECAR) as temporary:
        temporary.write_text(json.dumps({"unit": clip.unit, "K": clip.K[0].astype(float).tolist()}) + "\n", "utf-8")


def write_png16(path: Path, depth: np.ndarray, scale: float = PNG_SCALE) -> None:
    """Depth [H, W] as a 16-bit PNG of depth / scale, rounded; NaN and what does not fit become 0 (nothing seen)."""
    import cv2

    with np.errstate(invalid="ignore"):
        counts = np.round(depth / scale)
        counts = np.where((counts > 0) & (counts < 65535), counts, 0).astype(np.uint16)
    ok, data = cv2.imencode(".png", counts)
    assert ok
    with written_whole(path) as temporary:
        temporary.write_bytes(data.tobytes())


def read_png16(path: Path, scale: float = PNG_SCALE) -> np.ndarray:
    """float32 [H, W] of a 16-bit grey PNG: value times `scale`, NaN where the sensor saw nothing (0 or 65535)."""
    import cv2

    counts = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)  # imread cannot open every Windows path
    if counts is None or counts.dtype != np.uint16 or counts.ndim != 2:
        got = "not a PNG" if counts is None else f"a PNG of {counts.dtype} with shape {counts.shape}"
        raise InputError(f"{path} is {got}", "a 16-bit grey PNG", "--depth FILE.npz")
    depth = counts.astype(np.float32) * np.float32(scale)
    depth[np.isin(counts, PNG_INVALID)] = np.nan
    return depth


def _pictures_in(folder: Path) -> list[Path]:
    """The depth pictures of a folder: EXR before PNG; where names of PNG files say `depth`, only those."""
    for suffix in (".exr", ".png"):
        files = [file for file in folder.iterdir() if file.suffix.lower() == suffix and file.name[0] != "."]
        named = [file for file in files if "depth" in file.name.lower()]
        if files:
            return sorted(named or files, key=_number_aware)
    return []


def _number_aware(path: Path) -> list[tuple[int, str]]:
    import re

    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name) if part]


def _sidecar(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(about, dict):
            return about
    except ValueError:
        pass
    raise InputError(f"{path} is not a JSON object", '{"unit": "metric", "scale": 0.001}')
