"""A path from its description: rig motions in sequence and together, and the time that each frame shows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.easing import ease
from ex4d.cameras.remap import remap_time
from ex4d.cameras.rig import MOTIONS, rig_intrinsics, rig_poses
from ex4d.cameras.subject import Subject, find_subject, released_radius
from ex4d.cameras.units import parse_number
from ex4d.cameras.words.language import Move, PathSpec
from ex4d.cameras.words.moves import PRESETS
from ex4d.cameras.words.released import released_notes, released_rig, rounds
from ex4d.errors import InputError
from ex4d.types import CameraPath, DepthClip


def build_path(
    spec: PathSpec,
    *,
    first: DepthClip,
    num_frames: int,
    fps: Fraction,
    num_source_frames: int | None = None,
    reference: bool = False,
    name: str = "",
) -> CameraPath:
    """The cameras of a parsed path; the world is the first source camera, and pose 0 is the identity.

    The angle of a path never depends on `num_frames`: the last frame stands at the end.

    Args:
        spec: From `language.parse_path`.
        first: Depth of the first frame, for the subject; gives K and the size.
        num_frames: Output frames.
        fps: Output frames a second, for durations in seconds.
        num_source_frames: Length of the source clip; default `num_frames`.
        reference: Released presets as the release makes them: radius from the nearest pixel, angle times `rounds`.
        name: For manifests.
    """
    if num_frames < 1:
        raise InputError(f"{num_frames} frames", "at least 1", "--frames 49")
    share = np.linspace(0.0, 1.0, num_frames)
    bounds = _bounds(spec, num_frames, fps)
    subject = _subject(spec, first, reference)
    rig = np.zeros((num_frames, len(MOTIONS)))
    for moves, start, stop in zip(spec.steps, bounds[:-1], bounds[1:], strict=True):
        local = np.clip((share - start) / (stop - start), 0.0, 1.0)
        for move in moves:
            rig += _states(move, local, subject, rounds(num_frames) if reference else 1.0)
    poses = rig_poses(rig, subject)
    poses[0] = np.eye(4)  # exact: every motion is zero there, and the first frame is the source's own
    time = _source_time(spec, share, bounds, num_frames)
    time = remap_time(spec.remap, time, num_source_frames or num_frames)
    return CameraPath(poses, rig_intrinsics(rig, subject.K), first.size_hw, time, name)


def spec_notes(spec: PathSpec) -> list[str]:
    """What the user should know about the names in a path."""
    moves = [move for step in spec.steps for move in step]
    return [note for move in moves if move.released for note in released_notes(move.released[1], move.released[0])]


def _states(
    move: Move, local: Float64[np.ndarray, " time"], subject: Subject, factor: float
) -> Float64[np.ndarray, "time 10"]:
    share = ease(move.options.get("ease", "linear"), local)
    if move.released:
        sign, name = move.released
        return released_rig(name, sign, share, factor)
    given = {key: value for key, value in move.options.items() if key not in ("ease", "for", "at")}
    return PRESETS[move.name].build(given)(share, subject)


def _subject(spec: PathSpec, first: DepthClip, reference: bool) -> Subject:
    moves = [move for step in spec.steps for move in step]
    named = {move.options["at"] for move in moves if "at" in move.options}
    if len(named) > 1:
        raise InputError(f"subjects {', '.join(sorted(named))} in one path", "one subject", "at=center once")
    if named:
        return find_subject(first, named.pop())
    if reference and any(move.released for move in moves):
        return find_subject(first, repr(released_radius(first.depth[0])))
    return find_subject(first)


def _bounds(spec: PathSpec, num_frames: int, fps: Fraction) -> Float64[np.ndarray, " bounds"]:
    """Where each step begins and ends, as shares of the clip; steps without a duration share what is left."""
    given = [_duration(moves, num_frames, fps) for moves in spec.steps]
    taken = sum(d for d in given if d is not None)
    free = given.count(None)
    if taken > 1 + 1e-9 or (free and taken > 1 - 1e-9):
        raise InputError(
            f"steps that take {taken:.0%} of the clip", "100% or less, with time left for the others", "for=50%"
        )
    lengths = np.array([d if d is not None else (1 - taken) / free for d in given])
    return np.concatenate([[0.0], np.cumsum(lengths)])


def _duration(moves: tuple[Move, ...], num_frames: int, fps: Fraction) -> float | None:
    texts = {move.options["for"] for move in moves if "for" in move.options}
    if not texts:
        return None
    if len(texts) > 1:
        raise InputError(f"durations {', '.join(sorted(texts))} for one step", "one duration", "for=50%")
    text = texts.pop()
    unit = text[-1]
    scale = {"%": 0.01, "f": 1 / max(num_frames - 1, 1), "s": float(fps) / max(num_frames - 1, 1)}.get(unit)
    value = parse_number(text[:-1], "for") if scale else 0.0
    if scale is None or value <= 0:
        raise InputError(f"for={text}", "a duration > 0 in %, f or s", "for=50%")
    return value * scale


def _source_time(
    spec: PathSpec, share: Float64[np.ndarray, " time"], bounds: Float64[np.ndarray, " bounds"], num_frames: int
) -> Float64[np.ndarray, " time"]:
    """Time runs with the output frames, except in steps that freeze it."""
    time = np.zeros(num_frames)
    reached = 0.0
    for moves, start, stop in zip(spec.steps, bounds[:-1], bounds[1:], strict=True):
        inside = (share >= start) if start == 0 else (share > start)
        frozen = next((move for move in moves if not move.released and PRESETS[move.name].freezes_time), None)
        if frozen:
            reached = parse_number(frozen.options.get("frame", reached), "frame")
            time[inside] = reached
        else:
            time[inside] = reached + (share[inside] - start) * (num_frames - 1)
            reached += (stop - start) * (num_frames - 1)
    return time
