"""A small video autoencoder with the Wan VAE's interface: 16 channels, 8x8 in space, 4 in time, the first frame alone.

Every group of four frames is one picture of twelve channels for two-dimensional convolutions, which a laptop CPU runs
twenty times faster than causal three-dimensional ones; a few temporal convolutions at the latent's size join the groups.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F


class ExactLatent:
    """A latent without spread, behind the interface of diffusers' `DiagonalGaussianDistribution`."""

    def __init__(self, latent: Tensor) -> None:
        self.mean = latent

    def mode(self) -> Tensor:
        """The latent."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The latent: there is nothing to draw."""
        return self.mean


class ResBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x)))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(width // 16, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm(x)))
        return x + self.conv2(F.silu(h))


class TemporalMix(nn.Module):
    """x + a depthwise-separable convolution over neighbouring groups; starts as the identity. Causal: looks back only."""

    def __init__(self, width: int, reach: int = 2) -> None:
        super().__init__()
        self.reach = reach
        self.norm = nn.GroupNorm(width // 16, width)
        self.conv = nn.Conv2d(width, width, (reach + 1, 1), groups=width // 8)  # over (groups, pixels)
        self.out = nn.Conv2d(width, width, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """x: [batch*groups, width, h, w]."""
        y = self.norm(x).unflatten(0, (batch, -1)).transpose(1, 2).flatten(3)  # [batch, width, groups, h*w]
        y = torch.cat([y[:, :, :1].expand(-1, -1, self.reach, -1), y], dim=2)
        y = F.silu(self.conv(y)).transpose(1, 2).flatten(0, 1).unflatten(2, x.shape[2:])
        return x + self.out(y)


def _distinct(groups: Tensor) -> Tensor | None:
    """Number of the group that each one repeats, [groups]; None where no group equals the one before, or while training.

    The encoder sees every group alone, so the grey ones behind a first frame, and masks that stand still, are encoded once.
    """
    if torch.is_grad_enabled() or groups.shape[1] == 1:
        return None
    new = (groups[:, 1:] != groups[:, :-1]).transpose(0, 1).flatten(1).any(1)
    return None if new.all() else torch.cat([new.new_zeros(1), new]).cumsum(0)


def _unshuffle(x: Tensor) -> Tensor:
    return F.pixel_unshuffle(x, 2)


class VideoAutoencoder(ModelMixin, ConfigMixin):
    """Deterministic autoencoder of videos in [-1, 1].

    Args:
        z_dim: Latent channels.
        widths: Channels at 1/2, 1/4 and 1/8 of the picture's size.
        blocks: Residual blocks at each of them, in the encoder and again in the decoder.
        latents_mean, latents_std: Per channel, measured on training data; `normalized = (latent - mean) / std`.
    """

    @register_to_config
    def __init__(
        self,
        z_dim: int = 16,
        widths: tuple[int, ...] = (48, 112, 224),
        blocks: tuple[int, ...] = (1, 2, 2),
        decoder_blocks: tuple[int, ...] = (1, 2, 3),
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
        scale_factor_temporal: int = 4,
        scale_factor_spatial: int = 8,
    ) -> None:
        super().__init__()
        frames = scale_factor_temporal
        a, b, c = widths
        self.enc = nn.ModuleList(
            [
                nn.Conv2d(3 * frames * 4, a, 3, padding=1),
                *[ResBlock(a) for _ in range(blocks[0])],
                nn.Conv2d(4 * a, b, 3, padding=1),
                *[ResBlock(b) for _ in range(blocks[1])],
                nn.Conv2d(4 * b, c, 3, padding=1),
                *[ResBlock(c) for _ in range(blocks[2])],
            ]
        )
        self.enc_out = nn.Conv2d(c, z_dim, 3, padding=1)
        self.dec_in = nn.Conv2d(z_dim, c, 3, padding=1)
        self.dec_time = nn.ModuleList([TemporalMix(c) for _ in range(2)])
        self.dec = nn.ModuleList(
            [
                *[ResBlock(c) for _ in range(decoder_blocks[2])],
                nn.Conv2d(c, 4 * b, 3, padding=1),
                *[ResBlock(b) for _ in range(decoder_blocks[1])],
                nn.Conv2d(b, 4 * a, 3, padding=1),
                *[ResBlock(a) for _ in range(decoder_blocks[0])],
            ]
        )
        self.dec_out = nn.Conv2d(a, 3 * frames * 4, 3, padding=1)
        self._frames = frames

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """[batch, 3, 4k+1, height, width] in [-1, 1] to latents [batch, z_dim, k+1, height/8, width/8], not normalised."""
        z = self._encode(x)
        return AutoencoderKLOutput(latent_dist=ExactLatent(z)) if return_dict else (ExactLatent(z),)  # type: ignore[arg-type]

    def decode(self, z: Tensor, return_dict: bool = True) -> Any:
        """The inverse of `encode`, not clamped."""
        video = self._decode(z)
        return DecoderOutput(sample=video) if return_dict else (video,)

    def forward(self, x: Tensor) -> Tensor:
        """There and back."""
        return self._decode(self._encode(x))

    def _encode(self, x: Tensor) -> Tensor:
        batch, _, time, h, w = x.shape
        if (time - 1) % self._frames or h % 8 or w % 8:
            raise ValueError(f"got {time}x{h}x{w}; need 4k+1 frames and sides divisible by 8")
        x = torch.cat(
            [x[:, :, :1].expand(-1, -1, self._frames - 1, -1, -1), x], dim=2
        )  # the first frame fills its group
        x = x.unflatten(2, (-1, self._frames)).permute(0, 2, 3, 1, 4, 5)  # [batch, groups, 4, 3, h, w]
        group = _distinct(x)
        if group is not None:
            x = x[:, group.diff(prepend=group[:1] - 1) > 0]
        x = _unshuffle(x.flatten(2, 3).flatten(0, 1)).contiguous(memory_format=torch.channels_last)
        for layer in self.enc:
            if isinstance(layer, nn.Conv2d) and layer is not self.enc[0]:
                x = _unshuffle(x)
            x = layer(x)
        z = self.enc_out(F.silu(x)).unflatten(0, (batch, -1)).transpose(1, 2)
        return z if group is None else z[:, :, group]

    def _decode(self, z: Tensor) -> Tensor:
        batch = z.shape[0]
        x = self.dec_in(z.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last))
        for mix in self.dec_time:
            x = mix(x, batch)
        for layer in self.dec:
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                x = F.pixel_shuffle(x, 2)
        x = F.pixel_shuffle(self.dec_out(F.silu(x)), 2)
        x = x.unflatten(1, (self._frames, 3)).unflatten(0, (batch, -1))  # [batch, groups, 4, 3, h, w]
        return x.permute(0, 3, 1, 2, 4, 5).flatten(2, 3)[:, :, self._frames - 1 :]
