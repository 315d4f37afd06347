"""Presets with parameters, each one motion of the rig: what the words of the path language mean."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.rig import COLUMN, rig_delta
from ex4d.cameras.subject import Subject
from ex4d.cameras.units import parse_length, parse_number
from ex4d.errors import InputError

#: Rig states along a preset: a function of the (eased) share 0..1 and of the subject.
Motion = Callable[[Float64[np.ndarray, " time"], Subject], Float64[np.ndarray, "time 10"]]


@dataclass(frozen=True)
class Preset:
    """One word of the path language.

    Attributes:
        options: name -> help. The first may be given without its name.
        summary: One line for help and docs.
        build: Motion from the options that were given.
        freezes_time: The source stands still while the camera moves.
        examples: For docs and error messages.
    """

    options: dict[str, str]
    summary: str
    build: Callable[[dict[str, str]], Motion]
    example: str
    freezes_time: bool = False


def _straight(delta: Callable[[Subject], Float64[np.ndarray, " 10"]]) -> Motion:
    return lambda share, subject: share[:, None] * delta(subject)


def _angles(given: dict[str, str], **defaults: float) -> dict[str, float]:
    return {name: math.radians(parse_number(given.get(name, value), name)) for name, value in defaults.items()}


def _way(given: dict[str, str], plus: str, minus: str, default: str, subject: Subject) -> float:
    """A signed length: `plus=30%` counts up, `minus=30%` down."""
    if plus in given or minus in given:
        return parse_length(given.get(plus, 0), subject) - parse_length(given.get(minus, 0), subject)
    return parse_length(default, subject)


def _closer(amount: float, subject: Subject) -> float:
    if amount >= subject.distance:
        raise InputError(
            f"moving in by {amount / subject.distance:.0%} of the subject's distance", "less than 100%", "in=80%"
        )
    return -math.log1p(-amount / subject.distance)


def _orbit(given: dict[str, str]) -> Motion:
    first = {"yaw": 60.0} if not set(given) & {"yaw", "pitch"} else {"yaw": 0.0}
    angles = _angles(given, **first, pitch=0.0, roll=0.0)
    return _around(given, rig_delta(**angles))


def _around(given: dict[str, str], turn: Float64[np.ndarray, " 10"]) -> Motion:
    def motion(share: Float64[np.ndarray, " time"], subject: Subject) -> Float64[np.ndarray, "time 10"]:
        amount = _way(given, "in", "out", "0", subject)
        rig = share[:, None] * turn
        _closer(amount, subject)
        rig[:, COLUMN["closer"]] = -np.log1p(-amount / subject.distance * share)
        return rig

    return motion


def _dolly(given: dict[str, str]) -> Motion:
    def delta(subject: Subject) -> Float64[np.ndarray, " 10"]:
        amount = _way(given, "in", "out", "30%", subject)
        _closer(amount, subject)
        return rig_delta(forward=amount)

    return _straight(delta)


def _dolly_zoom(given: dict[str, str]) -> Motion:
    dolly = _dolly(given)

    def motion(share: Float64[np.ndarray, " time"], subject: Subject) -> Float64[np.ndarray, "time 10"]:
        rig = dolly(share, subject)
        rig[:, COLUMN["zoom"]] = np.log1p(-rig[:, COLUMN["forward"]] / subject.distance)
        return rig

    return motion


def _truck(given: dict[str, str]) -> Motion:
    return _straight(lambda subject: rig_delta(right=_way(given, "right", "left", "20%", subject)))


def _pedestal(given: dict[str, str]) -> Motion:
    return _straight(lambda subject: rig_delta(up=_way(given, "up", "down", "20%", subject)))


def _turn(name: str, default: float) -> Callable[[dict[str, str]], Motion]:
    def build(given: dict[str, str]) -> Motion:
        angle = math.radians(parse_number(given.get("deg", default), "deg"))
        return _straight(lambda subject: rig_delta(**{name: angle}))

    return build


def _lens(given: dict[str, str]) -> Motion:
    factor = parse_number(given.get("x", 1.5), "x")
    if factor <= 0:
        raise InputError(f"lens:x={factor}", "a focal length factor > 0", "lens:x=1.5")
    return _straight(lambda subject: rig_delta(zoom=math.log(factor)))


def _spiral(given: dict[str, str]) -> Motion:
    turns = parse_number(given.get("turns", 2), "turns")
    angle = math.radians(parse_number(given.get("angle", 15), "angle"))

    def motion(share: Float64[np.ndarray, " time"], subject: Subject) -> Float64[np.ndarray, "time 10"]:
        rig = _around(given, rig_delta())(share, subject)
        phase = 2 * np.pi * turns * share
        rig[:, COLUMN["yaw"]] = angle * share * np.sin(phase)
        rig[:, COLUMN["pitch"]] = angle * share * np.cos(phase)
        return rig

    return motion


_IN_OUT = {"in": "towards the subject, a length", "out": "away from the subject, a length"}
_ORBIT = {
    "yaw": "degrees around the subject, + to the right",
    "pitch": "degrees around the subject, + up",
    "roll": "degrees, + turns the picture clockwise",
    **_IN_OUT,
}

PRESETS: dict[str, Preset] = {
    "static": Preset({}, "the camera stands still", lambda given: _straight(lambda subject: rig_delta()), "static"),
    "orbit": Preset(_ORBIT, "turn around the subject, which stays on its pixel", _orbit, "orbit:yaw=60,pitch=10"),
    "dolly": Preset(_IN_OUT, "move along the optical axis", _dolly, "dolly:in=30%"),
    "dolly-zoom": Preset(
        _IN_OUT, "move along the optical axis while the lens keeps the subject's size", _dolly_zoom, "dolly-zoom:in=40%"
    ),
    "truck": Preset({"right": "a length", "left": "a length"}, "move sideways", _truck, "truck:right=20%"),
    "pedestal": Preset({"up": "a length", "down": "a length"}, "move up or down", _pedestal, "pedestal:up=20%"),
    "roll": Preset(
        {"deg": "degrees, + turns the picture clockwise"}, "turn about the optical axis", _turn("roll", 15), "roll:20"
    ),
    "pan": Preset({"deg": "degrees, + to the right"}, "turn on the spot, sideways", _turn("pan", 15), "pan:15"),
    "tilt": Preset({"deg": "degrees, + up"}, "turn on the spot, up or down", _turn("tilt", 10), "tilt:10"),
    "lens": Preset({"x": "focal length factor"}, "zoom with the lens; the camera stands still", _lens, "lens:x=1.5"),
    "spiral": Preset(
        {"turns": "rounds", "angle": "degrees from the axis at the end", **_IN_OUT},
        "circle ever further from the axis, looking at the subject",
        _spiral,
        "spiral:turns=2,angle=15",
    ),
    "bullet-time": Preset(
        {**_ORBIT, "frame": "the source frame that stands still; default: the one reached"},
        "an orbit while time stands still",
        _orbit,
        "bullet-time:yaw=60",
        freezes_time=True,
    ),
}

#: Options that every preset takes.
COMMON = {
    "ease": "linear, in, out, in-out, smooth, sine",
    "for": "share of the clip's time: 40%, 12f or 1.5s",
    "at": "the subject: center, near, 320x180, 100x50-300x400, or a depth",
}


def unknown_preset(name: str, others: tuple[str, ...]) -> InputError:
    """The error that names close matches."""
    known = [*PRESETS, *others]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return InputError(
        f"unknown camera preset or file {name!r}",
        f"one of {', '.join(known)}, or a camera file that exists",
        " or ".join(close) if close else "orbit:60",
    )
