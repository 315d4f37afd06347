"""Keyframes, JSON or YAML: where the camera is at a few times, and a spline on SE(3) between.

    subject: center              # as `at=` of the presets
    interpolation: spline        # spline | linear (screw motions)
    speed: keys                  # keys | constant (equal steps along the way; key times then only order the keys)
    time: reverse                # a time remap, as after "@"
    keys:
      - {at: 0}                                              # the source camera
      - {at: 50%, orbit: {yaw: 30, pitch: 10, in: 20%}, ease: in-out}
      - {at: 100%, position: [30%, 0, 0.5], look_at: subject, roll: 5, fov: 50}

A key's place is `orbit` (yaw, pitch, roll, in, out) or `position` [x, y, z] (lengths: x right, y down, z forward of the first
source camera) with `look_at` (subject or [x, y, z]) or `rotation` (quaternion w x y z, or {yaw, pitch, roll}: where the
camera looks, + right, + up, + the picture turns clockwise). `fov` is horizontal, degrees. `at` is a share (50%), a frame (12f)
or a time (1.5s); without it keys are spread evenly. `ease` shapes the way to the key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.easing import ease
from ex4d.cameras.keys.splines import constant_speed_times, path_lengths, spline_poses
from ex4d.cameras.remap import remap_time
from ex4d.cameras.rig import rig_delta, rig_poses, rotation
from ex4d.cameras.subject import Subject, find_subject
from ex4d.cameras.units import parse_length, parse_number
from ex4d.errors import InputError
from ex4d.geometry.frames import invert_rigid, look_at, rigid
from ex4d.geometry.pinhole import focal_px, fov_rad
from ex4d.geometry.quaternion import rotation_from_quaternion
from ex4d.types import CameraPath, DepthClip

_KEY_FIELDS = {"at", "orbit", "position", "look_at", "rotation", "roll", "fov", "ease"}
_TOP_FIELDS = {"subject", "interpolation", "speed", "time", "keys", "version"}
_ORBIT_FIELDS = {"yaw", "pitch", "roll", "in", "out"}


@dataclass(frozen=True)
class Key:
    """One key, resolved: where the camera is, when, and with which lens.

    Attributes:
        share: 0..1 of the clip.
        world_from_cam: OpenCV axes, world = first source camera.
        zoom: Focal length as a multiple of the source's.
        ease: Easing of the way to this key.
    """

    share: float
    world_from_cam: Float64[np.ndarray, "4 4"]
    zoom: float = 1.0
    ease: str = "linear"


def load_keyframes(path: Path) -> dict[str, Any] | None:
    """The document, or None when the file is something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    try:
        if path.suffix in (".yaml", ".yml"):
            import yaml

            document = yaml.safe_load(text)
        else:
            document = json.loads(text) if text.lstrip().startswith("{") else None
    except Exception as error:
        if path.suffix in (".yaml", ".yml"):
            raise InputError(f"{path} is not YAML ({error})", "a YAML file of keys", "see docs/cameras.md") from error
        return None
    is_ours = isinstance(document, dict) and isinstance(document.get("keys"), list)
    if path.suffix in (".yaml", ".yml") and not is_ours:
        raise InputError(f"{path} has no list of keys", "keys: [...]", "see docs/cameras.md")
    return document if is_ours else None


def keyframe_path(
    document: dict[str, Any],
    *,
    first: DepthClip,
    num_frames: int,
    fps: Fraction,
    num_source_frames: int | None = None,
    name: str = "",
) -> CameraPath:
    """The path through the keys of a document; arguments as `resolve.make_path`."""
    _known(document, _TOP_FIELDS, "the keyframe file")
    subject = find_subject(first, str(document.get("subject", "center")))
    keys = parse_keys(document["keys"], subject, num_frames, fps)
    poses, zoom = sample_keys(
        keys,
        num_frames,
        subject.distance,
        smooth=_choice(document, "interpolation", ("spline", "linear")) == "spline",
        constant_speed=_choice(document, "speed", ("keys", "constant")) == "constant",
    )
    K = np.repeat(subject.K[None].astype(np.float64), num_frames, axis=0)
    K[:, :2, :2] *= zoom[:, None, None]
    remap = document.get("time")
    time = remap_time(
        None if remap is None else str(remap), np.arange(float(num_frames)), num_source_frames or num_frames
    )
    return CameraPath(invert_rigid(poses), K.astype(np.float32), first.size_hw, time, name)


