"""Video Depth Anything's network (Chen et al. 2025) from transformers' Depth Anything and four small temporal transformers.

The released checkpoint is Depth Anything V2's layout (DINOv2 encoder, DPT head) plus `head.motion_modules`: attention over
time at every pixel, after the two coarsest reassembled maps and after the two coarsest fusion stages. Loading is strict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ex4d.errors import WeightsError

#: Frames a window holds: the length of the learned network's time embedding.
WINDOW = 32

#: Released sizes by encoder width: (layers, heads, tapped layers counted from 1, neck widths, fusion width).
SIZES: dict[int, tuple[int, int, list[int], list[int], int]] = {
    384: (12, 6, [3, 6, 9, 12], [48, 96, 192, 384], 64),
    768: (12, 12, [3, 6, 9, 12], [96, 192, 384, 768], 128),
    1024: (24, 16, [5, 12, 18, 24], [256, 512, 1024, 1024], 256),
}


class TimeAttention(nn.Module):
    """Attention among the frames of one pixel, with a sinusoidal time embedding added first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.Linear(width, width)
        position = torch.arange(WINDOW)[:, None]
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        pe = torch.zeros(1, WINDOW, width)
        pe[0, :, 0::2], pe[0, :, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
        self.register_buffer("pe", pe)

    def forward(self, x: Tensor) -> Tensor:
        """x: [pixels, time, width]."""
        x = x + self.pe[:, : x.shape[1]].to(x.dtype)  # type: ignore[index]
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TimeMixer(nn.Module):
    """GroupNorm, two time attentions and a gated feed-forward, added to what comes in."""

    def __init__(self, width: int, heads: int = 8, groups: int = 32) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.attentions = nn.ModuleList(TimeAttention(width, heads) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.ff_norm = nn.LayerNorm(width)
        self.ff_in, self.ff_out = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, maps: Tensor, time: int) -> Tensor:
        """maps: [batch * time, width, h, w]."""
        h, w = maps.shape[2:]
        x = self.norm(maps).unflatten(0, (-1, time)).permute(0, 3, 4, 1, 2).flatten(0, 2)  # [batch*h*w, time, width]
        x = self.proj_in(x)
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            x = x + attention(norm(x))
        value, gate = self.ff_in(self.ff_norm(x)).chunk(2, dim=-1)
        x = self.proj_out(x + self.ff_out(value * F.gelu(gate)))
        return maps + x.unflatten(0, (-1, h, w)).permute(0, 3, 4, 1, 2).flatten(0, 1)


class VideoDepthAnything(nn.Module):
    """Frames [batch, time, 3, H, W], normalised, sides multiples of 14, at most 32 frames, to disparity [batch, time, H, W]."""

    def __init__(self, frames: Any) -> None:
        """From a transformers `DepthAnythingForDepthEstimation`."""
        super().__init__()
        self.frames = frames
        neck, fusion = frames.config.neck_hidden_sizes, frames.config.fusion_hidden_size
        self.mixers = nn.ModuleList(TimeMixer(width) for width in (neck[2], neck[3], fusion, fusion))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.frames.dtype

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _, height, width = x.shape
        rows, columns = height // 14, width // 14
        net: Any = self.frames
        taps = net.backbone.forward_with_filtered_kwargs(x.flatten(0, 1)).feature_maps
        maps = list(net.neck.reassemble_stage(taps, rows, columns))
        maps[2], maps[3] = self.mixers[0](maps[2], time), self.mixers[1](maps[3], time)
        maps = [conv(m) for conv, m in zip(net.neck.convs, maps, strict=True)]
        layers = net.neck.fusion_stage.layers
        fused = self.mixers[2](layers[0](maps[3], size=maps[2].shape[2:]), time)
        fused = self.mixers[3](layers[1](fused, maps[2], size=maps[1].shape[2:]), time)
        fused = layers[2](fused, maps[1], size=maps[0].shape[2:])
        fused = layers[3](fused, maps[0], size=None)
        depth = net.head([fused], rows, columns)
        return F.relu(depth).unflatten(0, (batch, time))


def released_config(width: int) -> Any:
    """Configuration of a released size, by the width of its encoder."""
    from transformers import DepthAnythingConfig, Dinov2Config

    layers, heads, taps, neck, fusion = SIZES[width]
    tapped: Any = {"out_indices": taps}
    backbone = Dinov2Config(
        image_size=518,
        patch_size=14,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        reshape_hidden_states=False,
        apply_layernorm=True,
        **tapped,
    )
    return DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=width, neck_hidden_sizes=neck, fusion_hidden_size=fusion
    )


