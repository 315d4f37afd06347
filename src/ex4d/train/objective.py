"""The flow-matching objective: released timesteps and weights, and the two changes that a small model from scratch wants.

Released (METHOD 9.1; DiffSynth's Wan trainer of early 2025): sigma = shift s / (1 + (shift - 1) s) on s = linspace(1, 0, 1001)
without its end, shift 5; x_t = (1 - sigma) x0 + sigma noise; target noise - x0; squared error in float32, times w(t).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from ex4d.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Length of the training table and the span of its timesteps (DiffSynth: set_timesteps(1000, training=True)).
TABLE_STEPS = 1000


@dataclass(frozen=True)
class ObjectiveConfig:
    """How a training example is noised and scored. The defaults are the released ones."""

    #: Timestep shift of the schedule, the same as in generation.
    shift: float = 5.0
    #: "released": the bell around t = 500, zero at t = 1000; "uniform": 1 everywhere.
    weighting: Literal["released", "uniform"] = "released"
    #: Share of the examples drawn at sigma = 1 (pure noise), for models that will be used in one or few steps.
    #: Needs weighting="uniform": the released weight is zero there.
    pure_noise_share: float = 0.0
    #: Weight of unseen latent cells relative to seen ones; 1 is the plain mean.
    hole_weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise InputError(f"objective.shift {self.shift}", "a number above 0", "shift: 5.0")
        if not 0 <= self.pure_noise_share <= 1:
            raise InputError(f"objective.pure_noise_share {self.pure_noise_share}", "0..1", "pure_noise_share: 0.3")
        if not self.hole_weight > 0:
            raise InputError(f"objective.hole_weight {self.hole_weight}", "a number above 0", "hole_weight: 1.0")
        if self.weighting not in ("released", "uniform"):
            raise InputError(f"objective.weighting {self.weighting!r}", "released or uniform", "weighting: released")
        if self.pure_noise_share > 0 and self.weighting == "released":
            raise InputError(
                "objective.pure_noise_share above 0 with weighting released, whose weight at sigma 1 is zero",
                "weighting: uniform",
                "weighting: uniform, or pure_noise_share: 0",
            )


@lru_cache(maxsize=8)
def schedule_table(shift: float = 5.0, steps: int = TABLE_STEPS) -> tuple[Tensor, Tensor, Tensor]:
    """sigma in (0, 1], timestep = 1000 sigma and weight w(t) of every training index, [steps] float32 each.

    w = g * steps / sum(g) with g = exp(-2 ((t - 500) / 1000)^2) less its minimum: zero at t = 1000, mean 1 over the table.
    """
    import torch

    s = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)[:-1]
    sigma = shift * s / (1 + (shift - 1) * s)
    t = TABLE_STEPS * sigma
    bell = torch.exp(-2 * ((t - TABLE_STEPS / 2) / TABLE_STEPS) ** 2)
    bell = bell - bell.min()
    weight = bell * (steps / bell.sum())
    return sigma.float(), t.float(), weight.float()


@lru_cache(maxsize=8)
def _tables_on(shift: float, device: str) -> tuple[Tensor, ...]:
    return tuple(table.to(device) for table in schedule_table(shift))


@dataclass(frozen=True)
class Noised:
    """One batch, noised.

    Attributes:
        x_t: [B, C, T, h, w], what the denoiser sees.
        target: noise - x0, the same shape.
        timestep: [B] float32, 0..1000.
        weight: [B] float32, w(t) of each example.
    """

    x_t: Tensor
    target: Tensor
    timestep: Tensor
    weight: Tensor


def draw_noised(x0: Tensor, config: ObjectiveConfig, generator: torch.Generator) -> Noised:
    """Draw an index per example uniformly over the table and Gaussian noise, and mix.

    Args:
        x0: Clean latents [B, C, T, h, w]; `generator` lives on the same device.
    """
    import torch

    sigma, _, weight = _tables_on(config.shift, str(x0.device))
    batch, device = x0.shape[0], x0.device
    index = torch.randint(0, TABLE_STEPS, (batch,), generator=generator, device=device)
    if config.pure_noise_share > 0:
        pure = torch.rand(batch, generator=generator, device=device) < config.pure_noise_share
        index = torch.where(pure, torch.zeros_like(index), index)  # index 0 is sigma = 1
    noise = torch.randn(x0.shape, generator=generator, device=device, dtype=torch.float32)
    w = weight[index] if config.weighting == "released" else torch.ones_like(weight[index])
    return noised_at(x0, noise, sigma[index], w)


def noised_at(x0: Tensor, noise: Tensor, sigma: Tensor, weight: Tensor) -> Noised:
    """Mix at given sigmas [B]; float32 whatever the latents are stored in."""
    x0 = x0.float()
    s = sigma.view(-1, *[1] * (x0.ndim - 1))
    return Noised((1 - s) * x0 + s * noise, noise - x0, TABLE_STEPS * sigma, weight)


def flow_loss(prediction: Tensor, noised: Noised, hole: Tensor | None = None, hole_weight: float = 1.0) -> Tensor:
    """Weighted mean squared error per example, [B] float32.

    Args:
        prediction: [B, C, T, h, w], any floating dtype.
        hole: Share of each latent cell that the condition does not show, 0..1, [B, T, h, w]; needed when `hole_weight` is not 1.
        hole_weight: Weight of an unseen cell; a seen one weighs 1, and the weights are normalised to mean 1 per example.
    """
    error = (prediction.float() - noised.target).square()
    if hole_weight != 1.0:
        if hole is None:
            raise InputError(
                "objective.hole_weight without hole maps in the data", "the field `hole`", "hole_weight: 1.0"
            )
        w = 1 + (hole_weight - 1) * hole.float()
        error = error * (w / w.mean(dim=(1, 2, 3), keepdim=True))[:, None]
    return error.flatten(1).mean(dim=1) * noised.weight
