"""One Triton kernel for both cross-attentions of a Wan block: image tokens and text tokens, two softmaxes, one sum.

Prompts are padded with zero rows to 512 tokens, and equal rows have equal keys: a run of m equal keys at the end counts as one key with
log m added to its score, which is the same sum. A prompt of 30 words costs 31 keys instead of 512; no mask, no synchronisation.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attend(
    q, k_ptr, v_ptr, num_keys, log_last, row_stride, scale,
    HEAD: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """softmax(q k^T scale) v in float32 over the first `num_keys` keys, the last one's score raised by `log_last` (base 2).

    WIDE multiplies in float32: Triton's interpreter has no bfloat16 products.
    """
    channel = tl.arange(0, HEAD)
    offset = tl.arange(0, KEYS)
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, HEAD], tl.float32)
    for start in range(0, num_keys, KEYS):
        key = start + offset
        live = key < num_keys
        place = key[:, None] * row_stride + channel[None, :]
        k = tl.load(k_ptr + place, mask=live[:, None], other=0.0)
        if WIDE:
            k = k.to(tl.float32)
        score = tl.dot(q, tl.trans(k)) * scale
        score += ((key == num_keys - 1).to(tl.float32) * log_last)[None, :]
        score = tl.where(live[None, :], score, float("-inf"))
        peak = tl.maximum(highest, tl.max(score, axis=1))
        weight = tl.exp2(score - peak[:, None])
        fade = tl.exp2(highest - peak)
        v = tl.load(v_ptr + place, mask=live[:, None], other=0.0)
        if WIDE:
            v = v.to(tl.float32)
        total = total * fade + tl.sum(weight, axis=1)
        out = tl.dot(weight.to(v.dtype), v, out * fade[:, None])
        highest = peak
    return out / total[:, None]


@triton.jit
def cross_attention(
    q_ptr, image_k_ptr, image_v_ptr, text_k_ptr, text_v_ptr, distinct_ptr, out_ptr,
    tokens, image_tokens, text_tokens, width, scale,
    HEAD: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Grid: (blocks of queries, heads, batch). All tensors are [batch, tokens, heads * HEAD], contiguous."""
    batch = tl.program_id(2).to(tl.int64)
    column = tl.program_id(1) * HEAD
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    place = (batch * tokens + row.to(tl.int64))[:, None] * width + column + tl.arange(0, HEAD)[None, :]
    live = (row < tokens)[:, None]
    q = tl.load(q_ptr + place, mask=live, other=0.0)
    if WIDE:
        q = q.to(tl.float32)
    start = batch * image_tokens * width + column
    # Rounded between the two as two separate attentions would be: half the registers until the sum.
    image = attend(q, image_k_ptr + start, image_v_ptr + start, image_tokens, 0.0, width, scale, HEAD, ROWS, KEYS, WIDE)
    image = image.to(out_ptr.dtype.element_ty)
    start = batch * text_tokens * width + column
    distinct = tl.load(distinct_ptr + batch)
    repeats = tl.log2((text_tokens - distinct + 1).to(tl.float32))
    text = attend(q, text_k_ptr + start, text_v_ptr + start, distinct, repeats, width, scale, HEAD, ROWS, KEYS, WIDE)
    tl.store(out_ptr + place, (image.to(tl.float32) + text).to(out_ptr.dtype.element_ty), mask=live)
