"""Triton kernels for what a Wan block does between its matrix products: one read of every row, one write.

Bytes a token of the 14B model (width 5120, feed-forward 13824), and what they take for 13312 tokens, 40 blocks and 2.8 TB/s:

| kernel | reads | writes | KB | ms |
| --- | --- | --- | --- | --- |
| residual_norm, norm 1, fp8 | float32 row | fp8 row | 25.6 | 4.9 |
| residual_norm, norms 2 and 3, fp8 | float32 and bfloat16 rows | float32 and fp8 rows | 56.3 | 10.7 each |
| quantise_rows of the attention | bfloat16 row | fp8 row | 15.4 | 2.9 each of two |
| quantise_rows with GELU | bfloat16 wide row | fp8 wide row | 41.5 | 7.9 |
| norm_rotate of q and k | two bfloat16 rows | two bfloat16 rows | 41.0 | 7.8 |
| norm_rotate of the cross-attention's q | bfloat16 row | bfloat16 row | 20.5 | 3.9 |

A row stays in registers between its reduction and its result, so nothing is read twice. All arithmetic is float32; a value is rounded
once, when it is stored. Rows are longer than 2^31 bytes apart in long clips, hence the 64-bit row offsets.
"""

# Triton traces these functions; to a type checker its tensors are tuples, its constants ints.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def store_row(
    out_ptr, scale_ptr, row, cols, live, y, n, LIMIT: tl.constexpr, TINY: tl.constexpr, QUANTISE: tl.constexpr
):  # fmt: skip
    """A float32 row in the output's type, or in fp8 under the row's own scale."""
    if QUANTISE:
        scale = tl.maximum(tl.max(tl.where(live, tl.abs(y), 0.0), axis=0) / LIMIT, TINY)
        tl.store(scale_ptr + row, scale)
        y = tl.minimum(tl.maximum(y * (1.0 / scale), -LIMIT), LIMIT)
    tl.store(out_ptr + row * n + cols, y.to(out_ptr.dtype.element_ty), mask=live)


@triton.jit
def residual_norm(
    residual_ptr, update_ptr, gate_ptr, factor_ptr, shift_ptr, sum_ptr, out_ptr, scale_ptr,
    tokens, n, gate_stride, factor_stride, eps,
    HAS_UPDATE: tl.constexpr, HAS_GATE: tl.constexpr, QUANTISE: tl.constexpr,
    LIMIT: tl.constexpr, TINY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """sum = residual + gate * update (written), then layer norm of the sum times `factor` plus `shift`."""
    row = tl.program_id(0).to(tl.int64)
    batch = row // tokens
    cols = tl.arange(0, BLOCK)
    live = cols < n
    x = tl.load(residual_ptr + row * n + cols, mask=live, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        update = tl.load(update_ptr + row * n + cols, mask=live, other=0.0).to(tl.float32)
        if HAS_GATE:
            gate = tl.load(gate_ptr + batch * gate_stride + cols, mask=live, other=0.0, eviction_policy="evict_last")
            update = update * gate.to(tl.float32)
        x = x + update
        tl.store(sum_ptr + row * n + cols, x, mask=live)
    mean = tl.sum(x, axis=0) / n
    centred = tl.where(live, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / n
    y = centred * (1.0 / tl.sqrt(variance + eps))
    factor = tl.load(factor_ptr + batch * factor_stride + cols, mask=live, other=0.0, eviction_policy="evict_last")
    shift = tl.load(shift_ptr + batch * factor_stride + cols, mask=live, other=0.0, eviction_policy="evict_last")
    y = y * factor.to(tl.float32) + shift.to(tl.float32)
    store_row(out_ptr, scale_ptr, row, cols, live, y, n, LIMIT, TINY, QUANTISE)


@triton.jit
def quantise_rows(
    x_ptr, out_ptr, scale_ptr, n,
    GELU: tl.constexpr, LIMIT: tl.constexpr, TINY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A row, or GELU (tanh form) of it, in fp8 under its own scale."""
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    live = cols < n
    x = tl.load(x_ptr + row * n + cols, mask=live, other=0.0).to(tl.float32)
    if GELU:  # 0.5 x (1 + tanh u) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
        x = x / (1.0 + tl.exp(tl.minimum(-1.5957691216057308 * (x + 0.044715 * x * x * x), 80.0)))
    store_row(out_ptr, scale_ptr, row, cols, live, x, n, LIMIT, TINY, True)


@triton.jit
def norm_rotate(
    q_ptr, k_ptr, v_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr, out_ptr,
    tokens, n, local, part_stride, token_stride, rank_stride, eps,
    ROTATE: tl.constexpr, HEAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """RMS norm over all heads, then rotary embedding of each; program axis 1 picks q, k, or v, which is only copied.

    Channel c of token t goes to part * part_stride + t * token_stride + (c // local) * rank_stride + c % local: separate tensors for
    one GPU, or one buffer cut by the GPU that will see these heads, ready to be exchanged.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    live = cols < n
    rank = cols // local
    out_ptr += part * part_stride + row * token_stride
    place = rank.to(tl.int64) * rank_stride + (cols - rank * local)
    if part == 2:
        v = tl.load(v_ptr + row * n + cols, mask=live, other=0.0)
        tl.store(out_ptr + place, v, mask=live)
    else:
        if part == 0:
            x = tl.load(q_ptr + row * n + cols, mask=live, other=0.0).to(tl.float32)
            weight = tl.load(q_weight_ptr + cols, mask=live, other=0.0, eviction_policy="evict_last")
        else:
            x = tl.load(k_ptr + row * n + cols, mask=live, other=0.0).to(tl.float32)
            weight = tl.load(k_weight_ptr + cols, mask=live, other=0.0, eviction_policy="evict_last")
        x = x * (1.0 / tl.sqrt(tl.sum(x * x, axis=0) / n + eps)) * weight.to(tl.float32)
        if ROTATE:
            half = tl.arange(0, HEAD // 2)
            angles = (row % tokens) * HEAD + 2 * half  # the tables hold every value twice
            cos = tl.load(cos_ptr + angles)[None, :].to(tl.float32)
            sin = tl.load(sin_ptr + angles + 1)[None, :].to(tl.float32)
            even, odd = tl.split(tl.reshape(x, [BLOCK // HEAD, HEAD // 2, 2]))
            x = tl.reshape(tl.join(even * cos - odd * sin, even * sin + odd * cos), [BLOCK])
        tl.store(out_ptr + place, x.to(out_ptr.dtype.element_ty), mask=live)
