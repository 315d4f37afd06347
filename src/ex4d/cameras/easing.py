"""Easing: how the share of a motion that is done grows with the share of its time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from ex4d.errors import InputError

Share = Float64[np.ndarray, "*batch"]

EASINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda s: s,
    "in": lambda s: s * s,
    "out": lambda s: s * (2 - s),
    "in-out": lambda s: s * s * (3 - 2 * s),
    "smooth": lambda s: s * s * s * (s * (6 * s - 15) + 10),
    "sine": lambda s: (1 - np.cos(np.pi * s)) / 2,
}


def ease(name: str, share: Float64[np.ndarray, "*batch"]) -> Float64[np.ndarray, "*batch"]:
    """The eased share, 0 at 0 and 1 at 1, never decreasing."""
    if name not in EASINGS:
        raise InputError(f"ease={name}", f"one of {', '.join(EASINGS)}", "ease=in-out")
    return EASINGS[name](share)
