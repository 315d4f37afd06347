"""Device functions that every GPU kernel of the rasteriser shares: the raster law of `render/base.py` in Triton.

Screen positions are integers in 1/`SUBPIXEL` px. A vertex is two int32 packed in one int64, and its 1/z in float64. A
vertex in front of the near plane, or too far away for int32 arithmetic, carries a sentinel instead; faces with such a
vertex are drawn from their source points (`cuda_queue.py`). A pixel's state is one int64 key, the least of which wins:

    bits 62..32  infinity - bits of float32 1/z: the greatest 1/z first
    bit  31      1 where the face is hidden: a visible face beats a hidden one
    bits 30..0   face id: then the lowest
"""

# Triton traces these functions; to a type checker its tensors are tuples, its constants ints.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import triton
import triton.language as tl

from ex4d.render.base import NEAR, SUBPIXEL

#: Sizes that a kernel must not be compiled anew for: one variant serves all pictures.
SIZES = (
    "height", "width", "grid_h", "grid_w", "out_h", "out_w", "num_vertices", "num_faces", "slots",
    "capacity", "middle_capacity", "hard_capacity", "strip_capacity",
)  # fmt: skip

#: log2 of SUBPIXEL: pixels and positions convert by shifts.
SHIFT = tl.constexpr(SUBPIXEL.bit_length() - 1)
SUB = tl.constexpr(SUBPIXEL)
NEAR_Z = tl.constexpr(NEAR)

#: x of a vertex without a usable position; y then says why.
BAD = tl.constexpr(-(2**31))
IN_FRONT_OF_NEAR = tl.constexpr(0)
OUT_OF_RANGE = tl.constexpr(1)

#: Positions at or beyond this are out of range (131,072 px): differences of two must fit an int32.
LIMIT = tl.constexpr(2**29)

#: No surface here.
EMPTY = tl.constexpr(2**63 - 1)
INFINITY_BITS = tl.constexpr(0x7F800000)

#: Faces whose box is at most this wide and high have edge functions below 2^31: 7 px (2 * (7 * 4096)^2 < 2^31).
SMALL = tl.constexpr(7 * SUBPIXEL)

#: A pixel column is tested when it lies within this of a row's exact span, in 1/SUBPIXEL px; the test itself is exact.
SLACK = tl.constexpr(0.5)


@triton.jit
def snap(position_px):
    """Pixels to float64 multiples of 1/SUBPIXEL px."""
    return tl.floor(position_px * SUB + 0.5)


@triton.jit
def transform(camera_ptr, x, y, z):
    """World points to (u, v, w) in float64: u / w, v / w are pixels and w is depth. camera: [12], K [R | t] row by row."""
    u = tl.load(camera_ptr) * x + tl.load(camera_ptr + 1) * y + tl.load(camera_ptr + 2) * z + tl.load(camera_ptr + 3)
    v = (
        tl.load(camera_ptr + 4) * x
        + tl.load(camera_ptr + 5) * y
        + tl.load(camera_ptr + 6) * z
        + tl.load(camera_ptr + 7)
    )
    w = tl.load(camera_ptr + 8) * x + tl.load(camera_ptr + 9) * y + tl.load(camera_ptr + 10) * z
    return u, v, w + tl.load(camera_ptr + 11)


@triton.jit
def to_screen(u, v, w):
    """Homogeneous pixels to snapped int32 (x, y), or a sentinel, and float64 1/z (0 in front of the near plane)."""
    near = w < NEAR_Z
    inv_z = 1.0 / tl.where(near, 1.0, w)
    x = snap(u * inv_z)
    y = snap(v * inv_z)
    bad = near | (tl.abs(x) >= LIMIT) | (tl.abs(y) >= LIMIT)
    xi = tl.where(bad, BAD, tl.where(bad, 0.0, x).to(tl.int32))
    yi = tl.where(bad, tl.where(near, IN_FRONT_OF_NEAR, OUT_OF_RANGE), tl.where(bad, 0.0, y).to(tl.int32))
    return xi, yi, tl.where(near, 0.0, inv_z)


