"""A Wan block's forward with Triton kernels between its matrix products: the twin of `Ex4dBlock.forward`."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor, nn

from ex4d.models.wan.fast import fused
from ex4d.models.wan.fast.float8 import FP8, Quantised, QuantLinear

#: The release's text length: what precedes it in the joined tokens are image tokens.
TEXT_TOKENS = 512


def suits(block: Any, hidden: Tensor, temb: Tensor, dtype: torch.dtype) -> bool:
    """Whether this call is inference as the kernels know it; anything else (training, other processors) runs in torch."""
    attn1, attn2 = block.attn1, block.attn2
    plain = type(attn1.processor) is WanAttnProcessor and type(attn2.processor) is WanAttnProcessor
    return (
        plain
        and not torch.is_grad_enabled()
        and temb.ndim == 3
        and hidden.dtype == torch.float32
        and dtype in (torch.bfloat16, torch.float16)
        and not getattr(attn1, "fused_projections", False)
        and not getattr(attn2, "fused_projections", False)
        and isinstance(block.norm2, nn.LayerNorm)
    )


def fused_block(
    block: Any, hidden: Tensor, context: Tensor, temb: Tensor, rotary: tuple[Tensor, Tensor], dtype: torch.dtype
) -> Tensor:
    """As `Ex4dBlock.forward`: residual stream float32 [b, t, n], read and written once around each sub-layer."""
    table = block.scale_shift_table + temb.float()
    shift, scale, gate, ff_shift, ff_scale, ff_gate = table.chunk(6, dim=1)
    eps = block.norm1.eps

    _, x = _norm(block.attn1.to_q, hidden, None, None, 1 + scale, shift, eps, dtype)
    update = _self_attention(block, x, rotary)
    norm2 = block.norm2
    factor, offset = norm2.weight.float(), norm2.bias.float()
    hidden, x = _norm(block.attn2.to_q, hidden, update, gate, factor, offset, norm2.eps, dtype)
    update = _cross_attention(block.attn2, x, context)
    hidden, x = _norm(block.ffn.net[0].proj, hidden, update, None, 1 + ff_scale, ff_shift, block.norm3.eps, dtype)
    return hidden + _feed_forward(block.ffn, x, dtype) * ff_gate


def _eight_bit(linear: nn.Module) -> bool:
    return isinstance(linear, QuantLinear) and linear.kind == "fp8"


def _norm(
    linear: nn.Module,
    hidden: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    factor: Tensor,
    shift: Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | Quantised]:
    """(new residual, what `linear` reads)."""
    out_dtype = FP8 if _eight_bit(linear) else dtype
    total, x, scale = fused.residual_norm(hidden, update, gate, factor, shift, eps, out_dtype)
    return hidden if update is None else total, Quantised(x, scale, dtype) if out_dtype == FP8 else x


def _output(attn: Any, x: Tensor) -> Tensor:
    """The output projection of an attention [b, t, n]."""
    linear = attn.to_out[0]
    if not _eight_bit(linear):
        return linear(x)
    values, scale = fused.quantise(x, False)
    return linear(Quantised(values, scale, x.dtype))


def _self_attention(block: Any, x: Tensor | Quantised, rotary: tuple[Tensor, Tensor]) -> Tensor:
    attn = block.attn1
    q, k, v = attn.to_q(x), attn.to_k(x), attn.to_v(x)
    cos, sin = rotary
    weights = attn.norm_q.weight, attn.norm_k.weight
    backend, config = attn.processor._attention_backend, attn.processor._parallel_config
    if block.exchange is not None and config is not None and q.shape[0] == 1:
        group, ranks = block.exchange
        packed = fused.norm_rotate_pack(q, k, v, *weights, cos, sin, attn.heads, attn.norm_q.eps, ranks)
        mine = fused.exchange(packed, group).flatten(0, 1)  # all tokens, 3, this GPU's heads
        q, k, v = (mine[None, :, i] for i in range(3))
        out = dispatch_attention_fn(q, k, v, backend=backend, parallel_config=None)
        out = out.reshape(ranks, -1, *out.shape[2:])  # by the GPU that keeps these tokens
        out = fused.exchange(out, group)  # by the GPU that had these heads
        return _output(attn, out.permute(1, 0, 2, 3).reshape(1, out.shape[1], -1))
    q, k = fused.norm_rotate(q, k, *weights, cos, sin, attn.heads, attn.norm_q.eps).unbind(0)
    v = v.unflatten(2, (attn.heads, -1))
    out = dispatch_attention_fn(q, k, v, backend=backend, parallel_config=config)
    return _output(attn, out.flatten(2, 3))


def _cross_attention(attn: Any, x: Tensor | Quantised, context: Tensor) -> Tensor:
    """Image tokens (where the model has them) and text tokens; both are the same on every GPU."""
    q = fused.rms_norm(attn.to_q(x), attn.norm_q.weight, attn.norm_q.eps)
    if attn.add_k_proj is None:
        k, v = attn.norm_k(attn.to_k(context)), attn.to_v(context)
        q, k, v = (y.unflatten(2, (attn.heads, -1)) for y in (q, k, v))
        out = dispatch_attention_fn(q, k, v, backend=attn.processor._attention_backend)
        return _output(attn, out.flatten(2, 3))
    image, text = context[:, :-TEXT_TOKENS], context[:, -TEXT_TOKENS:]
    k, v = attn.norm_k(attn.to_k(text)), attn.to_v(text)
    image_k, image_v = attn.norm_added_k(attn.add_k_proj(image)), attn.add_v_proj(image)
    distinct = fused.distinct_rows(text)
    return _output(attn, fused.cross_attention(q, image_k, image_v, k, v, distinct, attn.heads))


def _feed_forward(ffn: Any, x: Tensor | Quantised, dtype: torch.dtype) -> Tensor:
    first, last = ffn.net[0], ffn.net[2]
    if not (_eight_bit(first.proj) and _eight_bit(last)):
        return ffn(x)
    values, scale = fused.quantise(first.proj(x), True)
    return last(Quantised(values, scale, dtype))
