"""The Triton kernels of `kernels_wan.py` and `kernels_cross.py` as torch operators, so that compiled blocks stay one graph.

The plain twin of each is what `Ex4dBlock.forward` does in torch; tests compare the two in Triton's interpreter.
"""

# Launch options of Triton's kernels are not in the kernels' own signatures.
# pyright: reportCallIssue=false
from __future__ import annotations

import math
import os
from functools import cache

import torch
from torch import Tensor
from torch.library import custom_op

from ex4d.models.wan.fast.float8 import FP8, FP8_MAX, TINY_SCALE

LOG2_E = 1.4426950408889634
#: Queries and keys of one step of the cross-attention.
QUERY_ROWS, KEY_ROWS = 128, 64
#: Longest row that fits in the registers of one program.
LONGEST_ROW = 16384


@cache
def available(device_type: str) -> bool:
    """Whether the kernels run here: CUDA with Triton, or Triton's interpreter; EX4D_FUSED=0 turns them off."""
    if os.environ.get("EX4D_FUSED", "1") == "0":
        return False
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    if _interpreted():
        return True
    return device_type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def fits(dim: int, ffn_dim: int, head_dim: int) -> bool:
    """Whether a model of these widths suits the kernels."""
    power = head_dim >= 16 and head_dim & (head_dim - 1) == 0
    return power and dim <= LONGEST_ROW and ffn_dim <= LONGEST_ROW


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def _stored(dtype: torch.dtype) -> torch.dtype:
    """What a kernel writes: Triton's interpreter drops the carry when it rounds to fp8 (127 becomes 64) and cuts bfloat16 off."""
    return torch.float32 if dtype.itemsize < 4 and _interpreted() else dtype


def _block(n: int) -> int:
    return 1 << max(5, (n - 1).bit_length())


