"""Rendered colour and mask latents become tokens that are added to the patch embedding (METHOD 6.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

#: EX-4D release: width of the three pointwise convolutions.
HIDDEN_CHANNELS = 1024


class GeometryEncoder(nn.Module):
    """The release's camera encoder, with its parameter names, so that `ex4d.ckpt` fits without renaming.

    Args:
        dim: Width of the denoiser's tokens.
        hidden_channels: Width of the pointwise convolutions.
        latent_channels: Channels of one latent video; colour and mask are concatenated.
        patch_size: (time, height, width) of the denoiser's patches.
    """

    def __init__(
        self,
        dim: int,
        hidden_channels: int = HIDDEN_CHANNELS,
        latent_channels: int = 16,
        patch_size: tuple[int, int, int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        self.latent_encoder = nn.Sequential(
            nn.Conv3d(2 * latent_channels, hidden_channels, 1),
            nn.SiLU(),
            nn.Conv3d(hidden_channels, hidden_channels, 1),
            nn.SiLU(),
            nn.Conv3d(hidden_channels, hidden_channels, 1),
        )
        self.latent_patch_embedding = nn.Conv3d(hidden_channels, dim, patch_size, stride=patch_size)
        nn.init.zeros_(self.latent_patch_embedding.weight)  # starts as the identity: the base model bit for bit
        nn.init.zeros_(self.latent_patch_embedding.bias)  # type: ignore[arg-type]

    def forward(
        self,
        color_latents: Float[Tensor, "batch c t h w"],
        mask_latents: Float[Tensor, "batch c t h w"],
    ) -> Float[Tensor, "batch dim t h2 w2"]:
        """Tokens on the patch grid, the same for every step and for both guidance passes."""
        dtype = self.latent_patch_embedding.weight.dtype
        hidden = self.latent_encoder(torch.cat([color_latents, mask_latents], dim=1).to(dtype))
        return self.latent_patch_embedding(hidden)

    @property
    def hidden_channels(self) -> int:
        """Width of the pointwise convolutions."""
        return self.latent_patch_embedding.in_channels

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        return self.latent_patch_embedding.out_channels

    @property
    def latent_channels(self) -> int:
        """Channels of one latent video."""
        return self.latent_encoder[0].in_channels // 2  # type: ignore[union-attr,operator]
