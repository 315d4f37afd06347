"""A small monocular depth network for whole clips: disparity up to one scale per clip, consistent over time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ex4d.models.embedded.load import CONFIG, WEIGHTS


class Norm(nn.LayerNorm):
    """Layer norm that stays in the dtype of its input: autocast would turn half of the training's traffic into float32."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class TimeMix(nn.Module):
    """Channel-wise weights of the previous, this and the next frame; the identity at first, any clip length."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.0, 1.0, 0.0])[:, None].repeat(1, width))

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """x: [batch*frames, h, w, width]."""
        clip = x.unflatten(0, (batch, -1))
        before = torch.cat([clip[:, :1], clip[:, :-1]], dim=1)
        after = torch.cat([clip[:, 1:], clip[:, -1:]], dim=1)
        w = self.weight.to(x.dtype)
        return (before * w[0] + clip * w[1] + after * w[2]).flatten(0, 1)


class ConvBlock(nn.Module):
    """Residual pair of 3x3 convolutions on [batch*frames, width, h, w]; with `time`, sees the neighbours in time."""

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.time = TimeMix(width) if time else None
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.2))

    def forward(self, x: Tensor, batch: int) -> Tensor:
        y = self.norm(x.permute(0, 2, 3, 1))
        if self.time is not None:
            y = self.time(y, batch)
        y = self.conv2(F.gelu(self.conv1(y.permute(0, 3, 1, 2))))
        return x + self.scale.to(y.dtype) * y


class TokenBlock(nn.Module):
    """Looks around in the whole frame (attention), at the neighbours in time, and through its registers at the whole clip."""

    def __init__(self, width: int, heads: int, expand: int) -> None:
        super().__init__()
        self.heads = heads
        self.place = nn.Conv2d(width, width, 3, padding=1, groups=width)  # position from the zeros at the border
        self.norm1 = Norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.clip = nn.Linear(width, width)
        self.norm2 = Norm(width)
        self.time = TimeMix(width)
        self.up = nn.Linear(width, expand * width)
        self.down = nn.Linear(expand * width, width)
        self.scale1 = nn.Parameter(torch.full((width,), 0.2))
        self.scale2 = nn.Parameter(torch.full((width,), 0.2))

    def forward(self, x: Tensor, registers: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """x: [batch*frames, h, w, width]; registers: [batch*frames, n, width]."""
        h, w = x.shape[1:3]
        n = registers.shape[1]
        x = x + self.place(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        tokens = torch.cat([registers, x.flatten(1, 2)], dim=1)
        q, k, v = self.qkv(self.norm1(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.scale1.to(seen.dtype) * self.attended(seen)
        registers = tokens[:, :n].unflatten(0, (batch, -1))
        registers = (registers + self.clip(registers.mean(dim=1, keepdim=True))).flatten(0, 1)
        x = tokens[:, n:].unflatten(1, (h, w))
        y = self.time(self.norm2(x), batch)
        return x + self.scale2.to(y.dtype) * self.down(F.gelu(self.up(y))), registers


class ClipDepthNetwork(nn.Module):
    """Video in [-1, 1] to disparity: convolutions at 1/4 and 1/8 of the picture, a transformer at 1/16, and back up.

    Folders are laid out as diffusers' are; importing its base class would add two seconds to the six of a first clip's depth.

    Args:
        widths: Channels at 1/4, 1/8 and 1/16 of the picture's size.
        blocks: Blocks at each of them on the way down.
        decoder_blocks: Blocks at 1/4 and 1/8 on the way up.
        heads: Attention heads.
        expand: Hidden width of the token blocks over their width.
        registers: Extra tokens of a frame; their mean over the clip carries what all frames share.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 112, 224),
        blocks: tuple[int, ...] = (2, 3, 7),
        decoder_blocks: tuple[int, ...] = (2, 2),
        heads: int = 7,
        expand: int = 3,
        registers: int = 4,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "widths": list(widths),
            "blocks": list(blocks),
            "decoder_blocks": list(decoder_blocks),
            "heads": heads,
            "expand": expand,
            "registers": registers,
        }
        a, b, c = widths
        self.stem1 = nn.Conv2d(3, a // 2, 3, stride=2, padding=1)
        self.stem2 = nn.Conv2d(a // 2, a, 3, stride=2, padding=1)
        self.stage4 = nn.ModuleList(ConvBlock(a, time=False) for _ in range(blocks[0]))
        self.down8 = nn.Conv2d(a, b, 3, stride=2, padding=1)
        self.stage8 = nn.ModuleList(ConvBlock(b, time=True) for _ in range(blocks[1]))
        self.down16 = nn.Conv2d(b, c, 3, stride=2, padding=1)
        self.register_tokens = nn.Parameter(0.02 * torch.randn(registers, c))
        self.stage16 = nn.ModuleList(TokenBlock(c, heads, expand) for _ in range(blocks[2]))
        self.norm16 = Norm(c)
        self.up8 = nn.Conv2d(c, b, 1)
        self.decode8 = nn.ModuleList(ConvBlock(b, time=True) for _ in range(decoder_blocks[1]))
        self.up4 = nn.Conv2d(b, a, 1)
        self.decode4 = nn.ModuleList(ConvBlock(a, time=False) for _ in range(decoder_blocks[0]))
        self.coarse = nn.Conv2d(b, 1, 1)
        self.head = nn.Conv2d(a, 16, 3, padding=1)
        nn.init.zeros_(self.head.weight), nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.coarse.bias, -1.0)  # type: ignore[arg-type]  # about 2.7 units away

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ClipDepthNetwork:
        """A network with random weights; names that begin with an underscore say where the configuration is from."""
        return cls(**{name: value for name, value in config.items() if not name.startswith("_")})

    @classmethod
    def from_pretrained(cls, folder: Path) -> ClipDepthNetwork:
        """The network of a folder that `save_pretrained` wrote, float32; strict in its keys."""
        from safetensors.torch import load_file

        model = cls.from_config(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        weights = load_file(folder / WEIGHTS)
        model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        return model.eval()

    def save_pretrained(self, folder: Path) -> None:
        """Write the configuration and the weights, in their own dtype."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": type(self).__name__, **self.config}
        (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        save_file(
            {k: v.contiguous() for k, v in self.state_dict().items()}, folder / WEIGHTS, metadata={"format": "pt"}
        )

    def forward(self, video: Tensor) -> Tensor:
        """video [batch, 3, frames, height, width] with sides divisible by 32, to disparity > 0 [batch, frames, height, width], float32."""
        return self.log_disparity(video).clamp(-7, 4).exp()

    def log_disparity(self, video: Tensor) -> Tensor:
        """What `forward` clamps, for training: a clamp would stop the gradient that has to bring a stray output back."""
        batch = video.shape[0]
        x = video.transpose(1, 2).flatten(0, 1)
        if x.shape[2] % 32 or x.shape[3] % 32:
            raise ValueError(f"got {x.shape[2]}x{x.shape[3]}; need sides divisible by 32")
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.stem2(F.gelu(self.stem1(x)))
        for block in self.stage4:
            x = block(x, batch)
        at4 = x
        x = self.down8(x)
        for block in self.stage8:
            x = block(x, batch)
        at8 = x
        tokens = self.down16(x).permute(0, 2, 3, 1)
        registers = self.register_tokens.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        for block in self.stage16:
            tokens, registers = block(tokens, registers, batch)
        tokens = self.norm16(tokens + registers.mean(dim=1)[:, None, None])
        x = at8 + _twice(self.up8(tokens.permute(0, 3, 1, 2)))
        for block in self.decode8:
            x = block(x, batch)
        coarse = _in_float32(self.coarse, x)
        x = at4 + _twice(self.up4(x))
        for block in self.decode4:
            x = block(x, batch)
        coarse = F.interpolate(coarse, scale_factor=8, mode="bilinear", align_corners=False)
        return (coarse + F.pixel_shuffle(_in_float32(self.head, x), 4))[:, 0].unflatten(0, (batch, -1))


def _in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Log disparity has no room for the eight bits of bfloat16: steps of 1.5 % at 4."""
    if not torch.is_autocast_enabled(x.device.type):
        return layer(x).float()
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
