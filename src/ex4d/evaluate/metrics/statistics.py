"""Means with bootstrap intervals: every number of a report carries n and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Resamples of a bootstrap; its own error at the 2.5 % tail is then about 0.5 % of the interval's width.
RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """A mean over items.

    Attributes:
        mean: Of the finite values.
        low, high: 95 % bootstrap interval of the mean (percentile method, resampling groups); NaN for one group.
        sd: Standard deviation over the groups (scenes, clips or seeds), 0 for one.
        n: Finite values.
        skipped: Values that were not finite (no such pixels), left out.
    """

    mean: float
    low: float
    high: float
    sd: float
    n: int
    skipped: int = 0


def summarize(values: Sequence[float], groups: Sequence[object] | None = None, seed: int = 0) -> Summary:
    """Mean, interval and spread; values of one group (a clip seen at several angles) are averaged before resampling."""
    x = np.asarray(values, np.float64)
    finite = np.isfinite(x)
    if not finite.any():
        return Summary(math.nan, math.nan, math.nan, math.nan, 0, len(x))
    names = list(range(len(x))) if groups is None else list(groups)
    by_group: dict[object, list[float]] = {}
    for name, value in zip(names, x, strict=True):
        if np.isfinite(value):
            by_group.setdefault(name, []).append(float(value))
    means = np.array([np.mean(v) for v in by_group.values()])
    if len(means) < 2:
        return Summary(float(means[0]), math.nan, math.nan, 0.0, int(finite.sum()), int((~finite).sum()))
    rng = np.random.Generator(np.random.PCG64(seed))
    draws = means[rng.integers(0, len(means), (RESAMPLES, len(means)))].mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    sd = float(means.std(ddof=1))
    return Summary(float(means.mean()), float(low), float(high), sd, int(finite.sum()), int((~finite).sum()))


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Summary:
    """Summary of a - b over the same items: an interval that excludes 0 is a difference."""
    return summarize([x - y for x, y in zip(a, b, strict=True)], seed=seed)


def proportion(successes: int, n: int, seed: int = 0) -> Summary:
    """A share with its 95 % Wilson interval (sd is that of one draw)."""
    if n == 0:
        return Summary(math.nan, math.nan, math.nan, math.nan, 0)
    z, p = 1.959963984540054, successes / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Summary(p, center - half, center + half, math.sqrt(p * (1 - p)), n)
