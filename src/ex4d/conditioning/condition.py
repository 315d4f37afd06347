"""From 0..255 renders to the -1..1 tensors the diffusion model is conditioned on (METHOD 6.1)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from ex4d.errors import InputError
from ex4d.types import Condition

#: EX-4D release, generate.py: each frame's mask is eroded by a k x k square, k drawn anew from this range, both ends included.
EROSION_KERNELS_PX = (2, 8)


@dataclass(frozen=True)
class ConditionRule:
    """How renders become conditions.

    Attributes:
        erosion_px: A fixed erosion kernel, or None to draw each frame's as the release does, from the seed.
        bfloat16: Round colour to bfloat16, as the release does before anything else sees it.
        blackout: Black out what is unknown, as released; False keeps the colour there (a fill that is to be refined).
        truncate_first_frame: Truncate the first frame to uint8 instead of rounding (a shift of up to one level).
    """

    erosion_px: int | None = None
    bfloat16: bool = False
    blackout: bool = True
    truncate_first_frame: bool = False

    def __post_init__(self) -> None:
        if self.erosion_px is not None and self.erosion_px < 1:
            raise InputError(f"erosion of {self.erosion_px} px", "1 or more", "--erosion 5, or leave it out")

    @classmethod
    def reference(cls) -> ConditionRule:
        """The released behaviour, except that the seed decides the kernels."""
        return cls(bfloat16=True, truncate_first_frame=True)

    def kernels(self, num_frames: int, seed: int) -> list[int]:
        """Erosion kernel of every frame, pixels."""
        if self.erosion_px is not None:
            return [self.erosion_px] * num_frames
        draw = random.Random(seed)
        return [draw.randint(*EROSION_KERNELS_PX) for _ in range(num_frames)]


def erode(
    mask: UInt8[np.ndarray, "time height width"], kernels_px: Sequence[int]
) -> UInt8[np.ndarray, "time height width"]:
    """Shrink the known area of each frame by its own square kernel; the picture's edge never erodes."""
    if len(kernels_px) != len(mask):
        raise InputError(f"{len(kernels_px)} erosion kernels for {len(mask)} masks", "one for each frame", "")
    return np.stack([cv2.erode(frame, np.ones((k, k), np.uint8)) for frame, k in zip(mask, kernels_px, strict=True)])


def make_condition(
    color: UInt8[np.ndarray, "time height width 3"],
    mask: UInt8[np.ndarray, "time height width"],
    rule: ConditionRule = ConditionRule(),
) -> Condition:
    """Black out what is unknown and scale to -1..1; `mask` is 0..255, already eroded, known above half."""
    check_same_length(color, mask)
    known = torch.from_numpy(mask > 127)
    scaled = torch.from_numpy(np.ascontiguousarray(color)).float() / 255
    if rule.blackout:
        scaled = scaled * known[..., None]
    if rule.bfloat16:
        scaled = (scaled.bfloat16() * 2 - 1).float()
    else:
        scaled = scaled * 2 - 1
    plane = known.float() * 2 - 1
    return Condition(
        color=scaled.permute(3, 0, 1, 2)[None].contiguous(),
        mask=plane[None, None].expand(1, 3, *plane.shape).contiguous(),
    )


def check_same_length(color: np.ndarray, mask: np.ndarray) -> None:
    """Raise InputError unless colour and mask are the same frames of the same size."""
    if len(color) != len(mask):
        raise InputError(
            f"{len(color)} colour frames but {len(mask)} mask frames",
            "two videos of the same length",
            "render both from the same camera path",
        )
    if color.shape[1:3] != mask.shape[1:3]:
        raise InputError(
            f"colour of {color.shape[2]}x{color.shape[1]} but mask of {mask.shape[2]}x{mask.shape[1]}",
            "the same size",
            "render both from the same camera path",
        )


def sample_frames(num_source: int, num_frames: int) -> list[int]:
    """The release's frame choice: evenly spaced indices cut to integers, or all of them with the last one repeated."""
    if num_source < 1:
        raise InputError("a clip without frames", "one frame or more", "")
    if num_source >= num_frames:
        return [int(i) for i in np.linspace(0, num_source - 1, num_frames)]
    return list(range(num_source)) + [num_source - 1] * (num_frames - num_source)


def released_condition(
    color: UInt8[np.ndarray, "n h0 w0 3"],
    mask: UInt8[np.ndarray, "n h0 w0"],
    num_frames: int,
    size_hw: tuple[int, int],
    kernels_px: Sequence[int],
) -> Condition:
    """Read a colour and mask pair exactly as the released generate.py: sampled, squashed to `size_hw`, eroded, padded.

    `kernels_px` holds one kernel for each source frame that is kept, before the last one is repeated.
    """
    check_same_length(color, mask)
    kept = sample_frames(len(color), num_frames)[: min(len(color), num_frames)]
    size_wh = (size_hw[1], size_hw[0])
    colors = np.stack([cv2.resize(color[i], size_wh) for i in kept])
    masks = erode(np.stack([cv2.resize(mask[i], size_wh) for i in kept]), kernels_px)
    repeat = [*range(len(kept)), *[len(kept) - 1] * (num_frames - len(kept))]
    return make_condition(colors[repeat], masks[repeat], ConditionRule.reference())


def mask_for_vae(
    mask: Float[torch.Tensor, "batch 3 time height width"], affine: tuple[float, float]
) -> Float[torch.Tensor, "batch 3 time height width"]:
    """What the VAE sees of a -1..1 mask: the release scales it a second time, to -3 and 1, and its weights expect that."""
    return mask * affine[0] + affine[1]