@triton.jit
def store_vertex(screen_ptr, inv_z_ptr, index, u, v, w, live):
    """Project, snap, pack and store one vertex a lane."""
    x, y, inv_z = to_screen(u, v, w)
    packed = (y.to(tl.int64) << 32) | (x.to(tl.int64) & 0xFFFFFFFF)
    tl.store(screen_ptr + index, packed, mask=live)
    tl.store(inv_z_ptr + index, inv_z, mask=live)


@triton.jit
def load_vertex(screen_ptr, index, live):
    """(x, y) of a vertex, int32."""
    packed = tl.load(screen_ptr + index, mask=live, other=0)
    return packed.to(tl.int32), (packed >> 32).to(tl.int32)


@triton.jit
def first_pixel(low):
    """First pixel whose centre is at or after a position."""
    return (low + (SUB // 2 - 1)) >> SHIFT


@triton.jit
def last_pixel(high):
    """Last pixel whose centre is at or before a position."""
    return (high - SUB // 2) >> SHIFT


@triton.jit
def make_key(inv_z, low):
    """A pixel's key from float64 1/z and the low 32 bits (hidden flag and face id, int64)."""
    bits = inv_z.to(tl.float32).to(tl.int32, bitcast=True)
    return ((bits * -1 + INFINITY_BITS).to(tl.int64) << 32) | low


@triton.jit
def key_inv_z(key):
    """float32 1/z of a key."""
    return ((key >> 32).to(tl.int32) * -1 + INFINITY_BITS).to(tl.float32, bitcast=True)


@triton.jit
def append(list_ptr, counter_ptr, capacity, entry, chosen):
    """Add the chosen lanes' entries to a list. The counter counts also what did not fit, so that the caller sees the need."""
    wanted = chosen.to(tl.int32)
    count = tl.sum(wanted, 0)
    if count > 0:
        first = tl.atomic_add(counter_ptr, count.to(tl.int64))
        slot = first + (tl.cumsum(wanted, 0) - 1).to(tl.int64)
        tl.store(list_ptr + slot, entry, mask=chosen & (slot < capacity))


@triton.jit
def sort_face(
    pending, entry, x0, y0, x1, y1, x2, y2, out_h, out_w,
    middle_ptr, hard_ptr, counters_ptr, middle_capacity, hard_capacity, MIDDLE: tl.constexpr,
):  # fmt: skip
    """Drop a face that covers nothing, and queue the rest: middling ones for one lane each, others for `set_up_hard`."""
    bad0 = x0 == BAD
    bad1 = x1 == BAD
    bad2 = x2 == BAD
    bad = bad0 | bad1 | bad2
    behind = bad0 & bad1 & bad2 & (y0 == IN_FRONT_OF_NEAR) & (y1 == IN_FRONT_OF_NEAR) & (y2 == IN_FRONT_OF_NEAR)
    left = tl.maximum(first_pixel(tl.minimum(tl.minimum(x0, x1), x2)), 0)
    right = tl.minimum(last_pixel(tl.maximum(tl.maximum(x0, x1), x2)), out_w - 1)
    top = tl.maximum(first_pixel(tl.minimum(tl.minimum(y0, y1), y2)), 0)
    bottom = tl.minimum(last_pixel(tl.maximum(tl.maximum(y0, y1), y2)), out_h - 1)
    dx1 = (x1 - x0).to(tl.float64)
    dy2 = (y2 - y0).to(tl.float64)
    area = dx1 * dy2 - (x2 - x0).to(tl.float64) * (y1 - y0).to(tl.float64)
    drawn = pending & ~bad & (left <= right) & (top <= bottom) & (area != 0.0)
    work = (bottom - top + 1).to(tl.float64) + tl.abs(area) * (0.5 / (SUB * SUB))
    append(middle_ptr, counters_ptr, middle_capacity, entry, drawn & (work <= MIDDLE))
    hard = (drawn & (work > MIDDLE)) | (pending & bad & ~behind)
    append(hard_ptr, counters_ptr + 1, hard_capacity, entry, hard)
