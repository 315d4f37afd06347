"""From a clip and its masks to one cached sample."""

from __future__ import annotations

import numpy as np
import torch

from ex4d.conditioning.condition import make_condition, mask_for_vae
from ex4d.models.wan.files.adapter import MASK_AFFINE
from ex4d.train.masks.make import SimulatedMask
from ex4d.train.mixture import KINDS
from ex4d.train.prepare.encoders import Encoders


def make_sample(
    frames: np.ndarray, masks: list[SimulatedMask], prompt: str, encoders: Encoders
) -> dict[str, np.ndarray]:
    """Arrays of `train.flow.CONDITION_FIELDS` and the clip's own, for `ShardWriter.write`.

    Args:
        frames: RGB uint8 [T, H, W, 3], T of the form 4k + 1.
        masks: At least one.
    """
    conditions = [make_condition(frames, m.mask.astype(np.uint8) * 255) for m in masks]
    return condition_sample(frames, conditions, masks, prompt, encoders)


def condition_sample(target: np.ndarray, conditions, masks: list[SimulatedMask], prompt: str, encoders: Encoders):
    """The same from ready conditions, whose colour may come from another view than the target (kind "view")."""
    video = as_video(target)
    arrays = {
        "latents": encoders.latents(video),
        "image_latents": encoders.image_latents(conditions[0].color[:, :, 0], len(target)),
        "text": encoders.text(prompt),
        "color_latents": np.stack([encoders.latents(c.color) for c in conditions]),
        "mask_latents": np.stack([encoders.latents(mask_for_vae(c.mask, MASK_AFFINE)) for c in conditions]),
        "hole": np.stack([hole_cells(m.mask, encoders.cell()) for m in masks]),
        "kind": np.array([KINDS.index(m.kind) for m in masks], np.uint8),
        "coverage": np.array([m.coverage for m in masks], np.float32),
    }
    tokens = encoders.image_tokens(conditions[0].color[:, :, 0])
    return arrays if tokens is None else {**arrays, "image_tokens": tokens}


def as_video(frames: np.ndarray) -> torch.Tensor:
    """uint8 [T, H, W, 3] to [1, 3, T, H, W] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def hole_cells(mask: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """Unseen share of each latent cell in 255ths, uint8 [T', h, w]: the first frame alone, then groups."""
    frames, pixels = cell
    t, h, w = mask.shape
    hidden = (~mask).astype(np.float32)
    small = hidden.reshape(t, h // pixels, pixels, w // pixels, pixels).mean((2, 4))
    rest = small[1:].reshape((t - 1) // frames, frames, *small.shape[1:]).mean(1)
    return (255 * np.concatenate([small[:1], rest])).round().astype(np.uint8)
