"""Smooth maps along optical flow: each pixel is averaged with itself in the neighbouring frames."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8

from ex4d.pixels.flow import dense_flow, pull

#: A pixel that does not come back within this many pixels (there and back along the flow) was hidden in one of the frames.
THERE_AND_BACK_PX = 1.0

#: Relative difference of a map's value at which a neighbour in time counts half: more is another surface.
VALUE_SIGMA = 0.05


def filter_along_flow(
    grays: UInt8[np.ndarray, "time h w"], maps: Float32[np.ndarray, "time h w"], center: int
) -> Float32[np.ndarray, "h w"]:
    """The map of frame `center`, averaged with its neighbours.

    Neighbours come in pairs at equal distance before and after, so that steady motion in depth is not held back; where one
    of a pair is missing, hidden, or shows another surface, the pair takes no part.
    """
    here = maps[center]
    total, weight = here.copy(), np.ones_like(here)
    for distance in range(1, min(center, len(maps) - 1 - center) + 1):
        values, trust = [], np.ones_like(here)
        for other in (center - distance, center + distance):
            there, back = dense_flow(grays[center], grays[other]), dense_flow(grays[other], grays[center])
            gap = np.linalg.norm(there + pull(back, there), axis=-1)
            values.append(pull(maps[other], there))
            trust *= (gap < THERE_AND_BACK_PX) / distance
        mean = (values[0] + values[1]) / 2
        scale = VALUE_SIGMA * np.maximum(np.abs(here), 1e-6)
        for value in (values[0] - mean, mean - here):
            trust /= 1 + (value / scale) ** 2
        total += 2 * trust * mean
        weight += 2 * trust
    return total / weight
