"""Video to normalised latents and back through anything with `AutoencoderKLWan`'s interface (METHOD 6.9)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ex4d.errors import InputError


def latent_stats(vae, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation of the latents, float32 [1, c, 1, 1, 1]."""
    mean, std = vae.config.latents_mean, vae.config.latents_std
    return tuple(torch.tensor(v, dtype=torch.float32, device=device).view(1, -1, 1, 1, 1) for v in (mean, std))  # type: ignore[return-value]


def module_place(module: torch.nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of a module's first parameter."""
    parameter = next(module.parameters())
    return parameter.device, parameter.dtype


@torch.no_grad()
def encode_video(vae, video: Float[Tensor, "batch 3 time height width"]) -> Float[Tensor, "batch c t h w"]:
    """Normalised latents, float32: the posterior's mean, never a sample."""
    device, dtype = module_place(vae)
    latents = vae.encode(video.to(device, dtype)).latent_dist.mode().float()
    mean, std = latent_stats(vae, latents.device)
    return (latents - mean) / std


@torch.no_grad()
def decode_latents(vae, latents: Float[Tensor, "batch c t h w"]) -> Float[Tensor, "batch 3 time height width"]:
    """Video in -1..1, clamped, float32."""
    device, dtype = module_place(vae)
    mean, std = latent_stats(vae, device)
    z = (latents.to(device).float() * std + mean).to(dtype)
    return vae.decode(z).sample.float().clamp(-1, 1)


def to_uint8(video: Float[Tensor, "1 3 time height width"], truncate: bool = False) -> UInt8[np.ndarray, "t h w 3"]:
    """-1..1 to full-range RGB frames; rounded, or truncated as the release does."""
    level = (video[0].permute(1, 2, 3, 0) + 1) * 127.5
    level = level.clamp(0, 255) if truncate else level.round().clamp(0, 255)
    return level.to(torch.uint8).cpu().numpy()


def strides(vae) -> tuple[int, int]:
    """(frames in a latent frame, pixels in a latent pixel)."""
    config = vae.config
    return int(config.scale_factor_temporal), int(config.scale_factor_spatial)


def check_num_frames(num_frames: int, stride: int) -> None:
    """Raise InputError unless the VAE can hold this many frames: the first alone, then `stride` at a time."""
    if num_frames < 1 or (num_frames - 1) % stride:
        low = max(1, (num_frames - 1) // stride * stride + 1)
        raise InputError(
            f"{num_frames} frames in one pass", f"{stride}k + 1 frames", f"--window {low} or --window {low + stride}"
        )


def padded_length(num_frames: int, stride: int) -> int:
    """The next length of stride k + 1."""
    return -(-(num_frames - 1) // stride) * stride + 1