#: Released name -> ours; groups carry over.
_RULES: list[tuple[str, str]] = [
    (r"pretrained\.(cls_token|mask_token)", r"frames.backbone.embeddings.\1"),
    (r"pretrained\.pos_embed", r"frames.backbone.embeddings.position_embeddings"),
    (r"pretrained\.patch_embed\.proj\.(.*)", r"frames.backbone.embeddings.patch_embeddings.projection.\1"),
    (r"pretrained\.blocks\.(\d+)\.ls([12])\.gamma", r"frames.backbone.encoder.layer.\1.layer_scale\2.lambda1"),
    (r"pretrained\.blocks\.(\d+)\.attn\.proj\.(.*)", r"frames.backbone.encoder.layer.\1.attention.output.dense.\2"),
    (r"pretrained\.blocks\.(\d+)\.(norm[12]|mlp\.fc[12])\.(.*)", r"frames.backbone.encoder.layer.\1.\2.\3"),
    (r"pretrained\.norm\.(.*)", r"frames.backbone.layernorm.\1"),
    (r"head\.projects\.(\d)\.(.*)", r"frames.neck.reassemble_stage.layers.\1.projection.\2"),
    (r"head\.resize_layers\.(\d)\.(.*)", r"frames.neck.reassemble_stage.layers.\1.resize.\2"),
    (r"head\.scratch\.output_conv1\.(.*)", r"frames.head.conv1.\1"),
    (r"head\.scratch\.output_conv2\.0\.(.*)", r"frames.head.conv2.\1"),
    (r"head\.scratch\.output_conv2\.2\.(.*)", r"frames.head.conv3.\1"),
]
_TIME_RULES: list[tuple[str, str]] = [
    (r"transformer_blocks\.0\.attention_blocks\.(\d)\.pos_encoder\.pe", r"attentions.\1.pe"),
    (r"transformer_blocks\.0\.attention_blocks\.(\d)\.to_out\.0\.(.*)", r"attentions.\1.to_out.\2"),
    (r"transformer_blocks\.0\.attention_blocks\.(\d)\.(to_[qkv]\..*)", r"attentions.\1.\2"),
    (r"transformer_blocks\.0\.ff\.net\.0\.proj\.(.*)", r"ff_in.\1"),
    (r"transformer_blocks\.0\.ff\.net\.2\.(.*)", r"ff_out.\1"),
    (r"transformer_blocks\.0\.(norms\.\d\..*|ff_norm\..*)", r"\1"),
    (r"(norm\..*|proj_in\..*|proj_out\..*)", r"\1"),
]


def our_state(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict in our names; WeightsError for a key that has no place."""
    out: dict[str, Tensor] = {}
    for name, tensor in released.items():
        if match := re.fullmatch(r"pretrained\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)", name):
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                out[f"frames.backbone.encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}"] = third
        elif match := re.fullmatch(r"head\.scratch\.layer(\d)_rn\.weight", name):
            out[f"frames.neck.convs.{int(match[1]) - 1}.weight"] = tensor
        elif match := re.fullmatch(r"head\.scratch\.refinenet(\d)\.(.*)", name):
            rest = re.sub(r"resConfUnit(\d)\.conv(\d)", r"residual_layer\1.convolution\2", match[2])
            out[f"frames.neck.fusion_stage.layers.{4 - int(match[1])}.{rest.replace('out_conv', 'projection')}"] = (
                tensor
            )
        elif match := re.fullmatch(r"head\.motion_modules\.(\d)\.temporal_transformer\.(.*)", name):
            out[f"mixers.{match[1]}.{_renamed(match[2], _TIME_RULES, name)}"] = tensor
        else:
            out[_renamed(name, _RULES, name)] = tensor
    return out


def load_released(state: Mapping[str, Tensor], source: str) -> VideoDepthAnything:
    """The network of a released checkpoint, its size told from the state itself; strict.

    Raises:
        WeightsError: Keys that are missing or have no place.
    """
    ours = our_state(state)
    width = ours.get("frames.backbone.layernorm.weight", torch.zeros(0)).numel()
    if width not in SIZES:
        raise WeightsError(
            f"{source} is no Video Depth Anything checkpoint (encoder width {width})",
            "video_depth_anything_vits.pth, _vitb.pth or _vitl.pth",
            "ex4d models download video-depth-anything-small",
        )
    return _assembled(ours, width, source)


def _assembled(ours: Mapping[str, Tensor], width: int, source: str) -> VideoDepthAnything:
    from transformers import DepthAnythingForDepthEstimation

    # transformers renames modules between versions and translates the names of files as it loads: so let it load.
    part = {name.removeprefix("frames."): tensor for name, tensor in ours.items() if name.startswith("frames.")}
    frame_class: Any = DepthAnythingForDepthEstimation
    frames, info = frame_class.from_pretrained(
        None, config=released_config(width), state_dict=part, output_loading_info=True
    )
    network = VideoDepthAnything(frames)
    time = {name.removeprefix("mixers."): tensor for name, tensor in ours.items() if name.startswith("mixers.")}
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *map(str, info["mismatched_keys"])]
    wrong += sorted(network.mixers.state_dict().keys() ^ time.keys())
    if wrong:
        raise WeightsError(
            f"{source} does not fit Video Depth Anything ({len(wrong)} keys, first {wrong[0]})",
            "the released checkpoint",
            "ex4d models download video-depth-anything-small",
        )
    network.mixers.load_state_dict(time)
    return network.eval()


def _renamed(name: str, rules: list[tuple[str, str]], whole: str) -> str:
    for pattern, ours in rules:
        if re.fullmatch(pattern, name):
            return re.sub(f"^{pattern}$", ours, name)
    raise WeightsError(
        f"a key {whole} that Video Depth Anything does not have", "the released checkpoint", "ex4d models list"
    )
