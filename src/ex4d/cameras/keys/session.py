"""Editing a camera path: a session of keys, and pure operations that give the next session.

Nothing here knows of a screen: a browser editor holds one `Session`, calls these functions and draws `path_of(session)`.
Every operation returns a new session that remembers the one before; `undo` and `redo` walk along them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.keys.keyframes import Key, sample_keys
from ex4d.cameras.keys.splines import spline_poses
from ex4d.cameras.remap import remap_time
from ex4d.cameras.subject import Subject
from ex4d.errors import InputError
from ex4d.geometry.frames import invert_rigid
from ex4d.geometry.rotations import screw, se3_exp
from ex4d.types import CameraPath

#: Key times closer than this share of the clip are one time.
SAME_TIME = 1e-6


@dataclass(frozen=True)
class Session:
    """An editor's whole state.

    Attributes:
        keys: In the order of their times.
        subject: Point of interest, lens and size.
        num_frames: Of the output.
        fps: Of the output.
        smooth: Cubic between keys, else screw motions.
        constant_speed: Equal steps along the way.
        remap: Time remap, as text.
        past: The session before the last edit.
        future: The session that the last `undo` left.
    """

    keys: tuple[Key, ...]
    subject: Subject
    num_frames: int = 49
    fps: Fraction = Fraction(24)
    smooth: bool = True
    constant_speed: bool = False
    remap: str | None = None
    past: Session | None = None
    future: Session | None = None


def new_session(subject: Subject, num_frames: int = 49, fps: Fraction = Fraction(24)) -> Session:
    """One key: the source camera at the beginning."""
    return Session((Key(0.0, np.eye(4)),), subject, num_frames, fps)


def session_from_path(path: CameraPath, subject: Subject, fps: Fraction, num_keys: int = 5) -> Session:
    """Keys taken from a path at even times; a path that the keys' spline gives back is edited without loss."""
    if not 2 <= num_keys <= len(path):
        raise InputError(f"{num_keys} keys of a path of {len(path)} frames", f"2 to {len(path)}", "5 keys")
    index = np.linspace(0, len(path) - 1, num_keys).round().astype(int)
    poses = invert_rigid(path.cam_from_world[index])
    zoom = path.K[index, 0, 0] / subject.K[0, 0]
    keys = tuple(Key(int(i) / (len(path) - 1), pose, float(z)) for i, pose, z in zip(index, poses, zoom, strict=True))
    return Session(keys, subject, len(path), fps)


def path_of(session: Session, name: str = "edited") -> CameraPath:
    """The path that the keys describe now."""
    poses, zoom = sample_keys(
        list(session.keys),
        session.num_frames,
        session.subject.distance,
        smooth=session.smooth,
        constant_speed=session.constant_speed,
    )
    K = np.repeat(session.subject.K[None].astype(np.float64), session.num_frames, axis=0)
    K[:, :2, :2] *= zoom[:, None, None]
    time = remap_time(session.remap, np.arange(float(session.num_frames)), session.num_frames)
    return CameraPath(invert_rigid(poses), K.astype(np.float32), session.subject.size_hw, time, name)


def insert_key(session: Session, share: float, world_from_cam: Float64[np.ndarray, "4 4"] | None = None) -> Session:
    """A key at a time: where the path already is, unless a pose is given."""
    if any(abs(key.share - share) < SAME_TIME for key in session.keys):
        raise InputError(f"a key at {share:.1%}, where there is one", "a free time", "move that key instead")
    pose, zoom = _state_at(session, share)
    return _with_keys(session, (*session.keys, Key(share, pose if world_from_cam is None else world_from_cam, zoom)))


def delete_key(session: Session, index: int) -> Session:
    """Without that key; the last one cannot go."""
    _check_index(session, index)
    if len(session.keys) == 1:
        raise InputError("deleting the only key", "at least one key", "move it instead")
    return _with_keys(session, session.keys[:index] + session.keys[index + 1 :])


def move_key(session: Session, index: int, world_from_cam: Float64[np.ndarray, "4 4"]) -> Session:
    """The key at another place."""
    return _change(session, index, lambda key: replace(key, world_from_cam=world_from_cam))


