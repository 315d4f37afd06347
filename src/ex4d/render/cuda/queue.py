"""Kernels for the faces too large for one lane's short loop: depth curtains, border fans, caps, faces near the camera.

The number of queued faces is known on the device only, so these kernels have a fixed number of programs which stride
through the queue; nothing waits for the host. Which program draws a face does not matter: the least key wins.

- `draw_middle`: one face a lane, walking its rows.
- `set_up_hard`: one face a lane: near clipping in float64, then strips of `LANES` rows (or columns, whichever suits).
- `draw_strips`: one strip a program, one row (column) a lane, so that a face over the whole screen has many programs.
"""

# Triton traces these functions; to a type checker its tensors are tuples, its constants ints.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import triton
import triton.language as tl

from ex4d.render.cuda.near_plane import clip_face
from ex4d.render.cuda.screen import SIZES, SLACK, SUB, first_pixel, last_pixel, load_vertex, make_key, snap, transform
from ex4d.render.cuda.source import NUM_FIELDS, face_corner, grid_corners, splat_half

#: Rows of the set-up table: x, y and 1/z of three vertices.
TABLE_ROWS = 9

#: A strip's entry: set-up slot above these bits, strip number below.
STRIP_BITS = tl.constexpr(20)
STRIP_MASK = tl.constexpr((1 << 20) - 1)


@triton.jit
def span(py, x0, y0, x1, y1, x2, y2, slope01, slope12, slope20, sign, last):
    """First and last pixel of a row that can lie inside: the exact test still has the last word.

    Positions are float64; py is the row's centre; slopes are dx / dy of the edges; `sign` is the area's; `last` the last
    pixel of the screen.
    """
    low = tl.full(py.shape, -(2.0**60), tl.float64)
    high = tl.full(py.shape, 2.0**60, tl.float64)
    at = x0 + (py - y0) * slope01
    side = (y1 - y0) * sign
    high = tl.where(side > 0, tl.minimum(high, at), high)
    low = tl.where(side < 0, tl.maximum(low, at), low)
    at = x1 + (py - y1) * slope12
    side = (y2 - y1) * sign
    high = tl.where(side > 0, tl.minimum(high, at), high)
    low = tl.where(side < 0, tl.maximum(low, at), low)
    at = x2 + (py - y2) * slope20
    side = (y0 - y2) * sign
    high = tl.where(side > 0, tl.minimum(high, at), high)
    low = tl.where(side < 0, tl.maximum(low, at), low)
    return pixel_after(low - SLACK, last), pixel_before(high + SLACK, last)


