"""The first frame as CLIP and the VAE see it (METHOD 6.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

#: Side of the image tower's input, and OpenAI's CLIP mean and standard deviation (open-clip, every ViT-H/14 checkpoint).
CLIP_SIZE_PX = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def requantised(
    frame: Float[Tensor, "batch 3 height width"], truncate: bool = False
) -> Float[Tensor, "batch 3 height width"]:
    """A -1..1 frame after a trip through uint8; the release truncates, which shifts a quarter of the levels by one."""
    level = (frame.float() * 0.5 + 0.5) * 255
    level = (level.trunc() if truncate else level.round()).clamp(0, 255)
    return level * (2 / 255) - 1


def clip_pixels(
    image: Float[Tensor, "batch 3 height width"], size_px: int = CLIP_SIZE_PX
) -> Float[Tensor, "batch 3 size size"]:
    """CLIP's input from a -1..1 image: bicubic without antialias, aspect not kept, as the release (Q14: keep)."""
    small = F.interpolate(image.float(), size=(size_px, size_px), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(v, device=image.device).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (small * 0.5 + 0.5 - mean) / std


def image_condition(
    encode: Callable[[Tensor], Tensor],
    first_frame: Float[Tensor, "batch 3 height width"] | None,
    shape: tuple[int, int, int, int],
    temporal_stride: int = 4,
) -> Float[Tensor, "batch channels t h w"]:
    """The I2V condition y: a mask that marks latent frame 0, then the latents of [first frame, grey, grey, ...].

    Args:
        encode: Video in -1..1 -> normalised latents.
        first_frame: -1..1, or None when there is no clean one: grey everywhere and a mask of zeros.
        shape: (batch, frames, height, width) of the video.
        temporal_stride: Frames a latent frame holds; the mask has as many channels.
    """
    batch, num_frames, height, width = shape
    device = first_frame.device if first_frame is not None else None
    video = torch.zeros(batch, 3, num_frames, height, width, device=device)
    if first_frame is not None:
        video[:, :, 0] = first_frame
    latents = encode(video)
    mask = torch.zeros(batch, temporal_stride, *latents.shape[2:], dtype=latents.dtype, device=latents.device)
    if first_frame is not None:
        mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)
