"""Simulated masks of every kind for one clip, seeded, with the release's erosion: what `prepare` caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ex4d.conditioning.condition import ConditionRule, erode
from ex4d.errors import InputError
from ex4d.mesh.rule import DepthRange
from ex4d.train.data.batches import derived_seed
from ex4d.train.masks.rendering import rendering_mask
from ex4d.train.masks.shapes import shapes_mask
from ex4d.train.masks.tracking import GRID_SIZE, DenseFlowTracker, Tracker, tracking_mask
from ex4d.train.masks.trajectories import draw_trajectory, first_frame_path
from ex4d.train.mixture import KINDS
from ex4d.types import DepthClip

#: Draws of a mask whose coverage is outside the useful range before one is taken as it is.
TRIES = 4


@dataclass(frozen=True)
class MaskRule:
    """How masks are simulated.

    Attributes:
        variants: Masks of each kind per clip.
        kinds: Which kinds.
        coverage: Share of seen pixels over the clip, least and most (METHOD 5.3: 10 and 98 %).
        erosion_px: A fixed kernel, or None for the release's 2 to 8 px at 512, scaled with the picture's width.
    """

    variants: int = 2
    kinds: tuple[str, ...] = ("transplanted", "aligned", "tracking", "shapes")
    coverage: tuple[float, float] = (0.10, 0.98)
    erosion_px: int | None = None

    def __post_init__(self) -> None:
        if wrong := sorted(set(self.kinds) - set(KINDS[:4])):
            raise InputError(f"mask kind {wrong[0]!r}", f"of {', '.join(KINDS[:4])}", "")
        if self.variants < 1 or not self.kinds:
            raise InputError(f"{self.variants} variants of {len(self.kinds)} kinds", "at least one of each", "")


@dataclass(frozen=True)
class SimulatedMask:
    """One mask.

    Attributes:
        mask: Seen, bool [T, H, W]; the first frame is whole.
        kind: One of `mixture.KINDS`.
        note: What was drawn: trajectory, grid size.
    """

    mask: np.ndarray
    kind: str
    note: str

    @property
    def coverage(self) -> float:
        """Mean share of seen pixels after the first frame."""
        return float(self.mask[1:].mean()) if len(self.mask) > 1 else 1.0


def simulate_masks(
    frames: np.ndarray,
    depth: DepthClip | None,
    rule: MaskRule,
    seed: int,
    *,
    tracker: Tracker | None = None,
    rasterizer=None,
    depth_range: DepthRange | None = None,
) -> list[SimulatedMask]:
    """`rule.variants` masks of every kind; the same seed gives the same masks.

    Args:
        frames: RGB uint8 [T, H, W, 3].
        depth: Of the same frames; None leaves the rendering kinds out.
    """
    out = []
    for kind in rule.kinds:
        if depth is None and kind in ("transplanted", "aligned"):
            continue
        for variant in range(rule.variants):
            random = np.random.default_rng(derived_seed(seed, kind, variant))
            for attempt in range(TRIES):
                found = _one(kind, frames, depth, random, tracker or DenseFlowTracker(), rasterizer, depth_range)
                if attempt == TRIES - 1 or rule.coverage[0] <= found.coverage <= rule.coverage[1]:
                    break
            out.append(
                SimulatedMask(eroded(found.mask, rule, derived_seed(seed, kind, variant, "erosion")), kind, found.note)
            )
    return out


def _one(kind: str, frames, depth, random: np.random.Generator, tracker, rasterizer, depth_range) -> SimulatedMask:
    if kind == "shapes":
        return SimulatedMask(shapes_mask(random, len(frames), frames.shape[1:3]), kind, "")
    if kind == "tracking":
        size = int(random.integers(GRID_SIZE[0], GRID_SIZE[1], endpoint=True))
        return SimulatedMask(tracking_mask(frames, tracker, size), kind, f"grid {size}")
    trajectory = draw_trajectory(random, depth.depth[0])
    path = first_frame_path(trajectory, depth)
    aligned = kind == "aligned"
    mask = rendering_mask(depth, path, aligned=aligned, rasterizer=rasterizer, depth_range=depth_range)
    return SimulatedMask(mask, kind, f"{trajectory.family} {trajectory.amplitude_deg:+.0f} zoom {trajectory.zoom:+.2f}")


def eroded(mask: np.ndarray, rule: MaskRule, seed: int) -> np.ndarray:
    """The release's erosion, a kernel per frame from the seed; the first frame stays whole.

    The release erodes at 512 px; kernels shrink with smaller pictures, down to none.
    """
    kernels: Sequence[int] = ConditionRule(erosion_px=rule.erosion_px).kernels(len(mask), seed)
    if rule.erosion_px is None:
        scale = min(mask.shape[1:]) / 512
        kernels = [max(1, round(k * scale)) for k in kernels]
    return erode(mask.astype(np.uint8) * 255, kernels) > 127
