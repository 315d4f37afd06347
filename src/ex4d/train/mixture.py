"""Which kind of simulated mask an example gets: shares per kind, and how they move over the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ex4d.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

#: Mask kinds in the order of their codes in the data (`kind`): rendering masks carried over to another clip or pose
#: ("transplanted") or warped back into the source view ("aligned"), tracking masks, random shapes, and renders of a real
#: second view, where the data has one.
KINDS = ("transplanted", "aligned", "tracking", "shapes", "view")

#: METHOD 5.3's suggestion: R-A 40 %, R-B 30 %, tracking 30 %.
RELEASED_LIKE = {"transplanted": 0.4, "aligned": 0.3, "tracking": 0.3}


@dataclass(frozen=True)
class MixtureConfig:
    """Shares of the mask kinds; they are normalised over the kinds that a clip has."""

    shares: dict[str, float] = field(default_factory=lambda: dict(RELEASED_LIKE))
    #: Shares at step 0; they move linearly to `shares` over `curriculum_steps`. Empty: no curriculum.
    start_shares: dict[str, float] = field(default_factory=dict)
    curriculum_steps: int = 0
    #: Examples whose condition shows less or more of the clip than this are never drawn (METHOD 5.3: 10 and 98 %).
    coverage: tuple[float, float] = (0.10, 0.98)

    def __post_init__(self) -> None:
        for name, shares in (("shares", self.shares), ("start_shares", self.start_shares)):
            if wrong := sorted(set(shares) - set(KINDS)):
                raise InputError(f"mixture.{name} names {wrong[0]!r}", f"kinds {', '.join(KINDS)}", "")
            if shares and (min(shares.values()) < 0 or sum(shares.values()) <= 0):
                raise InputError(f"mixture.{name} {shares}", "shares of at least 0 that are not all 0", "")
        if not self.shares:
            raise InputError("mixture.shares is empty", "at least one kind", "shares: {aligned: 1}")

    def at(self, step: int) -> tuple[float, ...]:
        """Shares at a step, in the order of KINDS, sum 1."""
        end = _normalised(self.shares)
        if not self.start_shares or step >= self.curriculum_steps:
            return end
        start, a = _normalised(self.start_shares), step / self.curriculum_steps
        return tuple((1 - a) * s + a * e for s, e in zip(start, end, strict=True))


def _normalised(shares: dict[str, float]) -> tuple[float, ...]:
    total = sum(shares.values())
    return tuple(shares.get(kind, 0.0) / total for kind in KINDS)


def draw_weights(kind: Tensor, coverage: Tensor, config: MixtureConfig, step: int) -> Tensor:
    """Probability of each cached condition of each clip (not normalised), [B, K] float32.

    Conditions of one kind share that kind's probability, so many variants of a kind do not make it more frequent. A clip all of
    whose conditions have weight zero (a kind it lacks, extreme coverage) falls back on equal chances.

    Args:
        kind: Codes (indices into KINDS), [B, K] integer.
        coverage: Mean share of seen pixels, [B, K], 0..1.
    """
    import torch

    shares = torch.tensor(config.at(step), device=kind.device, dtype=torch.float32)
    low, high = config.coverage
    usable = ((coverage >= low) & (coverage <= high)).float()
    same = (kind[:, :, None] == kind[:, None, :]).float() * usable[:, None, :]
    weight = shares[kind.long()] * usable / same.sum(dim=2).clamp_min(1)
    return torch.where(weight.sum(dim=1, keepdim=True) > 0, weight, torch.ones_like(weight))