def _warps(block: int) -> int:
    """At most 32 values a thread: a row and its modulation stay in registers."""
    return min(16, max(1, block // 1024))


@custom_op(
    "ex4d::residual_norm",
    mutates_args=(),
    schema="(Tensor residual, Tensor? update, Tensor? gate, Tensor factor, Tensor shift, float eps, ScalarType out_dtype)"
    " -> (Tensor, Tensor, Tensor)",
)
def residual_norm(
    residual: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    factor: Tensor,
    shift: Tensor,
    eps: float,
    out_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """(residual + gate * update, its layer norm * factor + shift, scale of each row).

    Args:
        residual: [b, t, n] float32.
        update: [b, t, n] to add first; without one the first result is empty.
        gate: [b or 1, 1, n] factor of the update.
        factor, shift: [b or 1, 1, n], both float32.
        eps: Of the layer norm.
        out_dtype: Of the second result; fp8 is scaled row by row, else the scale is empty.
    """
    from ex4d.models.wan.fast.kernels_block import residual_norm as kernel

    residual = residual.contiguous()
    batch, tokens, n = residual.shape
    rows, eight = batch * tokens, out_dtype == FP8
    total = torch.empty_like(residual) if update is not None else residual.new_empty(0)
    out = torch.empty(residual.shape, dtype=_stored(out_dtype), device=residual.device)
    scale = residual.new_empty((rows, 1) if eight else (0, 1), dtype=torch.float32)
    factor, shift = factor.reshape(-1, n).contiguous(), shift.reshape(-1, n).contiguous()
    gate = None if gate is None else gate.reshape(-1, n).contiguous()
    update = None if update is None else update.contiguous()
    block = _block(n)
    kernel[(rows,)](
        residual, update, gate, factor, shift, total, out, scale, tokens, n,
        n if gate is not None and len(gate) > 1 else 0, n if len(factor) > 1 else 0, eps,
        HAS_UPDATE=update is not None, HAS_GATE=gate is not None, QUANTISE=eight,
        LIMIT=FP8_MAX, TINY=TINY_SCALE, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return total, out.to(out_dtype), scale


@residual_norm.register_fake
def _(residual, update, gate, factor, shift, eps, out_dtype):
    rows = residual.shape[0] * residual.shape[1]
    total = residual.new_empty(residual.shape if update is not None else (0,))
    out = residual.new_empty(residual.shape, dtype=out_dtype)
    return total, out, residual.new_empty((rows if out_dtype == FP8 else 0, 1), dtype=torch.float32)


@custom_op("ex4d::quantise", mutates_args=())
def quantise(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """(fp8 rows of x [.., n] or of GELU(x), tanh form; scale [rows, 1])."""
    from ex4d.models.wan.fast.kernels_block import quantise_rows as kernel

    x = x.contiguous()
    n = x.shape[-1]
    rows = x.numel() // n
    out = torch.empty(x.shape, dtype=_stored(FP8), device=x.device)
    scale = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    block = _block(n)
    kernel[(rows,)](x, out, scale, n, GELU=gelu, LIMIT=FP8_MAX, TINY=TINY_SCALE, BLOCK=block, num_warps=_warps(block))
    return out.to(FP8), scale


@quantise.register_fake
def _(x, gelu):
    rows = math.prod(x.shape[:-1])
    return x.new_empty(x.shape, dtype=FP8), x.new_empty((rows, 1), dtype=torch.float32)


@custom_op("ex4d::norm_rotate", mutates_args=())
def norm_rotate(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float
) -> Tensor:
    """q and k [b, t, n], RMS norm over all channels, rotated by cos, sin [1, t, 1, n / heads]: [2, b, t, heads, n / heads]."""
    batch, tokens, n = q.shape
    out = torch.empty((2, batch, tokens, heads, n // heads), dtype=_stored(q.dtype), device=q.device)
    _norm_rotate(q, k, q, q_weight, k_weight, cos, sin, out, heads, eps, 2, n, (q.numel(), n, 0))
    return out.to(q.dtype)


@norm_rotate.register_fake
def _(q, k, q_weight, k_weight, cos, sin, heads, eps):
    return q.new_empty((2, *q.shape[:2], heads, q.shape[-1] // heads))


@custom_op("ex4d::norm_rotate_pack", mutates_args=())
def norm_rotate_pack(
    q: Tensor, k: Tensor, v: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor,
    heads: int, eps: float, ranks: int,
) -> Tensor:  # fmt: skip
    """As `norm_rotate` for one clip [1, t, n], with v, cut by heads for an exchange: [ranks, t, 3, heads / ranks, n / heads]."""
    _, tokens, n = q.shape
    local = n // ranks
    out = torch.empty((ranks, tokens, 3, heads // ranks, n // heads), dtype=_stored(q.dtype), device=q.device)
    strides = (local, 3 * local, 3 * local * tokens)
    _norm_rotate(q, k, v, q_weight, k_weight, cos, sin, out, heads, eps, 3, local, strides)
    return out.to(q.dtype)


@norm_rotate_pack.register_fake
def _(q, k, v, q_weight, k_weight, cos, sin, heads, eps, ranks):
    return q.new_empty((ranks, q.shape[1], 3, heads // ranks, q.shape[-1] // heads))


@custom_op("ex4d::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm of x [b, t, n] over its channels."""
    out = torch.empty(x.shape, dtype=_stored(x.dtype), device=x.device)
    n = x.shape[-1]
    _norm_rotate(x, x, x, weight, weight, weight, weight, out, 1, eps, 1, n, (0, n, 0), rotate=False)
    return out.to(x.dtype)


@rms_norm.register_fake
def _(x, weight, eps):
    return x.new_empty(x.shape)


def _norm_rotate(
    q: Tensor, k: Tensor, v: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, out: Tensor,
    heads: int, eps: float, parts: int, local: int, strides: tuple[int, int, int], rotate: bool = True,
) -> None:  # fmt: skip
    from ex4d.models.wan.fast.kernels_block import norm_rotate as kernel

    batch, tokens, n = q.shape
    block = _block(n)
    q, k, v, cos, sin = (x.contiguous() for x in (q, k, v, cos, sin))
    kernel[(batch * tokens, parts)](
        q, k, v, q_weight, k_weight, cos, sin, out, tokens, n, local, *strides, eps,
        ROTATE=rotate, HEAD=n // heads, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip


@custom_op("ex4d::cross_attention", mutates_args=())
def cross_attention(
    q: Tensor, image_k: Tensor, image_v: Tensor, text_k: Tensor, text_v: Tensor, distinct: Tensor, heads: int
) -> Tensor:
    """Attention of q [b, t, n] to image and text tokens [b, m, n], two softmaxes, summed.

    `distinct` [b] int32: of the text rows, how many before the equal rows at the end, plus one (`distinct_rows`).
    """
    from ex4d.models.wan.fast.kernels_cross import cross_attention as kernel

    q, image_k, image_v, text_k, text_v = (x.contiguous() for x in (q, image_k, image_v, text_k, text_v))
    batch, tokens, n = q.shape
    head = n // heads
    rows = min(QUERY_ROWS, max(16, _block(tokens)))
    out = torch.empty(q.shape, dtype=_stored(q.dtype), device=q.device)
    kernel[(-(-tokens // rows), heads, batch)](
        q, image_k, image_v, text_k, text_v, distinct, out, tokens, image_k.shape[1], text_k.shape[1], n,
        LOG2_E / math.sqrt(head), HEAD=head, ROWS=rows, KEYS=KEY_ROWS, WIDE=_interpreted(), num_warps=8, num_stages=2,
    )  # fmt: skip
    return out.to(q.dtype)


@cross_attention.register_fake
def _(q, image_k, image_v, text_k, text_v, distinct, heads):
    return q.new_empty(q.shape)


def distinct_rows(x: Tensor) -> Tensor:
    """Of x [b, m, n], how many rows before the run of equal ones at the end, plus one: [b] int32."""
    other = (x != x[:, -1:]).any(dim=-1)
    index = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=torch.int32)
    return torch.where(other, index, 0).amax(dim=-1).to(torch.int32) + 1


@custom_op("ex4d::exchange", mutates_args=())
def exchange(x: Tensor, group: str) -> Tensor:
    """All-to-all over the first axis [ranks, ..]: part i goes to rank i, part i of the result comes from it."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _resolve_process_group  # type: ignore[attr-defined]

    x = x.contiguous()
    out = torch.empty_like(x)
    dist.all_to_all_single(out, x, group=_resolve_process_group(group))  # type: ignore[arg-type]
    return out


@exchange.register_fake
def _(x, group):
    return x.new_empty(x.shape)
