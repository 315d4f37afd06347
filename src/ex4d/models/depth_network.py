"""A small monocular depth network for whole clips: disparity up to one scale per clip, consistent over time."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """ConvNeXt block (Liu et al. 2022): depthwise 7x7, norm, pointwise expansion, layer scale."""

    def __init__(self, width: int, expand: int = 3) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.up = nn.Conv2d(width, expand * width, 1)
        self.down = nn.Conv2d(expand * width, width, 1)
        self.scale = nn.Parameter(torch.full((1, width, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.down(F.gelu(self.up(self.norm(self.spatial(x)))))


class ClipMix(nn.Module):
    """Looks around in the frame (attention), to the neighbours in time (convolution) and at the whole clip (mean)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.attended = nn.Conv2d(width, width, 1)
        self.time_norm = nn.GroupNorm(1, width)
        self.time = nn.Conv2d(width, width, (5, 1), groups=width)  # over (frames, pixels)
        self.clip = nn.Linear(width, width)
        self.mixed = nn.Conv2d(width, width, 1)
        for parameter in self.mixed.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """x: [batch*frames, width, h, w]."""
        h, w = x.shape[2:]
        q, k, v = (
            part.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3)
            for part in self.qkv(self.norm(x)).chunk(3, dim=1)
        )
        seen = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2).unflatten(2, (h, w))
        x = x + self.attended(seen)
        y = self.time_norm(x).unflatten(0, (batch, -1)).transpose(1, 2).flatten(3)  # [batch, width, frames, h*w]
        whole = self.clip(y.mean(dim=(2, 3)))[:, :, None, None]
        y = F.pad(y, (0, 0, 2, 2), mode="replicate")
        y = F.gelu(self.time(y) + whole).transpose(1, 2).flatten(0, 1).unflatten(2, (h, w))
        return x + self.mixed(y)


class ClipDepthNetwork(ModelMixin, ConfigMixin):
    """Video in [-1, 1] to disparity.

    Args:
        widths: Channels at 1/4, 1/8, 1/16 and 1/32 of the picture's size.
        blocks: Blocks at each of them.
        mixes: Clip-wide mixing layers at 1/32.
        heads: Attention heads of these layers.
        coordinates: Also see where in the picture a pixel is. A first training with it learned little else: on real rooms it was
            hardly better than a ramp from the bottom to the top.
    """

    @register_to_config
    def __init__(
        self,
        widths: tuple[int, ...] = (72, 128, 208, 288),
        blocks: tuple[int, ...] = (2, 3, 5, 3),
        mixes: int = 3,
        heads: int = 6,
        coordinates: bool = False,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d((3 + 2 * coordinates) * 16, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(*[Block(w) for _ in range(n)]) for w, n in zip(widths, blocks, strict=True)
        )
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in zip(widths, widths[1:], strict=False))
        self.clip_mixes = nn.ModuleList(ClipMix(widths[-1], heads) for _ in range(mixes))
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.fuses = nn.ModuleList(Block(w) for w in widths[:-1])
        self.fuse_time = ClipMix(widths[-2], 4)
        self.head = nn.Conv2d(widths[0], 16, 3, padding=1)
        nn.init.constant_(self.head.bias, -1.5)  # type: ignore[arg-type]  # about 4.5 units away

    def forward(self, video: Tensor) -> Tensor:
        """video [batch, 3, frames, height, width] with sides divisible by 32, to disparity > 0 [batch, frames, height, width], float32."""
        batch = video.shape[0]
        x = video.transpose(1, 2).flatten(0, 1)
        h, w = x.shape[2:]
        if h % 32 or w % 32:
            raise ValueError(f"got {h}x{w}; need sides divisible by 32")
        if self.config["coordinates"]:
            ys = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)[:, None].expand(h, w)
            xs = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype)[None].expand(h, w)
            x = torch.cat([x, torch.stack([ys, xs])[None].expand(x.shape[0], -1, -1, -1)], dim=1)
        x = self.stem(F.pixel_unshuffle(x, 4))
        skips = []
        for k, stage in enumerate(self.stages):
            if k:
                x = self.downs[k - 1](x)
            x = stage(x)
            skips.append(x)
        for mix in self.clip_mixes:
            x = mix(x, batch)
        for k in reversed(range(len(self.ups))):
            x = F.interpolate(self.ups[k](x), scale_factor=2, mode="bilinear", align_corners=False) + skips[k]
            if k == len(self.ups) - 1:
                x = self.fuse_time(x, batch)
            x = self.fuses[k](x)
        log_disparity = F.pixel_shuffle(self.head(x), 4)[:, 0].float().clamp(-7, 4)
        return log_disparity.exp().unflatten(0, (batch, -1))
