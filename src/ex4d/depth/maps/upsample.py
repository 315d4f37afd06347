"""Maps of a small network at the picture's own size, with edges where the picture has them."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from ex4d.depth.maps.edges import COLOR_SIGMA, clean_edges, step_pixels

#: Half width, in pixels of the small map, of the neighbourhood a pixel beside an edge may choose from, and how soon a
#: neighbour's say falls with its distance.
REACH, REACH_SIGMA = 2, 1.0


def upsample_map(
    map_: Float32[np.ndarray, "h w"],
    small: UInt8[np.ndarray, "h w 3"],
    color: UInt8[np.ndarray, "height width 3"],
) -> Float32[np.ndarray, "height width"]:
    """1/z at the size of `color`: bilinear on surfaces; beside a depth edge the side whose colours a pixel shares, never a mean.

    Args:
        map_: 1/z > 0 up to a scale, at the network's size.
        small: The picture at that size.
        color: The picture at its own size.
    """
    sharp = (1 / clean_edges(1 / map_, small, REACH)).astype(np.float32)
    (h, w), (height, width) = map_.shape, color.shape[:2]
    if (h, w) == (height, width):
        return sharp
    if height < h or width < w:
        return cv2.resize(sharp, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    out = cv2.resize(sharp, (width, height), interpolation=cv2.INTER_LINEAR)
    edge, far, near = step_pixels(sharp, REACH)
    if not edge.any():
        return out
    y, x = np.nonzero(cv2.resize(edge.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
    v, u = (y + 0.5) * (h / height) - 0.5, (x + 0.5) * (w / width) - 0.5
    row, column = np.rint(v).astype(np.intp), np.rint(u).astype(np.intp)
    at_center = np.clip(row, 0, h - 1), np.clip(column, 0, w - 1)
    middle, own = ((far + near) / 2)[at_center], color[y, x].astype(np.float32)
    colors, votes, sums = small.astype(np.float32), np.zeros((2, len(y)), np.float32), np.zeros((2, len(y)), np.float32)
    for dy in range(-REACH, REACH + 1):
        for dx in range(-REACH, REACH + 1):
            there = np.clip(row + dy, 0, h - 1), np.clip(column + dx, 0, w - 1)
            value = sharp[there]
            away = (row + dy - v) ** 2 + (column + dx - u) ** 2
            unlike = ((colors[there] - own) ** 2).sum(axis=-1)
            weight = np.exp(-unlike / (2 * COLOR_SIGMA**2) - away / (2 * REACH_SIGMA**2)) + 1e-12
            for side, agrees in enumerate((value < middle, value >= middle)):
                votes[side] += weight * agrees
                sums[side] += weight * agrees * value
    side, each = (votes[1] > votes[0]).astype(np.intp), np.arange(len(y))
    out[y, x] = sums[side, each] / votes[side, each]
    return out