@triton.jit
def pixel_after(position, last):
    """First pixel centre at or after a float64 position, clamped to 0..last + 1."""
    pixel = tl.ceil((position - SUB // 2) / SUB)
    return tl.minimum(tl.maximum(pixel, 0.0), last + 1).to(tl.int32)


@triton.jit
def pixel_before(position, last):
    """Last pixel centre at or before a float64 position, clamped to -1..last."""
    pixel = tl.floor((position - SUB // 2) / SUB)
    return tl.minimum(tl.maximum(pixel, -1.0), last).to(tl.int32)


@triton.jit
def slope(xu, yu, xv, yv):
    """dx / dy of an edge, 0 for a horizontal one (whose crossing is never asked for)."""
    dy = yv - yu
    return (xv - xu) / tl.where(dy == 0, 1.0, dy)


@triton.jit
def put_pixel(
    keys_ptr, address, px, py, x0, y0, x1, y1, x2, y2, inv_z0, inv_z1, inv_z2, sign, scale, low, on
):  # fmt: skip
    """Draw one pixel a lane where its centre (px, py) is inside the face; float64, exact below 16,384 px."""
    w0 = ((x2 - x1) * (py - y1) - (y2 - y1) * (px - x1)) * sign
    w1 = ((x0 - x2) * (py - y2) - (y0 - y2) * (px - x2)) * sign
    w2 = ((x1 - x0) * (py - y0) - (y1 - y0) * (px - x0)) * sign
    inside = on & (tl.minimum(tl.minimum(w0, w1), w2) >= 0)
    inv_z = (w0 * inv_z0 + w1 * inv_z1 + w2 * inv_z2) * scale
    key = make_key(tl.where(inside, inv_z, 1.0), low)
    tl.atomic_min(keys_ptr + address, key, mask=inside, sem="relaxed")


@triton.jit
def hidden_bit(hidden_ptr, frame, face, grid_h, grid_w, GRID: tl.constexpr, live):
    """1 where a face is hidden: bit of its cell, caps always, splats never; soups have one byte a face."""
    if GRID:
        quads = (grid_h - 1) * (grid_w - 1)
        second = (face >= quads).to(tl.int32)
        in_grid = face < 2 * quads
        bits = tl.load(hidden_ptr + frame * quads + face - second * quads, mask=live & in_grid, other=0).to(tl.int32)
        hidden = (bits >> second) & 1
    else:
        hidden = tl.load(hidden_ptr + face, mask=live, other=0).to(tl.int32)
    return hidden


@triton.jit(do_not_specialize=SIZES)
def draw_middle(
    middle_ptr, counters_ptr, capacity, screen_ptr, inv_z_ptr, hidden_ptr, faces_ptr, keys_ptr,
    num_vertices, grid_h, grid_w, out_h, out_w, GRID: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Queued faces of moderate size, one a lane: row by row, every pixel of the row's span."""
    count = tl.minimum(tl.load(counters_ptr), capacity).to(tl.int32)
    for start in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        slot = start + tl.arange(0, BLOCK)
        live = slot < count
        entry = tl.load(middle_ptr + slot, mask=live, other=0)
        frame = entry >> 32
        face = entry.to(tl.int32)
        if GRID:
            v0, v1, v2 = grid_corners(face, grid_h, grid_w)
        else:
            v0 = tl.load(faces_ptr + face * 3, mask=live, other=0)
            v1 = tl.load(faces_ptr + face * 3 + 1, mask=live, other=0)
            v2 = tl.load(faces_ptr + face * 3 + 2, mask=live, other=0)
        base = frame * num_vertices
        xi0, yi0 = load_vertex(screen_ptr, base + v0, live)
        xi1, yi1 = load_vertex(screen_ptr, base + v1, live)
        xi2, yi2 = load_vertex(screen_ptr, base + v2, live)
        inv_z0 = tl.load(inv_z_ptr + base + v0, mask=live, other=1.0)
        inv_z1 = tl.load(inv_z_ptr + base + v1, mask=live, other=1.0)
        inv_z2 = tl.load(inv_z_ptr + base + v2, mask=live, other=1.0)
        hidden = hidden_bit(hidden_ptr, frame, face, grid_h, grid_w, GRID, live)
        low = (hidden.to(tl.int64) << 31) | face.to(tl.int64)
        row = tl.maximum(first_pixel(tl.minimum(tl.minimum(yi0, yi1), yi2)), 0)
        bottom = tl.minimum(last_pixel(tl.maximum(tl.maximum(yi0, yi1), yi2)), out_h - 1)
        row = tl.where(live, row, 1)
        bottom = tl.where(live, bottom, 0)
        x0, y0 = xi0.to(tl.float64), yi0.to(tl.float64)
        x1, y1 = xi1.to(tl.float64), yi1.to(tl.float64)
        x2, y2 = xi2.to(tl.float64), yi2.to(tl.float64)
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        sign = tl.where(area < 0, -1.0, 1.0).to(tl.float64)
        scale = 1.0 / tl.where(area == 0, 1.0, tl.abs(area))
        slope01, slope12, slope20 = slope(x0, y0, x1, y1), slope(x1, y1, x2, y2), slope(x2, y2, x0, y0)
        py = row.to(tl.float64) * SUB + SUB // 2
        col, end = span(py, x0, y0, x1, y1, x2, y2, slope01, slope12, slope20, sign, out_w - 1)
        keys = keys_ptr + frame * out_h * out_w
        while tl.max((row <= bottom).to(tl.int32), 0) > 0:
            py = row.to(tl.float64) * SUB + SUB // 2
            put_pixel(
                keys, row * out_w + col, col.to(tl.float64) * SUB + SUB // 2, py, x0, y0, x1, y1, x2, y2,
                inv_z0, inv_z1, inv_z2, sign, scale, low, (row <= bottom) & (col <= end),
            )  # fmt: skip
            done = col >= end
            row = tl.where(done, row + 1, row)
            py = row.to(tl.float64) * SUB + SUB // 2
            new_col, new_end = span(py, x0, y0, x1, y1, x2, y2, slope01, slope12, slope20, sign, out_w - 1)
            col = tl.where(done, new_col, col + 1)
            end = tl.where(done, new_end, end)


@triton.jit
def strip_shape(
    x0, y0, x1, y1, x2, y2, out_h, out_w, LANES: tl.constexpr, SEGMENT: tl.constexpr
):  # fmt: skip
    """How a face is cut into strips: (number of strips, segments a row, 1 for lanes along x, first and last lane's pixel).

    Lanes run along x unless the box is more than twice as high as wide. Rows whose mean span exceeds SEGMENT pixels are
    cut into segments, so that no lane's loop is long.
    """
    left = pixel_after(tl.minimum(tl.minimum(x0, x1), x2), out_w - 1)
    right = pixel_before(tl.maximum(tl.maximum(x0, x1), x2), out_w - 1)
    top = pixel_after(tl.minimum(tl.minimum(y0, y1), y2), out_h - 1)
    bottom = pixel_before(tl.maximum(tl.maximum(y0, y1), y2), out_h - 1)
    columns = right - left + 1
    rows = bottom - top + 1
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    along_x = columns * 2 >= rows
    length = tl.where(along_x, columns, rows)
    across = tl.where(along_x, rows, columns)
    mean = tl.abs(area) * (0.5 / (SUB * SUB)) / tl.maximum(length, 1).to(tl.float64)
    mean = tl.minimum(mean, tl.maximum(across, 0).to(tl.float64)).to(tl.int32)
    segments = 1 + mean // SEGMENT
    strips = tl.where((columns > 0) & (rows > 0) & (area != 0), (length + LANES - 1) // LANES * segments, 0)
    first = tl.where(along_x, left, top)
    return strips, segments, along_x, first, tl.where(along_x, right, bottom)


@triton.jit
def queue_strips(
    table_ptr, owner_ptr, slots, slot, owner, strips_ptr, counters_ptr, strip_capacity, out_h, out_w, on,
    ux, uy, uz, vx, vy, vz, wx, wy, wz, LANES: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """Project one clipped triangle a lane (homogeneous pixels u, v, w), store it, and queue its strips."""
    inv_z0, inv_z1, inv_z2 = 1.0 / uz, 1.0 / vz, 1.0 / wz
    x0, y0 = snap(ux * inv_z0), snap(uy * inv_z0)
    x1, y1 = snap(vx * inv_z1), snap(vy * inv_z1)
    x2, y2 = snap(wx * inv_z2), snap(wy * inv_z2)
    strips, segments, along_x, first, last = strip_shape(x0, y0, x1, y1, x2, y2, out_h, out_w, LANES, SEGMENT)
    strips = tl.where(on, strips, 0)
    on = strips > 0
    if tl.max(strips, 0) > 0:
        tl.store(table_ptr + slot, x0, mask=on)
        tl.store(table_ptr + slots + slot, y0, mask=on)
        tl.store(table_ptr + 2 * slots + slot, x1, mask=on)
        tl.store(table_ptr + 3 * slots + slot, y1, mask=on)
        tl.store(table_ptr + 4 * slots + slot, x2, mask=on)
        tl.store(table_ptr + 5 * slots + slot, y2, mask=on)
        tl.store(table_ptr + 6 * slots + slot, inv_z0, mask=on)
        tl.store(table_ptr + 7 * slots + slot, inv_z1, mask=on)
        tl.store(table_ptr + 8 * slots + slot, inv_z2, mask=on)
        tl.store(owner_ptr + slot, owner, mask=on)
        start = tl.atomic_add(counters_ptr + 2, tl.sum(strips, 0).to(tl.int64))
        start = start + (tl.cumsum(strips, 0) - strips).to(tl.int64)
        for k in range(0, tl.max(strips, 0)):
            entry = (slot.to(tl.int64) << STRIP_BITS) | k
            tl.store(strips_ptr + start + k, entry, mask=(k < strips) & (start + k < strip_capacity))


@triton.jit(do_not_specialize=SIZES)
def set_up_hard(
    hard_ptr, counters_ptr, capacity, strips_ptr, strip_capacity, table_ptr, owner_ptr,
    depth_ptr, source_ptr, vertices_ptr, faces_ptr, camera_ptr, hidden_ptr, height, width, grid_h, grid_w, out_h, out_w,
    GRID: tl.constexpr, RING: tl.constexpr, LANES: tl.constexpr, SEGMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Clip queued faces at the near plane, one a lane, and queue the strips of the one or two triangles that remain."""
    count = tl.minimum(tl.load(counters_ptr + 1), capacity).to(tl.int32)
    slots = capacity * 2
    for start in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        slot = start + tl.arange(0, BLOCK)
        live = slot < count
        entry = tl.load(hard_ptr + slot, mask=live, other=0)
        frame = entry >> 32
        face = entry.to(tl.int32)
        if GRID:
            depth = depth_ptr + frame * height * width
            source = source_ptr + frame * NUM_FIELDS
            pixel = (face - 2 * (grid_h - 1) * (grid_w - 1) - 2) >> 1
            splat = live & (pixel >= 0)
            pixel = tl.maximum(pixel, 0)
            row = pixel // width
            z = tl.load(depth + pixel, mask=splat, other=1.0).to(tl.float64)
            z = tl.minimum(tl.maximum(z, tl.load(source + 6)), tl.load(source + 7))
            half = splat_half(depth, source, row, pixel - row * width, height, width, z, splat)
            x0, y0, z0 = face_corner(depth, source, face, 0, half, z, height, width, RING, live)
            x1, y1, z1 = face_corner(depth, source, face, 1, half, z, height, width, RING, live)
            x2, y2, z2 = face_corner(depth, source, face, 2, half, z, height, width, RING, live)
        else:
            x0, y0, z0 = soup_corner(vertices_ptr, faces_ptr, face * 3, live)
            x1, y1, z1 = soup_corner(vertices_ptr, faces_ptr, face * 3 + 1, live)
            x2, y2, z2 = soup_corner(vertices_ptr, faces_ptr, face * 3 + 2, live)
        hidden = hidden_bit(hidden_ptr, frame, face, grid_h, grid_w, GRID, live)
        if GRID:
            first_cap = 2 * (grid_h - 1) * (grid_w - 1)
            cap = face - first_cap
            caps = tl.load(source + 10).to(tl.int32)
            hidden = tl.where((cap == 0) | (cap == 1), (caps >> tl.minimum(tl.maximum(cap, 0), 1)) & 1, hidden)
        owner = (frame << 32) | (hidden.to(tl.int64) << 31) | face.to(tl.int64)

        camera = camera_ptr + frame * 12
        x0, y0, z0 = transform(camera, x0, y0, z0)
        x1, y1, z1 = transform(camera, x1, y1, z1)
        x2, y2, z2 = transform(camera, x2, y2, z2)
        inside, au, av, aw, a1, a2, bu, bv, bw, b1, b2, cu, cv, cw, c1, c2, du, dv, dw, d1, d2 = clip_face(
            x0, y0, z0, x1, y1, z1, x2, y2, z2
        )
        queue_strips(
            table_ptr, owner_ptr, slots, slot * 2, owner, strips_ptr, counters_ptr, strip_capacity, out_h, out_w,
            live & (inside > 0), au, av, aw, bu, bv, bw, cu, cv, cw, LANES, SEGMENT,
        )  # fmt: skip
        queue_strips(
            table_ptr, owner_ptr, slots, slot * 2 + 1, owner, strips_ptr, counters_ptr, strip_capacity, out_h, out_w,
            live & (inside == 2), au, av, aw, cu, cv, cw, du, dv, dw, LANES, SEGMENT,
        )  # fmt: skip


@triton.jit
def soup_corner(vertices_ptr, faces_ptr, index, live):
    """World point of one corner of a general face, float64."""
    vertex = tl.load(faces_ptr + index, mask=live, other=0)
    x = tl.load(vertices_ptr + vertex * 3, mask=live, other=0.0).to(tl.float64)
    y = tl.load(vertices_ptr + vertex * 3 + 1, mask=live, other=0.0).to(tl.float64)
    z = tl.load(vertices_ptr + vertex * 3 + 2, mask=live, other=0.0).to(tl.float64)
    return x, y, z


@triton.jit(do_not_specialize=SIZES)
def draw_strips(
    strips_ptr, counters_ptr, capacity, table_ptr, owner_ptr, slots, keys_ptr, out_h, out_w,
    LANES: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """One strip a program: LANES neighbouring rows or columns of a large face, one a lane."""
    count = tl.minimum(tl.load(counters_ptr + 2), capacity).to(tl.int32)
    lane = tl.arange(0, LANES)
    for index in range(tl.program_id(0), count, tl.num_programs(0)):
        entry = tl.load(strips_ptr + index)
        slot = (entry >> STRIP_BITS).to(tl.int32)
        strip = (entry & STRIP_MASK).to(tl.int32)
        table = table_ptr + slot
        x0, y0 = tl.load(table), tl.load(table + slots)
        x1, y1 = tl.load(table + 2 * slots), tl.load(table + 3 * slots)
        x2, y2 = tl.load(table + 4 * slots), tl.load(table + 5 * slots)
        inv_z0 = tl.load(table + 6 * slots)
        inv_z1 = tl.load(table + 7 * slots)
        inv_z2 = tl.load(table + 8 * slots)
        owner = tl.load(owner_ptr + slot)
        strips, segments, along_x, first, last = strip_shape(x0, y0, x1, y1, x2, y2, out_h, out_w, LANES, SEGMENT)
        # From here on lanes run along "y": swap the axes of faces whose lanes run along x.
        x0, y0 = tl.where(along_x, y0, x0), tl.where(along_x, x0, y0)
        x1, y1 = tl.where(along_x, y1, x1), tl.where(along_x, x1, y1)
        x2, y2 = tl.where(along_x, y2, x2), tl.where(along_x, x2, y2)
        row_stride = tl.where(along_x, 1, out_w)
        col_stride = tl.where(along_x, out_w, 1)
        last_col = tl.where(along_x, out_h, out_w) - 1
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        sign = tl.where(area < 0, -1.0, 1.0).to(tl.float64)
        scale = 1.0 / tl.abs(area)
        row = first + strip // segments * LANES + lane
        py = row.to(tl.float64) * SUB + SUB // 2
        col, end = span(
            py, x0, y0, x1, y1, x2, y2,
            slope(x0, y0, x1, y1), slope(x1, y1, x2, y2), slope(x2, y2, x0, y0), sign, last_col,
        )  # fmt: skip
        share = (tl.maximum(end - col + 1, 0) + segments - 1) // segments
        col += strip % segments * share
        end = tl.where(row <= last, tl.minimum(end, col + share - 1), col - 1)
        keys = keys_ptr + (owner >> 32) * out_h * out_w
        low = owner & 0xFFFFFFFF
        for step in range(0, tl.max(end - col + 1, 0)):
            at = col + step
            put_pixel(
                keys, row * row_stride + at * col_stride, at.to(tl.float64) * SUB + SUB // 2, py,
                x0, y0, x1, y1, x2, y2, inv_z0, inv_z1, inv_z2, sign, scale, low, at <= end,
            )  # fmt: skip
