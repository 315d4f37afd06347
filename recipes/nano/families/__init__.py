"""Made clips that look more like the world than boxes do: `make_clip(family, seed, ...)` is a function of its arguments alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ex4d.errors import InputError
from families import animals, floating, interiors, outdoors, people
from families.types import FamilyClip, Textured

__all__ = ["FAMILIES", "FamilyClip", "Textured", "make_clip"]

#: Seeds of the project's own held-out clips; training takes seeds below 100,000 and from 200,000 to 999,999.
HELD_OUT = range(1_000_000, 1_009_001)

#: Family to its maker: (generator, frames, size_hw, seed) -> clip.
FAMILIES: dict[str, Callable[[np.random.Generator, int, tuple[int, int], int], FamilyClip]] = {
    "floating": floating.make,
    "people": people.make,
    "animals": animals.make,
    "outdoors": outdoors.make,
    "interiors": interiors.make,
    "backdrops": floating.make_before_pictures,
}


def make_clip(family: str, seed: int, *, frames: int, size_hw: tuple[int, int]) -> FamilyClip:
    """The clip of a family and seed. Another number of frames shows the same things from about the same places, moving as far."""
    if family not in FAMILIES:
        raise InputError(f"family {family!r}", f"one of {', '.join(FAMILIES)}")
    if seed < 0 or frames < 1 or min(size_hw) < 8:
        raise InputError(
            f"seed {seed}, {frames} frames of {size_hw}", "seed >= 0, one frame or more, sides of 8 or more"
        )
    rng = np.random.default_rng((20261126, list(FAMILIES).index(family), seed))
    return FAMILIES[family](rng, frames, size_hw, seed)