def nudge_key(session: Session, index: int, twist: Float64[np.ndarray, " 6"]) -> Session:
    """The key moved in its own axes by a twist (rotation vector in radians, then right, down, forward)."""
    return _change(session, index, lambda key: replace(key, world_from_cam=key.world_from_cam @ se3_exp(twist)))


def retime_key(session: Session, index: int, share: float) -> Session:
    """The key at another time; keys keep their order."""
    _check_index(session, index)
    low = session.keys[index - 1].share if index else -SAME_TIME
    high = session.keys[index + 1].share if index + 1 < len(session.keys) else 1 + 2 * SAME_TIME
    if not low + SAME_TIME <= share <= high - SAME_TIME or not 0 <= share <= 1:
        raise InputError(f"key {index} moved to {share:.1%}", f"between its neighbours, {max(low, 0):.1%} and {min(high, 1):.1%}", "move those first")  # fmt: skip
    return _change(session, index, lambda key: replace(key, share=float(share)))


def ease_key(session: Session, index: int, ease: str) -> Session:
    """How the way to this key is eased."""
    return _change(session, index, lambda key: replace(key, ease=ease))


def zoom_key(session: Session, index: int, zoom: float) -> Session:
    """Focal length at this key, as a multiple of the source's."""
    if not zoom > 0:
        raise InputError(f"zoom {zoom}", "a factor > 0", "1.5")
    return _change(session, index, lambda key: replace(key, zoom=float(zoom)))


def smooth_keys(session: Session, amount: float = 0.5) -> Session:
    """Every inner key drawn towards the screw motion between its neighbours; 1 puts it there. Ends stay."""
    if not 0 <= amount <= 1:
        raise InputError(f"smoothing by {amount}", "0 to 1", "0.5")
    keys = list(session.keys)
    for i in range(1, len(keys) - 1):
        before, key, after = session.keys[i - 1 : i + 2]
        share = np.array((key.share - before.share) / (after.share - before.share))
        between = screw(before.world_from_cam, after.world_from_cam, share)
        pose = screw(key.world_from_cam, between, np.array(float(amount)))
        zoom = (1 - amount) * key.zoom + amount * (before.zoom * (1 - share) + after.zoom * share)
        keys[i] = replace(key, world_from_cam=pose, zoom=float(zoom))
    return _with_keys(session, tuple(keys))


def retime(session: Session, speed: Literal["keys", "constant"]) -> Session:
    """Key times as they are, or equal steps along the way."""
    return _edited(session, constant_speed=speed == "constant")


def set_remap(session: Session, remap: str | None) -> Session:
    """Another time remap; checked at once."""
    remap_time(remap, np.arange(float(session.num_frames)), session.num_frames)
    return _edited(session, remap=remap)


def undo(session: Session) -> Session:
    """The session before the last edit; itself when there is none."""
    return session if session.past is None else replace(session.past, future=session)


def redo(session: Session) -> Session:
    """What the last `undo` left; itself when there is none."""
    return session if session.future is None else session.future


def _state_at(session: Session, share: float) -> tuple[Float64[np.ndarray, "4 4"], float]:
    if not 0 <= share <= 1:
        raise InputError(f"a key at {share:.1%}", "0% to 100%", "0.5")
    shares = np.array([key.share for key in session.keys])
    poses = np.stack([key.world_from_cam for key in session.keys])
    zoom = float(np.interp(share, shares, [key.zoom for key in session.keys]))
    return spline_poses(poses, shares, np.array([float(share)]), session.smooth)[0], zoom


def _change(session: Session, index: int, change: Callable[[Key], Key]) -> Session:
    _check_index(session, index)
    keys = list(session.keys)
    keys[index] = change(keys[index])
    return _with_keys(session, tuple(keys))


def _check_index(session: Session, index: int) -> None:
    if not 0 <= index < len(session.keys):
        raise InputError(f"key {index} of {len(session.keys)}", f"0 to {len(session.keys) - 1}", "count from 0")


def _with_keys(session: Session, keys: tuple[Key, ...]) -> Session:
    return _edited(session, keys=tuple(sorted(keys, key=lambda key: key.share)))


def _edited(session: Session, **changes: object) -> Session:
    return replace(session, **changes, past=replace(session, future=None), future=None)  # type: ignore[arg-type]
