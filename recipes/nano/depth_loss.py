"""The loss of the depth network, on log disparity, blind to what a clip's one scale may be."""

from __future__ import annotations

import torch
from depth_data import FARTHEST, NEAREST
from torch import Tensor
from torch.nn import functional as F

#: Weights of the terms next to the L1 of log depth.
SCORED, EDGES, TIME, ANCHOR = 0.5, 0.4, 0.3, 0.05
#: Every so many pixels vote for a clip's median.
MEDIAN_STRIDE = 5
#: Ridge on the shift of a fit whose two columns have unit length: a flat guess has an answer, and a bounded derivative.
RIDGE = 0.02


def depth_loss(log_disparity: Tensor, depth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss over clips [B, T, h, w] of float32 log disparity (not clamped) and depth in metres (0, NaN: unknown).

    Sum of the L1 of log depth after one scale a clip, the relative error after one scale and shift of depth a clip (what is scored),
    gradient matching of the log error at four scales and in time (after MiDaS, Ranftl et al. 2020), and a weak pull towards metres.

    No term but that pull may move a clip's scale: a loss that pushes along a direction it does not see drives the output out of
    every range in the end. So the median is the L1's own optimum, and the fit is part of the derivative.
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
    scored = _scored(error, z, known, count)
    time = error.diff(dim=1).abs().mean() if error.shape[1] > 1 else error.new_zeros(())
    edges, level = error.new_zeros(()), error
    for _ in range(4):
        edges = edges + level.diff(dim=-1).abs().mean() + level.diff(dim=-2).abs().mean()
        level = F.avg_pool2d(level, 2)
    anchor = F.smooth_l1_loss(drift, torch.zeros_like(drift))
    total = plain + SCORED * scored + EDGES * edges + TIME * time + ANCHOR * anchor
    return total, {"log": plain.detach(), "rel": scored.detach(), "drift": drift.detach().abs().mean()}


def _scored(error: Tensor, z: Tensor, known: Tensor, count: Tensor) -> Tensor:
    """Mean relative error after the fit scale * guess + shift of each clip, least squares of the relative error, up to 2 a pixel.

    `error` is log(guess / z) up to a constant a clip, 0 where unknown.
    """
    share = known.flatten(1).double() / count[:, None]
    a = error.flatten(1).double().clamp(-8, 8).exp()  # guess / z
    b = 1 / z.flatten(1).double()
    a = a / (share * a * a).sum(1, keepdim=True).sqrt().clamp_min(1e-6)
    b = b / (share * b * b).sum(1, keepdim=True).sqrt().clamp_min(1e-6)
    ab, sa, sb = (share * a * b).sum(1), (share * a).sum(1), (share * b).sum(1)
    det = 1 + RIDGE - ab * ab
    scale, shift = ((1 + RIDGE) * sa - ab * sb) / det, (sb - ab * sa) / det
    # a guess that is right upside down would be fitted by a negative scale and sent further that way
    good = scale > 0.2 * sa
    scale, shift = torch.where(good, scale, sa), torch.where(good, shift, 0.0)
    off = (scale[:, None] * a + shift[:, None] * b - 1).abs().clamp_max(2)
    return (share * off).sum(1).float().mean()


@torch.no_grad()
def spread(disparity: Tensor, depth: Tensor) -> float:
    """Standard deviation of a clip's log disparity over that of the true log depth: 0 is a collapse, about 1 is right."""
    z = depth.float().clamp(NEAREST, FARTHEST).log()
    return float(disparity.float().log().std() / z.std().clamp_min(1e-6))