def parse_keys(entries: list[Any], subject: Subject, num_frames: int, fps: Fraction) -> list[Key]:
    """Keys in the order of their times."""
    if not entries:
        raise InputError("a keyframe file without keys", "one or more", "keys: [{at: 0}, {at: 100%, orbit: {yaw: 30}}]")
    even = np.linspace(0, 1, len(entries))
    keys = [_parse_key(entry, i, float(even[i]), subject, num_frames, fps) for i, entry in enumerate(entries)]
    shares = [key.share for key in keys]
    if any(b <= a for a, b in zip(shares, shares[1:], strict=False)):
        raise InputError(f"key times {', '.join(f'{s:.1%}' for s in shares)}", "each later than the last", "at: 0, at: 50%, at: 100%")  # fmt: skip
    return keys


def _parse_key(entry: Any, index: int, even: float, subject: Subject, num_frames: int, fps: Fraction) -> Key:
    if not isinstance(entry, dict):
        raise InputError(f"key {index} is {entry!r}", "an object", "{at: 50%, orbit: {yaw: 30}}")
    _known(entry, _KEY_FIELDS, f"key {index}")
    if "orbit" in entry and set(entry) & {"position", "look_at", "rotation"}:
        raise InputError(f"key {index} has orbit and {', '.join(sorted(set(entry) & {'position', 'look_at', 'rotation'}))}", "one of them", "orbit alone")  # fmt: skip
    pose = _orbit_pose(entry, index, subject) if "orbit" in entry else _free_pose(entry, index, subject)
    if "roll" in entry:
        pose = pose @ rigid(rotation(2, np.array(-np.radians(parse_number(entry["roll"], "roll")))), np.zeros(3))
    width, focal = subject.size_hw[1], float(subject.K[0, 0])
    fov_deg = parse_number(entry.get("fov", np.degrees(fov_rad(width, focal))), "fov")
    if not 0 < fov_deg < 180:
        raise InputError(f"key {index} has fov {fov_deg:g}", "0 to 180 degrees", "fov: 50")
    share = _share(entry["at"], num_frames, fps, index) if "at" in entry else even
    how = str(entry.get("ease", "linear"))
    ease(how, np.zeros(1))
    return Key(share, pose, focal_px(width, np.radians(fov_deg)) / focal, how)


def _orbit_pose(entry: dict[str, Any], index: int, subject: Subject) -> Float64[np.ndarray, "4 4"]:
    orbit = entry["orbit"] if isinstance(entry["orbit"], dict) else {"yaw": entry["orbit"]}
    _known(orbit, _ORBIT_FIELDS, f"orbit of key {index}")
    angles = {name: float(np.radians(parse_number(orbit.get(name, 0), name))) for name in ("yaw", "pitch", "roll")}
    amount = parse_length(orbit.get("in", 0), subject) - parse_length(orbit.get("out", 0), subject)
    if amount >= subject.distance:
        raise InputError(f"key {index} moves in by {amount / subject.distance:.0%}", "less than 100%", "in: 50%")
    rig = rig_delta(**angles, closer=-float(np.log1p(-amount / subject.distance)))
    return invert_rigid(rig_poses(rig[None], subject)[0])


def _free_pose(entry: dict[str, Any], index: int, subject: Subject) -> Float64[np.ndarray, "4 4"]:
    eye = _point(entry.get("position", [0, 0, 0]), subject, f"position of key {index}")
    if "look_at" in entry:
        if "rotation" in entry:
            raise InputError(f"key {index} has look_at and rotation", "one of them", "look_at: subject")
        target = entry["look_at"]
        point = subject.point if target == "subject" else _point(target, subject, f"look_at of key {index}")
        if np.linalg.norm(point - eye) < 1e-9 * subject.distance:
            raise InputError(f"key {index} looks at the place where it stands", "two different points", "look_at: subject")  # fmt: skip
        return invert_rigid(look_at(eye, point))
    given = entry.get("rotation", [1, 0, 0, 0])
    if isinstance(given, dict):
        _known(given, {"yaw", "pitch", "roll"}, f"rotation of key {index}")
        yaw, pitch, roll = (np.array(np.radians(parse_number(given.get(n, 0), n))) for n in ("yaw", "pitch", "roll"))
        return rigid(rotation(1, yaw) @ rotation(0, pitch) @ rotation(2, np.array(-roll)), eye)
    q = np.array([parse_number(v, "rotation") for v in given] if isinstance(given, list) else [])
    if q.shape != (4,) or abs(np.linalg.norm(q) - 1) > 1e-3:
        raise InputError(f"key {index} has rotation {given}", "a unit quaternion w x y z, or yaw, pitch, roll", "rotation: {yaw: 20}")  # fmt: skip
    return rigid(rotation_from_quaternion(q), eye)


