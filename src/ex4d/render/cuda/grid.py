"""Kernels that draw a depth map as its watertight grid mesh: vertices, tiny quads, splats of unseen pixels, vertex alpha.

Launch grids are (blocks, frames). A face id counts the grid's faces, the two caps, then two for every picture pixel
whether it has a splat or not (`cuda_launch.py` turns these ids into the mesh's own where somebody asks for them).
"""

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
    append,
    first_pixel,
    last_pixel,
    load_vertex,
    make_key,
    sort_face,
    store_vertex,
    to_screen,
    transform,
)
from ex4d.render.cuda.source import NUM_FIELDS, grid_point, lift, narrow, quad_corners, splat_half, steep


@triton.jit(do_not_specialize=SIZES)
def project_grid(
    depth_ptr, source_ptr, camera_ptr, screen_ptr, inv_z_ptr, hidden_ptr, height, width,
    RING: tl.constexpr, BOUNDARY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Every vertex to the screen; of the cell to its lower right, whether the upper (bit 0) and lower face is hidden."""
    grid_h = height + 2 if RING else height
    grid_w = width + 2 if RING else width
    frame = tl.program_id(1).to(tl.int64)
    depth_ptr += frame * height * width
    source_ptr += frame * NUM_FIELDS
    vertex = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = vertex < grid_h * grid_w
    i = vertex // grid_w
    j = vertex - i * grid_w
    ax, ay, az = grid_point(depth_ptr, source_ptr, i, j, height, width, RING, live)
    u, v, w = transform(camera_ptr + frame * 12, ax, ay, az)
    store_vertex(screen_ptr, inv_z_ptr, frame * grid_h * grid_w + vertex, u, v, w, live)

    cell = live & (i < grid_h - 1) & (j < grid_w - 1)
    bx, by, bz = grid_point(depth_ptr, source_ptr, i + 1, j, height, width, RING, cell)
    cx, cy, cz = grid_point(depth_ptr, source_ptr, i, j + 1, height, width, RING, cell)
    dx, dy, dz = grid_point(depth_ptr, source_ptr, i + 1, j + 1, height, width, RING, cell)
    limit = tl.load(source_ptr + 9)
    if BOUNDARY:
        upper = steep(bx, by, bz, ax, ay, az, cx, cy, cz, limit)
        lower = steep(bx, by, bz, cx, cy, cz, dx, dy, dz, limit)
    else:
        upper = narrow(bx, by, bz, ax, ay, az, cx, cy, cz, limit)
        lower = narrow(bx, by, bz, cx, cy, cz, dx, dy, dz, limit)
    if RING:
        ring = (i == 0) | (j == 0) | (i == grid_h - 2) | (j == grid_w - 2)
        upper = upper | ring
        lower = lower | ring
    hidden = upper.to(tl.int32) + 2 * lower.to(tl.int32)
    quads = (grid_h - 1) * (grid_w - 1)
    tl.store(hidden_ptr + frame * quads + i * (grid_w - 1) + j, hidden.to(tl.uint8), mask=cell)


@triton.jit
def draw_quads(
    keys_ptr, out_w, ax, ay, bx, by, cx, cy, dx, dy, za, zb, zc, zd, low1, low2, on1, on2, left, top, columns, count
):
    """Draw two tiny faces (B, A, C) and (B, C, D) a lane: every pixel of the box, in exact int32 arithmetic."""
    area1 = (ax - bx) * (cy - by) - (ay - by) * (cx - bx)
    area2 = (cx - bx) * (dy - by) - (cy - by) * (dx - bx)
    on1 = on1 & (area1 != 0)
    on2 = on2 & (area2 != 0)
    scale1 = 1.0 / tl.where(on1, area1, 1).to(tl.float64)
    scale2 = 1.0 / tl.where(on2, area2, 1).to(tl.float64)
    col = left
    row = top
    for step in range(0, tl.max(count, 0)):
        px = col * SUB + SUB // 2
        py = row * SUB + SUB // 2
        rax, ray, rbx, rby = ax - px, ay - py, bx - px, by - py
        rcx, rcy, rdx, rdy = cx - px, cy - py, dx - px, dy - py
        ac = rax * rcy - ray * rcx
        cb = rcx * rby - rcy * rbx
        ba = rbx * ray - rby * rax
        cd = rcx * rdy - rcy * rdx
        db = rdx * rby - rdy * rbx
        bc = 0 - cb
        lowest1 = tl.minimum(tl.minimum(ac, cb), ba)
        highest1 = tl.maximum(tl.maximum(ac, cb), ba)
        lowest2 = tl.minimum(tl.minimum(cd, db), bc)
        highest2 = tl.maximum(tl.maximum(cd, db), bc)
        inv_z1 = (ac.to(tl.float64) * zb + cb.to(tl.float64) * za + ba.to(tl.float64) * zc) * scale1
        inv_z2 = (cd.to(tl.float64) * zb + db.to(tl.float64) * zc + bc.to(tl.float64) * zd) * scale2
        active = step < count
        in1 = active & on1 & ((lowest1 >= 0) | (highest1 <= 0))
        in2 = active & on2 & ((lowest2 >= 0) | (highest2 <= 0))
        key1 = tl.where(in1, make_key(tl.where(in1, inv_z1, 1.0), low1), EMPTY)
        key2 = tl.where(in2, make_key(tl.where(in2, inv_z2, 1.0), low2), EMPTY)
        tl.atomic_min(keys_ptr + row * out_w + col, tl.minimum(key1, key2), mask=in1 | in2, sem="relaxed")
        col += 1
        wrap = col >= left + columns
        col = tl.where(wrap, left, col)
        row = tl.where(wrap, row + 1, row)


@triton.jit(do_not_specialize=SIZES)
def draw_grid(
    screen_ptr, inv_z_ptr, hidden_ptr, keys_ptr, middle_ptr, hard_ptr, counters_ptr, middle_capacity, hard_capacity,
    grid_h, grid_w, out_h, out_w, caps_ptr,
    TINY: tl.constexpr, MIDDLE: tl.constexpr, DROP_HIDDEN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One quad a lane: drawn here when its box holds at most TINY pixels, queued when it is larger, else dropped."""
    quads = (grid_h - 1) * (grid_w - 1)
    frame = tl.program_id(1).to(tl.int64)
    quad = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = quad < quads
    a, b = quad_corners(quad, grid_w)
    screen_ptr += frame * grid_h * grid_w
    ax, ay = load_vertex(screen_ptr, a, live)
    bx, by = load_vertex(screen_ptr, b, live)
    cx, cy = load_vertex(screen_ptr, a + 1, live)
    dx, dy = load_vertex(screen_ptr, b + 1, live)
    low_x = tl.minimum(tl.minimum(ax, bx), tl.minimum(cx, dx))
    high_x = tl.maximum(tl.maximum(ax, bx), tl.maximum(cx, dx))
    low_y = tl.minimum(tl.minimum(ay, by), tl.minimum(cy, dy))
    high_y = tl.maximum(tl.maximum(ay, by), tl.maximum(cy, dy))
    usable = low_x != BAD
    left = tl.maximum(first_pixel(low_x), 0)
    top = tl.maximum(first_pixel(low_y), 0)
    columns = tl.minimum(last_pixel(high_x), out_w - 1) - left + 1
    rows = tl.minimum(last_pixel(high_y), out_h - 1) - top + 1
    # A sentinel's low_x makes left 0: such quads are never "outside", they are sorted face by face.
    outside = usable & ((columns <= 0) | (rows <= 0))
    small = usable & (high_x - low_x <= SMALL) & (high_y - low_y <= SMALL)
    small = small & (columns * rows <= TINY)
    count = tl.where(live & small & ~outside, columns * rows, 0)
    large = live & ~small & ~outside
    some = live & ~outside

    hidden = tl.load(hidden_ptr + frame * quads + quad, mask=some, other=0).to(tl.int32)
    on1 = some
    on2 = some
    if DROP_HIDDEN:
        on1 = some & ((hidden & 1) == 0)
        on2 = some & ((hidden & 2) == 0)
    if tl.max(count, 0) > 0:
        inv_z_ptr += frame * grid_h * grid_w
        drawn = count > 0
        za = tl.load(inv_z_ptr + a, mask=drawn, other=1.0)
        zb = tl.load(inv_z_ptr + b, mask=drawn, other=1.0)
        zc = tl.load(inv_z_ptr + a + 1, mask=drawn, other=1.0)
        zd = tl.load(inv_z_ptr + b + 1, mask=drawn, other=1.0)
        low1 = ((hidden & 1).to(tl.int64) << 31) | quad.to(tl.int64)
        low2 = ((hidden >> 1).to(tl.int64) << 31) | (quad + quads).to(tl.int64)
        draw_quads(
            keys_ptr + frame * out_h * out_w, out_w, ax, ay, bx, by, cx, cy, dx, dy, za, zb, zc, zd,
            low1, low2, on1, on2, left, top, columns, count,
        )  # fmt: skip
    if tl.max(large.to(tl.int32), 0) > 0:
        entry = (frame << 32) | quad.to(tl.int64)
        sort_face(
            large & on1, entry, bx, by, ax, ay, cx, cy, out_h, out_w,
            middle_ptr, hard_ptr, counters_ptr, middle_capacity, hard_capacity, MIDDLE,
        )  # fmt: skip
        sort_face(
            large & on2, entry + quads, bx, by, cx, cy, dx, dy, out_h, out_w,
            middle_ptr, hard_ptr, counters_ptr, middle_capacity, hard_capacity, MIDDLE,
        )  # fmt: skip
    if tl.program_id(0) == 0:
        caps = tl.arange(0, 2)
        on = tl.load(caps_ptr + frame * 2 + caps) != 0
        append(hard_ptr, counters_ptr + 1, hard_capacity, (frame << 32) | (2 * quads + caps).to(tl.int64), on)


@triton.jit
def is_unseen(hidden_ptr, row, col, width, live):
    """Has picture pixel (row, col) of a ring mesh no visible face; hidden_ptr points to the frame's [height + 1, width + 1]."""
    above = hidden_ptr + row * (width + 1) + col
    up_left = tl.load(above, mask=live, other=0).to(tl.int32)
    up_right = tl.load(above + 1, mask=live, other=0).to(tl.int32)
    down_left = tl.load(above + width + 1, mask=live, other=0).to(tl.int32)
    down_right = tl.load(above + width + 2, mask=live, other=0).to(tl.int32)
    # The vertex is D of the cell up left, B and C of two, A of the one down right.
    return live & (up_left >= 2) & (up_right == 3) & (down_left == 3) & ((down_right & 1) == 1)


@triton.jit(do_not_specialize=SIZES)
def draw_splats(
    depth_ptr, source_ptr, camera_ptr, hidden_ptr, keys_ptr, unseen_ptr, hard_ptr, counters_ptr, hard_capacity,
    height, width, out_h, out_w, TINY: tl.constexpr, STORE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The frontal square of every picture pixel that no visible face shows, one pixel a lane."""
    frame = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < height * width
    row = pixel // width
    col = pixel - row * width
    quads = (height + 1) * (width + 1)
    unseen = is_unseen(hidden_ptr + frame * quads, row, col, width, live)
    if STORE:
        tl.store(unseen_ptr + frame * height * width + pixel, unseen.to(tl.uint8), mask=live)
    if tl.max(unseen.to(tl.int32), 0) > 0:
        depth_ptr += frame * height * width
        source_ptr += frame * NUM_FIELDS
        camera_ptr += frame * 12
        raw = tl.load(depth_ptr + pixel, mask=unseen, other=1.0).to(tl.float64)
        z = tl.minimum(tl.maximum(raw, tl.load(source_ptr + 6)), tl.load(source_ptr + 7))
        half = splat_half(depth_ptr, source_ptr, row, col, height, width, z, unseen)
        offset = tl.load(source_ptr + 5) + 1.0
        x = col.to(tl.float64) + offset
        y = row.to(tl.float64) + offset
        ax, ay, za = project_point(source_ptr, camera_ptr, x + half * -1.0, y + half * -1.0, z)
        bx, by, zb = project_point(source_ptr, camera_ptr, x + half * -1.0, y + half, z)
        cx, cy, zc = project_point(source_ptr, camera_ptr, x + half, y + half * -1.0, z)
        dx, dy, zd = project_point(source_ptr, camera_ptr, x + half, y + half, z)
        low_x = tl.minimum(tl.minimum(ax, bx), tl.minimum(cx, dx))
        usable = unseen & (low_x != BAD)
        high_x = tl.maximum(tl.maximum(ax, bx), tl.maximum(cx, dx))
        low_y = tl.minimum(tl.minimum(ay, by), tl.minimum(cy, dy))
        high_y = tl.maximum(tl.maximum(ay, by), tl.maximum(cy, dy))
        left = tl.maximum(first_pixel(low_x), 0)
        top = tl.maximum(first_pixel(low_y), 0)
        columns = tl.minimum(last_pixel(high_x), out_w - 1) - left + 1
        rows = tl.minimum(last_pixel(high_y), out_h - 1) - top + 1
        outside = usable & ((columns <= 0) | (rows <= 0))
        small = usable & (high_x - low_x <= SMALL) & (high_y - low_y <= SMALL) & (columns * rows <= TINY)
        count = tl.where(small & ~outside, columns * rows, 0)
        face = 2 * quads + 2 + 2 * pixel
        low = face.to(tl.int64)
        draw_quads(
            keys_ptr + frame * out_h * out_w, out_w, ax, ay, bx, by, cx, cy, dx, dy, za, zb, zc, zd,
            low, low + 1, unseen, unseen, left, top, columns, count,
        )  # fmt: skip
        hard = unseen & ~small & ~outside
        append(hard_ptr, counters_ptr + 1, hard_capacity, (frame << 32) | low, hard)
        append(hard_ptr, counters_ptr + 1, hard_capacity, (frame << 32) | (low + 1), hard)


@triton.jit
def project_point(source_ptr, camera_ptr, x, y, z):
    """Source pixel position and depth to the screen (`cuda_screen.to_screen`)."""
    point_x, point_y = lift(source_ptr, x, y, z)
    u, v, w = transform(camera_ptr, point_x, point_y, z)
    return to_screen(u, v, w)


@triton.jit(do_not_specialize=SIZES)
def vertex_alpha(hidden_ptr, source_ptr, alpha_ptr, grid_h, grid_w, BLOCK: tl.constexpr):
    """1 where no face of a vertex is hidden, else 0: the release's per-vertex occlusion (no ring)."""
    frame = tl.program_id(1).to(tl.int64)
    vertex = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = vertex < grid_h * grid_w
    i = vertex // grid_w
    j = vertex - i * grid_w
    cells = hidden_ptr + frame * (grid_h - 1) * (grid_w - 1)
    base = i * (grid_w - 1) + j
    above = i > 0
    below = i < grid_h - 1
    before = j > 0
    after = j < grid_w - 1
    as_a = tl.load(cells + base, mask=live & below & after, other=0).to(tl.int32) & 1
    as_b = tl.load(cells + base - (grid_w - 1), mask=live & above & after, other=0).to(tl.int32)
    as_c = tl.load(cells + base - 1, mask=live & below & before, other=0).to(tl.int32)
    as_d = tl.load(cells + base - grid_w, mask=live & above & before, other=0).to(tl.int32) & 2
    hidden = (as_a + as_b + as_c + as_d) > 0
    caps = tl.load(source_ptr + frame * NUM_FIELDS + 10).to(tl.int32)
    first_cap = (vertex == grid_w - 1) | (vertex == 0) | (vertex == grid_h * grid_w - 1)
    second_cap = (vertex == grid_h * grid_w - 1) | (vertex == 0) | (vertex == (grid_h - 1) * grid_w)
    hidden = hidden | (first_cap & ((caps & 1) == 1)) | (second_cap & ((caps & 2) == 2))
    tl.store(alpha_ptr + frame * grid_h * grid_w + vertex, tl.where(hidden, 0, 1).to(tl.uint8), mask=live)
