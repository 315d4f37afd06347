"""The sample clip that ships with the package: a fox crosses a room, with exact depth (recipes/sample/make_sample.py)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ex4d.errors import ResourceError


def _path(name: str) -> Path:
    path = Path(str(files(__name__) / name))
    if not path.is_file():
        raise ResourceError(f"{path} is missing", "a complete installation", "pip install --force-reinstall ex4d")
    return path


def video_path() -> Path:
    """The sample video, 49 frames of 512x288 at 24 fps."""
    return _path("sample.mp4")


def depth_path() -> Path:
    """Its exact depth in metres, in the depth.npz schema (float16, so exact to 0.05 %)."""
    return _path("sample_depth.npz")
