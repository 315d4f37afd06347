"""Lengths in units users have, turned into scene units."""

from __future__ import annotations

import math
import re

from ex4d.cameras.subject import Subject
from ex4d.errors import InputError

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_LENGTH = re.compile(rf"({_NUMBER})\s*(%w|%h|%|deg|mm|cm|m|u)?")

METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}

LENGTH_HELP = "30% of the subject's distance, 10%w or 10%h of the frame at the subject, 20deg seen from the subject, 0.5m (metric depth), 0.5u scene units"


def parse_length(text: str | float, subject: Subject) -> float:
    """A length in scene units.

    Args:
        text: A number with a unit: `%` of the subject's distance; `%w`, `%h` of the frame's width or height as it lies at
            the subject's depth; `deg`, the sideways move after which the subject is seen under another angle (distance
            times tangent); `m`, `cm`, `mm` when depth is metric; `u` or nothing for scene units.
        subject: What percentages refer to.
    """
    match = _LENGTH.fullmatch(str(text).strip())
    if not match:
        raise InputError(f"length {str(text)!r}", LENGTH_HELP, "30%")
    value, unit = float(match[1]), match[2] or "u"
    if unit == "%":
        return value / 100 * subject.distance
    if unit in ("%w", "%h"):
        axis, size_px = (0, subject.size_hw[1]) if unit == "%w" else (1, subject.size_hw[0])
        return value / 100 * size_px * subject.distance / float(subject.K[axis, axis])
    if unit == "deg":
        if abs(value) >= 90:
            raise InputError(f"length {text!r}", "an angle under 90 degrees", "orbit, for larger angles")
        return subject.distance * math.tan(math.radians(value))
    if unit in METRES:
        if subject.unit != "metric":
            raise InputError(f"length {text!r} with relative depth", "metric depth for metres", "30% of the subject's distance")  # fmt: skip
        return value * METRES[unit]
    return value


def parse_number(text: str | float, name: str) -> float:
    """A finite plain number; `name` says what of, in the error. A trailing `deg` is allowed."""
    try:
        value = float(str(text).strip().removesuffix("deg"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name}={text}", "a number", f"{name}=30")
    return value
