"""Scores of a claimed mask against the true one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ex4d.evaluate.metrics.image import check_pair


class MaskScore(NamedTuple):
    """Shares between 0 and 1; NaN where the denominator is empty."""

    precision: float
    recall: float
    f1: float
    iou: float
    coverage: float


def mask_score(claimed: np.ndarray, truth: np.ndarray) -> MaskScore:
    """Precision, recall, F1 and IoU of bool arrays of one shape; `coverage` is the claimed share of all pixels."""
    check_pair(claimed, truth)
    both = int(np.count_nonzero(claimed & truth))
    said, true = int(np.count_nonzero(claimed)), int(np.count_nonzero(truth))

    def ratio(a: int, b: int) -> float:
        return a / b if b else math.nan

    return MaskScore(
        ratio(both, said),
        ratio(both, true),
        ratio(2 * both, said + true),
        ratio(both, said + true - both),
        said / claimed.size,
    )
