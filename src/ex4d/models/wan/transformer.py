"""Diffusers' Wan denoiser with geometry tokens and the release's precision map.

The release keeps the residual stream, modulation, gates, time embedding and head in float32 while the big matrices run in
bfloat16 (METHOD 6.7); plain bfloat16 diffusers is three times less accurate. Submodules change class, not structure, so parameter
names, hooks, pickling, offloading, caching, quantisation and context parallelism stay diffusers' own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.transformers.transformer_wan import (
    WanTimeTextImageEmbedding,
    WanTransformer3DModel,
    WanTransformerBlock,
)
from torch import Tensor, nn

from ex4d.models.wan.fast.block_fused import fused_block, suits
from ex4d.models.wan.fast.float8 import shared_input

#: Dtypes a matrix product may run in; anything narrower is storage only (fp8 and int8 weights).
COMPUTE_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def compute_dtype(linear: nn.Module) -> torch.dtype:
    """The dtype a linear layer wants its input in; its bias stays wide when the weight is quantised."""
    dtype = linear.bias.dtype  # type: ignore[union-attr]
    return dtype if dtype in COMPUTE_DTYPES else torch.bfloat16


class GeometryPatchEmbedding(nn.Conv3d):
    """Patch embedding that adds `geometry` tokens and hands on a float32 (or wider) residual stream."""

    geometry: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        out = super().forward(input.to(self.weight.dtype))
        out = out if out.dtype == torch.float64 else out.float()
        if self.geometry is None:
            return out
        # In place at inference: four bytes a channel and token less at the peak.
        return out + self.geometry.to(out.dtype) if torch.is_grad_enabled() else out.add_(self.geometry)


class Ex4dConditionEmbedder(WanTimeTextImageEmbedding):
    """Time embedding in float32 from a float64 sinusoid; text and image in their own dtype."""

    def forward(self, timestep, encoder_hidden_states, encoder_hidden_states_image=None, timestep_seq_len=None):
        wave = sinusoid(timestep, self.timesteps_proj.num_channels)
        if timestep_seq_len is not None:
            wave = wave.unflatten(0, (-1, timestep_seq_len))
        temb = self.time_embedder(wave.to(self.time_embedder.linear_1.weight.dtype)).float()
        modulation = self.time_proj(self.act_fn(temb).to(self.time_proj.weight.dtype)).float()
        text_dtype = compute_dtype(self.text_embedder.linear_1)
        text = self.text_embedder(encoder_hidden_states.to(text_dtype))
        image = encoder_hidden_states_image
        if image is not None and self.image_embedder is not None:
            image = self.image_embedder(image.to(compute_dtype(self.image_embedder.ff.net[2])))
        return temb, modulation, text, image


def sinusoid(timestep: Tensor, channels: int) -> Tensor:
    """Float64 sinusoid, cosines first, as float32 [batch, channels]; on the CPU where the device has no float64."""
    device = timestep.device
    exact = timestep.to(torch.device("cpu") if device.type == "mps" else device, torch.float64)
    half = channels // 2
    frequency = torch.exp(torch.arange(half, dtype=torch.float64, device=exact.device) * (-math.log(10000.0) / half))
    angle = exact[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1).to(device, torch.float32)


class Ex4dBlock(WanTransformerBlock):
    """Wan block whose residual stream stays float32 while its matrices see their own dtype.

    Attributes:
        fused: Whether the Triton kernels do what lies between the matrices (`Ex4dTransformer.fuse_kernels_`).
        exchange: (process group, ranks) where self-attention's heads are exchanged between GPUs in one piece.
    """

    fused = False
    exchange: tuple[str, int] | None = None

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary_emb: Any) -> Tensor:
        dtype = compute_dtype(self.attn1.to_q)
        if self.fused and suits(self, hidden_states, temb, dtype):
            return fused_block(self, hidden_states, encoder_hidden_states, temb, rotary_emb, dtype)
        table = self.scale_shift_table + temb.float()
        shift, scale, gate, ff_shift, ff_scale, ff_gate = table.chunk(6, dim=1)

        hidden = (self.norm1(hidden_states) * (1 + scale) + shift).to(dtype)
        hidden = shared_input(self.attn1.to_q, hidden)  # quantised once for q, k and v
        hidden_states = hidden_states + self.attn1(hidden, None, None, rotary_emb) * gate

        hidden = self.norm2(hidden_states).to(dtype)
        hidden_states = hidden_states + self.attn2(hidden, encoder_hidden_states, None, None)

        hidden = (self.norm3(hidden_states) * (1 + ff_scale) + ff_shift).to(dtype)
        return hidden_states + self.ffn(hidden) * ff_gate


TransformerBlockRegistry.register(
    Ex4dBlock,
    TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None),  # type: ignore[arg-type]
)


class Ex4dTransformer(WanTransformer3DModel):
    """`WanTransformer3DModel` that takes `attention_kwargs={"geometry": tokens [batch, dim, t, h/2, w/2]}`."""

    _no_split_modules = ["Ex4dBlock"]
    _repeated_blocks = ["Ex4dBlock"]
    _keep_in_fp32_modules = [
        "rope",
        "patch_embedding",
        "time_embedder",
        "time_proj",
        "scale_shift_table",
        "norm1",
        "norm2",
        "norm3",
        "norm_out",
        "proj_out",
    ]

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
    ) -> None:
        super().__init__(
            patch_size=tuple(patch_size),
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            image_dim=image_dim,
            added_kv_proj_dim=added_kv_proj_dim,
            rope_max_seq_len=rope_max_seq_len,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        self.patch_embedding.__class__ = GeometryPatchEmbedding
        self.condition_embedder.__class__ = Ex4dConditionEmbedder
        for block in self.blocks:
            block.__class__ = Ex4dBlock

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ):
        """As the parent; `attention_kwargs["geometry"]` is added to the patch embedding, token for token."""
        kwargs = dict(attention_kwargs or {})
        self.patch_embedding.geometry = kwargs.pop("geometry", None)
        try:
            return super().forward(
                hidden_states,
                timestep,  # type: ignore[arg-type]
                encoder_hidden_states,
                encoder_hidden_states_image,
                return_dict,
                attention_kwargs=kwargs or None,
            )
        finally:
            self.patch_embedding.geometry = None  # type: ignore[assignment]

    def fuse_kernels_(self, device_type: str = "cuda", on: bool = True) -> bool:
        """Let Triton kernels do what lies between the blocks' matrices, where they run; whether they will."""
        from ex4d.models.wan.fast.fused import available, fits

        head_dim = self.config["attention_head_dim"]
        fused = on and available(device_type) and fits(self.dim, self.config["ffn_dim"], head_dim)
        for block in self.blocks:
            block.fused = fused  # type: ignore[assignment]
        return fused

    def is_kept_float32(self, parameter_name: str) -> bool:
        """Whether METHOD 6.7 keeps this parameter in float32 when the rest is bfloat16."""
        return any(part in self._keep_in_fp32_modules for part in parameter_name.split("."))

    @torch.no_grad()
    def cast_compute_(self, dtype: torch.dtype) -> Ex4dTransformer:
        """Give every parameter its dtype in place: `dtype`, or float32 where the precision map says so."""
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(torch.float32 if self.is_kept_float32(name) else dtype)
        return self

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        return self.config["num_attention_heads"] * self.config["attention_head_dim"]
