"""A camera path from what the user typed: a preset, a path in words, keyframes, or a file of any known format."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from ex4d.cameras.formats.base import ReadOptions
from ex4d.cameras.formats.registry import is_camera_file, read_tracks, split_spec
from ex4d.cameras.formats.track import path_from_track
from ex4d.cameras.keys.keyframes import keyframe_path, load_keyframes
from ex4d.cameras.remap import remap_time
from ex4d.cameras.subject import find_subject
from ex4d.cameras.words.language import parse_path
from ex4d.cameras.words.path import build_path, spec_notes
from ex4d.errors import InputError
from ex4d.types import CameraPath, DepthClip


def make_path(
    spec: str,
    *,
    first: DepthClip,
    num_frames: int,
    fps: Fraction,
    reference: bool = False,
    relative_to: Literal["source", "world"] = "source",
    num_source_frames: int | None = None,
    scale: float = 1.0,
) -> CameraPath:
    """The camera of every output frame.

    Args:
        spec: `orbit:60`, `orbit:yaw=60,pitch=10 + dolly:in=20% then static @ slow=0.5`, a preset of the release (`60`,
            `-180_outer`), keyframes (`keys.yaml`), or a camera file (`path.json`, `recammaster:cam.json#cam05 @ freeze`).
        first: Depth of the first frame: subject, intrinsics and size.
        num_frames: Output frames; a camera file must have as many.
        fps: Output frames a second.
        reference: Released presets exactly as the release makes them (radius of the nearest pixel, angle times `rounds`).
        relative_to: What the poses are relative to when the source camera moves; poses come back relative to it, and
            `geometry.relative.place_path` puts them into the world.
        num_source_frames: Length of the source clip, default `num_frames`.
        scale: Scene units per unit of a camera file.

    Raises:
        InputError: a word or a file that cannot be used, named with what is close to it.
    """
    file, remap = _split_remap(spec)
    if not is_camera_file(file):
        return build_path(
            parse_path(spec),
            first=first,
            num_frames=num_frames,
            fps=fps,
            num_source_frames=num_source_frames,
            reference=reference,
            name=spec,
        )
    document = load_keyframes(Path(file)) if Path(file).is_file() else None
    if document is not None:
        path = keyframe_path(
            document, first=first, num_frames=num_frames, fps=fps, num_source_frames=num_source_frames, name=spec
        )
    else:
        path = _file_path(file, first, num_frames, scale, spec)
    if remap is None:
        return path
    return replace(path, source_time=remap_time(remap, path.source_time, num_source_frames or num_frames))


def _file_path(file: str, first: DepthClip, num_frames: int, scale: float, name: str) -> CameraPath:
    radius = find_subject(first).distance
    format, tracks = read_tracks(file, ReadOptions(num_frames, radius))
    track = next(iter(tracks.values()))
    if len(track) != num_frames:
        raise InputError(
            f"{file} has {len(track)} poses for {num_frames} frames",
            "one pose a frame",
            f"ex4d cameras convert {file} path.json --frames {num_frames}, or --frames {len(track)}",
        )
    lens = "file" if "source time" in format.keeps else "source"
    return path_from_track(track.scaled(scale), size_hw=first.size_hw, K=first.K[0], lens=lens, name=name)


def camera_file(spec: str) -> Path | None:
    """The file behind a camera option (`file.json`, `format:file.json#name @ freeze`), or None when it is words."""
    file, _ = _split_remap(spec)
    if Path(file).is_file():
        return Path(file)
    return split_spec(file)[1] if is_camera_file(file) and split_spec(file)[1].exists() else None


def _split_remap(spec: str) -> tuple[str, str | None]:
    if "@" not in spec or Path(spec).exists():
        return spec.strip(), None
    file, _, remap = spec.rpartition("@")
    return file.strip(), remap.strip()


def notes(spec: str) -> list[str]:
    """What help and manifests should say about a path, for instance that the released 180 does not turn 180 degrees."""
    file, _ = _split_remap(spec)
    if not is_camera_file(file):
        return spec_notes(parse_path(spec))
    if not split_spec(file)[1].exists() or load_keyframes(Path(file)) is not None:
        return []
    format, tracks = read_tracks(file)
    track = next(iter(tracks.values()))
    out = [f"cameras from {file}, read as {format.title}: {format.convention}"]
    if len(tracks) > 1:
        out.append(f"{file} holds {', '.join(name or 'the main one' for name in tracks)}; the first is used, FILE#NAME picks another")  # fmt: skip
    if not np.isfinite(track.cam_from_world).all():
        out.append("some poses are not finite")
    return out
