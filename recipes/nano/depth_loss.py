"""The loss of the depth network, on log disparity, blind to what a clip's one scale may be."""

from __future__ import annotations

import torch
from depth_data import FARTHEST, NEAREST
from torch import Tensor
from torch.nn import functional as F

#: Weights of the terms next to the L1 of log depth.
EDGES, TIME, ANCHOR = 0.4, 0.3, 0.05
#: Every so many pixels vote for a clip's median.
MEDIAN_STRIDE = 5


def depth_loss(log_disparity: Tensor, depth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss over clips [B, T, h, w] of float32 log disparity (not clamped) and depth in metres (0, NaN: unknown).

    Sum of the L1 of log depth after one scale a clip, gradient matching of the log error at four scales and in time (after MiDaS,
    Ranftl et al. 2020), and a weak pull towards metres.

    No term but that pull may move a clip's scale: a loss that pushes along a direction it does not see drives the output out of
    every range in the end. An L1 about its own median does not push, though the median is taken as a constant.
    """
    known = torch.isfinite(depth) & (depth > 0)
    z = torch.where(known, depth.float(), 1.0).clamp(NEAREST, FARTHEST)
    error = -log_disparity.float() - z.log()
    with torch.no_grad():
        votes = torch.where(known, error, torch.nan).flatten(1)[:, ::MEDIAN_STRIDE]
        middle = votes.nanmedian(dim=1).values.nan_to_num(0).view(-1, 1, 1, 1)
    count = known.flatten(1).sum(1).clamp_min(1)
    drift = torch.where(known, error, 0.0).flatten(1).sum(1) / count
    error = torch.where(known, error - middle, 0.0)
    plain = error.abs().mean()
    time = error.diff(dim=1).abs().mean() if error.shape[1] > 1 else error.new_zeros(())
    edges, level = error.new_zeros(()), error
    for _ in range(4):
        edges = edges + level.diff(dim=-1).abs().mean() + level.diff(dim=-2).abs().mean()
        level = F.avg_pool2d(level, 2)
    anchor = F.smooth_l1_loss(drift, torch.zeros_like(drift))
    total = plain + EDGES * edges + TIME * time + ANCHOR * anchor
    return total, {"log": plain.detach(), "edges": edges.detach(), "drift": drift.detach().abs().mean()}


@torch.no_grad()
def spread(disparity: Tensor, depth: Tensor) -> float:
    """Standard deviation of a clip's log disparity over that of the true log depth: 0 is a collapse, about 1 is right."""
    z = depth.float().clamp(NEAREST, FARTHEST).log()
    return float(disparity.float().log().std() / z.std().clamp_min(1e-6))
