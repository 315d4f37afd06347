"""Kernels that draw a general triangle mesh: any vertices, any faces, one frame. Large faces go on to `cuda_queue.py`."""

# Triton traces these functions; to a type checker its tensors are tuples, its constants ints.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import triton
import triton.language as tl

from ex4d.render.cuda.screen import (
    BAD,
    EMPTY,
    SIZES,
    SMALL,
    SUB,
    first_pixel,
    last_pixel,
    load_vertex,
    make_key,
    sort_face,
    store_vertex,
    transform,
)


@triton.jit(do_not_specialize=SIZES)
def project_points(vertices_ptr, camera_ptr, screen_ptr, inv_z_ptr, num_vertices, BLOCK: tl.constexpr):
    """World points [V, 3] float32 to the screen, one a lane."""
    vertex = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = vertex < num_vertices
    x = tl.load(vertices_ptr + vertex * 3, mask=live, other=0.0).to(tl.float64)
    y = tl.load(vertices_ptr + vertex * 3 + 1, mask=live, other=0.0).to(tl.float64)
    z = tl.load(vertices_ptr + vertex * 3 + 2, mask=live, other=0.0).to(tl.float64)
    u, v, w = transform(camera_ptr, x, y, z)
    store_vertex(screen_ptr, inv_z_ptr, vertex, u, v, w, live)


@triton.jit(do_not_specialize=SIZES)
def draw_soup(
    screen_ptr, inv_z_ptr, faces_ptr, hidden_ptr, keys_ptr, middle_ptr, hard_ptr, counters_ptr,
    middle_capacity, hard_capacity, num_faces, out_h, out_w,
    TINY: tl.constexpr, MIDDLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One face a lane: drawn here when its box holds at most TINY pixels, queued when it is larger, else dropped."""
    face = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = face < num_faces
    v0 = tl.load(faces_ptr + face * 3, mask=live, other=0)
    v1 = tl.load(faces_ptr + face * 3 + 1, mask=live, other=0)
    v2 = tl.load(faces_ptr + face * 3 + 2, mask=live, other=0)
    x0, y0 = load_vertex(screen_ptr, v0, live)
    x1, y1 = load_vertex(screen_ptr, v1, live)
    x2, y2 = load_vertex(screen_ptr, v2, live)
    low_x, high_x = tl.minimum(tl.minimum(x0, x1), x2), tl.maximum(tl.maximum(x0, x1), x2)
    low_y, high_y = tl.minimum(tl.minimum(y0, y1), y2), tl.maximum(tl.maximum(y0, y1), y2)
    usable = low_x != BAD
    left = tl.maximum(first_pixel(low_x), 0)
    top = tl.maximum(first_pixel(low_y), 0)
    columns = tl.minimum(last_pixel(high_x), out_w - 1) - left + 1
    rows = tl.minimum(last_pixel(high_y), out_h - 1) - top + 1
    outside = usable & ((columns <= 0) | (rows <= 0))
    small = usable & (high_x - low_x <= SMALL) & (high_y - low_y <= SMALL) & (columns * rows <= TINY)
    count = tl.where(live & small & ~outside, columns * rows, 0)
    if tl.max(count, 0) > 0:
        drawn = count > 0
        inv_z0 = tl.load(inv_z_ptr + v0, mask=drawn, other=1.0)
        inv_z1 = tl.load(inv_z_ptr + v1, mask=drawn, other=1.0)
        inv_z2 = tl.load(inv_z_ptr + v2, mask=drawn, other=1.0)
        hidden = tl.load(hidden_ptr + face, mask=drawn, other=0).to(tl.int64)
        low = (hidden << 31) | face.to(tl.int64)
        draw_triangles(keys_ptr, out_w, x0, y0, x1, y1, x2, y2, inv_z0, inv_z1, inv_z2, low, left, top, columns, count)
    sort_face(
        live & ~small & ~outside, face.to(tl.int64), x0, y0, x1, y1, x2, y2, out_h, out_w,
        middle_ptr, hard_ptr, counters_ptr, middle_capacity, hard_capacity, MIDDLE,
    )  # fmt: skip


@triton.jit
def draw_triangles(keys_ptr, out_w, x0, y0, x1, y1, x2, y2, inv_z0, inv_z1, inv_z2, low, left, top, columns, count):
    """Draw one tiny face a lane: every pixel of its box, in exact int32 arithmetic (see `cuda_grid.draw_quads`)."""
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    on = area != 0
    scale = 1.0 / tl.where(on, area, 1).to(tl.float64)
    col = left
    row = top
    for step in range(0, tl.max(count, 0)):
        px = col * SUB + SUB // 2
        py = row * SUB + SUB // 2
        rx0, ry0, rx1, ry1, rx2, ry2 = x0 - px, y0 - py, x1 - px, y1 - py, x2 - px, y2 - py
        w0 = rx1 * ry2 - ry1 * rx2
        w1 = rx2 * ry0 - ry2 * rx0
        w2 = rx0 * ry1 - ry0 * rx1
        lowest = tl.minimum(tl.minimum(w0, w1), w2)
        highest = tl.maximum(tl.maximum(w0, w1), w2)
        inside = (step < count) & on & ((lowest >= 0) | (highest <= 0))
        inv_z = (w0.to(tl.float64) * inv_z0 + w1.to(tl.float64) * inv_z1 + w2.to(tl.float64) * inv_z2) * scale
        key = tl.where(inside, make_key(tl.where(inside, inv_z, 1.0), low), EMPTY)
        tl.atomic_min(keys_ptr + row * out_w + col, key, mask=inside, sem="relaxed")
        col += 1
        wrap = col >= left + columns
        col = tl.where(wrap, left, col)
        row = tl.where(wrap, row + 1, row)
