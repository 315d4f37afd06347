"""The path language: `orbit:yaw=60,pitch=10 + dolly:in=20% then static @ slow=0.5`.

    path     = sequence ["@" remap]
    sequence = together ("then" together)*     one after the other; each goes on from where the last one ended
    together = preset ("+" preset)*            at the same time
    preset   = name [":" value-or-option ("," option)*]
    option   = name "=" value

A released preset (30, 60, 90, 180, 180_outer, zoom_in, zoom_out, each with a sign) stands where a preset stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ex4d.cameras.words.moves import COMMON, PRESETS, unknown_preset
from ex4d.cameras.words.released import RELEASED, parse_released
from ex4d.errors import InputError

_THEN = re.compile(r"\s+then\s+|\s*>\s*")
_PLUS = re.compile(r"\s+\+\s+|(?<=[\w%])\+(?=[a-z])")


@dataclass(frozen=True)
class Move:
    """One preset with its options as text. `released` is (sign, name) for a preset of the release."""

    name: str
    options: dict[str, str] = field(default_factory=dict)
    released: tuple[int, str] | None = None


@dataclass(frozen=True)
class PathSpec:
    """A parsed path: moves at the same time, in sequence; and the time remap, as text."""

    steps: tuple[tuple[Move, ...], ...]
    remap: str | None = None


def parse_path(text: str) -> PathSpec:
    """The path that a text describes; InputError names what was not understood and what is close to it."""
    body, _, remap = text.partition("@")
    body = body.strip()
    if not body:
        raise InputError(f"empty camera path {text!r}", "a preset", "orbit:60")
    steps = tuple(tuple(_parse_move(part) for part in _split_plus(step)) for step in _THEN.split(body))
    return PathSpec(steps, remap.strip() or None)


def _split_plus(step: str) -> list[str]:
    if parse_released(step.strip()):  # a sign in front is not a "+" between two moves
        return [step.strip()]
    return [part.strip() for part in _PLUS.split(step)]


def _parse_move(text: str) -> Move:
    name, _, rest = text.replace(":", ",", 1).partition(",")
    name = name.strip()
    released = parse_released(name)
    if released is None and name not in PRESETS:
        raise unknown_preset(name, RELEASED)
    known = ({} if released else PRESETS[name].options) | COMMON
    options: dict[str, str] = {}
    for index, part in enumerate(p.strip() for p in rest.split(",") if p.strip()):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals:
            if index or released or not PRESETS[name].options:
                raise InputError(f"{part!r} in {text!r}", "name=value", _example(name, known))
            key, value = next(iter(known)), key
        if key not in known:
            raise InputError(f"option {key!r} of {name}", f"one of {', '.join(known)}", _example(name, known))
        if key in options:
            raise InputError(f"option {key!r} given twice in {text!r}", "each option once", _example(name, known))
        options[key] = value
    return Move(name, options, released)


def _example(name: str, known: dict[str, str]) -> str:
    return PRESETS[name].example if name in PRESETS else f"{name}:ease=in-out"
