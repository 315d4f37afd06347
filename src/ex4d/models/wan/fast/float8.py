"""Linear layers with 8-bit weights: rowwise scaled fp8 products, or fp8 and int8 storage with products in bfloat16.

An outlier must not cost its neighbours their precision, so nothing is scaled by a whole tensor: a weight has one scale for each
output channel, an activation one for each token, and e4m3 itself keeps three mantissa bits over 2^-6..448 below that scale, so
that a channel 100 times the others leaves them all their bits (int8 activations would leave them one).
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["fp8", "fp8_weight", "int8_weight"]

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
INT8_MAX = 127.0
#: `torch._scaled_mm` needs both sides of the weight divisible by this.
ALIGNMENT = 16
#: A row of zeros still needs a scale; the smallest that stays normal in float32.
TINY_SCALE = 1e-12
#: Linears that stay wide: everything outside the blocks (embeddings, head) is under 1.5 % of the time and feeds every token.
QUANTISED_PREFIX = "blocks."


def quantises(kind: str | None, name: str, weight: Tensor) -> bool:
    """Whether this weight is stored in 8 bits under `kind`."""
    if kind is None or not name.startswith(QUANTISED_PREFIX):
        return False
    return kind != "fp8" or (weight.shape[0] % ALIGNMENT == 0 and weight.shape[1] % ALIGNMENT == 0)


def quantise_rows(x: Tensor, dtype: torch.dtype, limit: float) -> tuple[Tensor, Tensor]:
    """Rows scaled to the type's range: (values [.., n], scale [.., 1] float32) with x close to values * scale."""
    wide = x.float()
    scale = (wide.abs().amax(dim=-1, keepdim=True) / limit).clamp_min(TINY_SCALE)
    scaled = wide / scale
    if dtype == torch.int8:
        scaled = scaled.round()
    return scaled.clamp(-limit, limit).to(dtype), scale


class QuantLinear(nn.Module):
    """A linear layer whose weight is 8 bits with one float32 scale for each output channel.

    Attributes:
        weight: [out, in] fp8 or int8, a frozen parameter.
        weight_scale: [out, 1] float32.
        bias: As the layer it replaces.
    """

    def __init__(self, weight: Tensor, weight_scale: Tensor, kind: Kind) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("weight_scale", weight_scale)
        self.weight_scale: Tensor
        self.bias: nn.Parameter | None = None
        self.kind = kind
        self.fuse_bias = weight.is_cuda and fuses_bias(weight.device)
        self.out_features, self.in_features = weight.shape

    @classmethod
    def from_weight(cls, weight: Tensor, kind: Kind, device: torch.device | str | None = None) -> QuantLinear:
        """Quantise a full-precision weight where it is and keep the result on `device`."""
        dtype, limit = (torch.int8, INT8_MAX) if kind == "int8_weight" else (FP8, FP8_MAX)
        values, scale = quantise_rows(weight, dtype, limit)
        linear = cls(values, scale, kind)
        return linear if device is None else linear.to(device)

    def dequantised(self) -> Tensor:
        """The weight as float32."""
        return self.weight.float() * self.weight_scale

    def forward(self, x: Tensor | Quantised) -> Tensor:
        if self.kind == "fp8" or isinstance(x, Quantised):
            return fp8_linear(x, self.weight, self.weight_scale, self.bias, self.fuse_bias)
        # Scaled in float32: one rounding less, and Inductor has a rewrite for scales in bfloat16 that fails on computed inputs.
        out = F.linear(x, self.weight.to(x.dtype))
        out = out.to(torch.promote_types(x.dtype, torch.float32)) * self.weight_scale.T
        return (out if self.bias is None else out + self.bias).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.kind}"


class Quantised(NamedTuple):
    """An activation in fp8, so that q, k and v can share one quantisation.

    Attributes:
        values: [..., n] fp8.
        scale: [rows, 1] float32, one for each token.
        dtype: Of the activation it was made from, and of the products' results.
    """

    values: Tensor
    scale: Tensor
    dtype: torch.dtype


def quantised(x: Tensor) -> Quantised:
    """An activation scaled token by token."""
    values, scale = quantise_rows(x, FP8, FP8_MAX)
    return Quantised(values, scale.reshape(-1, 1), x.dtype)


def shared_input(linear: nn.Module, x: Tensor) -> Tensor | Quantised:
    """What to hand to several layers like `linear` that read the same input."""
    return quantised(x) if isinstance(linear, QuantLinear) and linear.kind == "fp8" else x


def fp8_linear(
    x: Tensor | Quantised, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, fuse_bias: bool = False
) -> Tensor:
    """x @ weight.T with both sides in fp8, scaled by token and by output channel; the result has the dtype of `x`."""
    x = x if isinstance(x, Quantised) else quantised(x)
    values = x.values.reshape(-1, x.values.shape[-1])
    if values.is_cuda:
        fused = fuse_bias and bias is not None and bias.dtype == torch.bfloat16 and x.dtype == torch.bfloat16
        out = torch._scaled_mm(  # type: ignore[attr-defined]
            values,
            weight.t(),
            scale_a=x.scale,
            scale_b=weight_scale.t(),
            bias=bias if fused else None,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        bias = None if fused else bias
    else:  # the same arithmetic without the kernel
        out = (values.float() @ weight.float().t()) * x.scale * weight_scale.t()
    out = out.to(x.dtype)
    if bias is not None:
        out = out + bias.to(out.dtype)
    return out.reshape(*x.values.shape[:-1], -1)


@cache
def fuses_bias(device: torch.device) -> bool:
    """Whether this build's rowwise fp8 product adds a bfloat16 bias itself."""
    n = ALIGNMENT
    ones = torch.ones(n, n, device=device)
    scale = torch.ones(n, 1, device=device)
    try:
        torch._scaled_mm(  # type: ignore[attr-defined]
            ones.to(FP8),
            ones.to(FP8).t(),
            scale_a=scale,
            scale_b=scale.t(),
            bias=torch.ones(n, device=device, dtype=torch.bfloat16),
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
    except RuntimeError:
        return False
    return True