def _point(values: Any, subject: Subject, name: str) -> Float64[np.ndarray, " 3"]:
    if not isinstance(values, list) or len(values) != 3:
        raise InputError(f"{name} is {values!r}", "three lengths", "[30%, 0, 0]")
    return np.array([parse_length(v, subject) for v in values])


def _share(at: Any, num_frames: int, fps: Fraction, index: int) -> float:
    text = str(at).strip()
    scale = {"%": 0.01, "f": 1 / max(num_frames - 1, 1), "s": float(fps) / max(num_frames - 1, 1)}.get(text[-1:])
    value = parse_number(text[:-1] if scale else text, "at") * (scale or 1.0)
    if not -1e-9 <= value <= 1 + 1e-9 or (scale is None and value not in (0.0, 1.0)):
        raise InputError(f"key {index} has at: {at} in a clip of {num_frames} frames", "0..100%, a frame such as 12f, or seconds such as 1.5s", "at: 50%")  # fmt: skip
    return min(max(value, 0.0), 1.0)


def sample_keys(
    keys: list[Key], num_frames: int, turn_length: float, *, smooth: bool = True, constant_speed: bool = False
) -> tuple[Float64[np.ndarray, "time 4 4"], Float64[np.ndarray, " time"]]:
    """World from camera and zoom of every frame; before the first key and after the last the camera stands.

    Args:
        keys: With ascending shares.
        num_frames: Frames over 0..1.
        turn_length: Length that one radian of turning on the spot counts as, for constant speed (the subject's distance).
        smooth: Cubic between keys, else plain screw motions.
        constant_speed: Equal steps from the first key to the last; easing is then left out.
    """
    poses = np.stack([key.world_from_cam for key in keys])
    shares = np.array([key.share for key in keys])
    log_zoom = np.log([key.zoom for key in keys])
    at = np.linspace(0.0, 1.0, num_frames)
    if constant_speed and len(keys) > 1:
        inside = (at >= shares[0]) & (at <= shares[-1])
        shares = _by_distance(poses, shares, turn_length)  # uneven key times would make the spline overshoot
        equal = constant_speed_times(poses, shares, 513, turn_length, smooth)
        at = np.where(inside, np.interp(at, np.linspace(shares[0], shares[-1], 513), equal), at)
    elif len(keys) > 1:
        at = _eased(at, keys, shares)
    return spline_poses(poses, shares, at, smooth), np.exp(np.interp(at, shares, log_zoom))


def _by_distance(
    poses: Float64[np.ndarray, "keys 4 4"], shares: Float64[np.ndarray, " keys"], turn_length: float
) -> Float64[np.ndarray, " keys"]:
    """Key times in proportion to the way between the keys, over the same span."""
    way = path_lengths(poses, turn_length)
    way = np.maximum(way, 1e-3 * max(float(way.max()), 1e-9))
    done = np.concatenate([[0.0], np.cumsum(way)]) / way.sum()
    return shares[0] + done * (shares[-1] - shares[0])


def _eased(at: Float64[np.ndarray, " time"], keys: list[Key], shares: Float64[np.ndarray, " keys"]) -> np.ndarray:
    out = at.copy()
    for start, stop, key in zip(shares[:-1], shares[1:], keys[1:], strict=True):
        inside = (at > start) & (at < stop)
        out[inside] = start + (stop - start) * ease(key.ease, (at[inside] - start) / (stop - start))
    return out


def _known(given: dict[str, Any], names: set[str], what: str) -> None:
    unknown = sorted(set(map(str, given)) - names)
    if unknown:
        raise InputError(f"{what} has {', '.join(unknown)}", f"only {', '.join(sorted(names))}", "see docs/cameras.md")


def _choice(document: dict[str, Any], field: str, choices: tuple[str, ...]) -> str:
    value = document.get(field, choices[0])
    if value not in choices:
        raise InputError(f"{field}: {value}", f"one of {', '.join(choices)}", f"{field}: {choices[0]}")
    return value
