"""Kernels that turn a pixel's key into what the caller wants: face id, depth, colour, mask.

Weights are those of the CPU rasteriser, operation by operation (`render/cpu/kernels.py`), without fused multiply-add.
"""

# Triton traces these functions; to a type checker its tensors are tuples, its constants ints.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import triton
import triton.language as tl

from ex4d.render.cuda.near_plane import clip_face
from ex4d.render.cuda.queue import soup_corner
from ex4d.render.cuda.screen import BAD, EMPTY, SIZES, SUB, key_inv_z, load_vertex, snap, transform
from ex4d.render.cuda.source import NUM_FIELDS, face_corner, grid_corners


@triton.jit
def screen_weights(x0, y0, x1, y1, x2, y2, q0, q1, q2, px, py):
    """Perspective-correct weights of the second and third vertex at a position, and 1/z and whether it is inside.

    Positions are float64 in 1/SUBPIXEL px.
    """
    dx0, dy0, dx1, dy1, dx2, dy2 = x0 - px, y0 - py, x1 - px, y1 - py, x2 - px, y2 - py
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    flat = area == 0
    area = tl.where(flat, 1.0, area)
    e0, e1, e2 = dx1 * dy2 - dy1 * dx2, dx2 * dy0 - dy2 * dx0, dx0 * dy1 - dy0 * dx1
    b1, b2 = e1 / area, e2 / area
    b0 = tl.maximum(1.0 - b1 - b2, 0.0)
    q = b0 * q0 + b1 * q1 + b2 * q2
    inside = ~flat & (e0 * area >= 0) & (e1 * area >= 0) & (e2 * area >= 0)
    divisor = tl.where(q == 0, 1.0, q)
    return b1 * q1 / divisor, b2 * q2 / divisor, q, inside


@triton.jit
def clipped_weights(u0, v0, w0, u1, v1, w1, u2, v2, w2, px, py):
    """The same weights for faces that were clipped: of the nearer piece that covers the position."""
    inside, au, av, aw, a1, a2, bu, bv, bw, b1, b2, cu, cv, cw, c1, c2, du, dv, dw, d1, d2 = clip_face(
        u0, v0, w0, u1, v1, w1, u2, v2, w2
    )
    qa, qb, qc, qd = 1.0 / aw, 1.0 / bw, 1.0 / cw, 1.0 / dw
    xa, ya, xb, yb = snap(au * qa), snap(av * qa), snap(bu * qb), snap(bv * qb)
    xc, yc, xd, yd = snap(cu * qc), snap(cv * qc), snap(du * qd), snap(dv * qd)
    first1, first2, z1, in1 = screen_weights(xa, ya, xb, yb, xc, yc, qa, qb, qc, px, py)
    second1, second2, z2, in2 = screen_weights(xa, ya, xc, yc, xd, yd, qa, qc, qd, px, py)
    first0, second0 = 1.0 - first1 - first2, 1.0 - second1 - second2
    use_second = (inside == 2) & in2 & (~in1 | (z2 > z1))
    share1 = tl.where(use_second, second0 * a1 + second1 * c1 + second2 * d1, first0 * a1 + first1 * b1 + first2 * c1)
    share2 = tl.where(use_second, second0 * a2 + second1 * c2 + second2 * d2, first0 * a2 + first1 * b2 + first2 * c2)
    return tl.minimum(tl.maximum(share1, 0.0), 1.0), tl.minimum(tl.maximum(share2, 0.0), 1.0)


@triton.jit
def blend(a, b, c, w1, w2):
    """a, b, c by weight, float32."""
    return a + w1 * (b - a) + w2 * (c - a)


@triton.jit
def corner_color(color_ptr, row, col, width, channel, live):
    """One channel of a source pixel, float32."""
    return tl.load(color_ptr + (row * width + col) * 3 + channel, mask=live, other=0).to(tl.float32)


@triton.jit
def grid_sample(
    key, px, py, screen_ptr, inv_z_ptr, alpha_ptr, depth_ptr, source_ptr, camera_ptr, color_ptr,
    height, width, far_plane, threshold,
    RING: tl.constexpr, ALPHA: tl.constexpr, COLOR: tl.constexpr,
):  # fmt: skip
    """One sample a lane of a grid mesh: (seen, red, green, blue, depth). Pointers are the frame's; px, py in 1/SUBPIXEL."""
    grid_h = height + 2 if RING else height
    grid_w = width + 2 if RING else width
    hit = key != EMPTY
    z = tl.where(hit, (1.0 / tl.where(hit, key_inv_z(key), 1.0).to(tl.float64)).to(tl.float32), float("inf"))
    face = (key & 0x7FFFFFFF).to(tl.int32)
    seen = hit & (z <= far_plane)
    if not ALPHA:
        seen = seen & (((key >> 31) & 1) == 0)
    red = tl.zeros(face.shape, tl.float32)
    green = tl.zeros(face.shape, tl.float32)
    blue = tl.zeros(face.shape, tl.float32)
    if COLOR or ALPHA:
        splat_pixel = (face - 2 * (grid_h - 1) * (grid_w - 1) - 2) >> 1
        splat = seen & (splat_pixel >= 0)
        want = seen & ~splat
        v0, v1, v2 = grid_corners(face, grid_h, grid_w)
        x0, y0 = load_vertex(screen_ptr, v0, want)
        x1, y1 = load_vertex(screen_ptr, v1, want)
        x2, y2 = load_vertex(screen_ptr, v2, want)
        q0 = tl.load(inv_z_ptr + v0, mask=want, other=1.0)
        q1 = tl.load(inv_z_ptr + v1, mask=want, other=1.0)
        q2 = tl.load(inv_z_ptr + v2, mask=want, other=1.0)
        w1, w2, _, _ = screen_weights(
            x0.to(tl.float64), y0.to(tl.float64), x1.to(tl.float64), y1.to(tl.float64),
            x2.to(tl.float64), y2.to(tl.float64), q0, q1, q2, px.to(tl.float64), py.to(tl.float64),
        )  # fmt: skip
        clipped = want & ((x0 == BAD) | (x1 == BAD) | (x2 == BAD))
        if tl.max(clipped.to(tl.int32), 0) > 0:
            half = tl.zeros(face.shape, tl.float64)
            cx, cy, cz = face_corner(depth_ptr, source_ptr, face, 0, half, half, height, width, RING, clipped)
            u0, t0, s0 = transform(camera_ptr, cx, cy, cz)
            cx, cy, cz = face_corner(depth_ptr, source_ptr, face, 1, half, half, height, width, RING, clipped)
            u1, t1, s1 = transform(camera_ptr, cx, cy, cz)
            cx, cy, cz = face_corner(depth_ptr, source_ptr, face, 2, half, half, height, width, RING, clipped)
            u2, t2, s2 = transform(camera_ptr, cx, cy, cz)
            c1, c2 = clipped_weights(
                u0, t0, s0, u1, t1, s1, u2, t2, s2, px.to(tl.float64), py.to(tl.float64)
            )  # fmt: skip
            w1, w2 = tl.where(clipped, c1, w1), tl.where(clipped, c2, w2)
        w1, w2 = w1.to(tl.float32), w2.to(tl.float32)
        o0 = tl.full(face.shape, 1.0, tl.float32)
        o1, o2 = o0, o0
        if ALPHA:
            o0 = tl.load(alpha_ptr + v0, mask=want, other=0).to(tl.float32)
            o1 = tl.load(alpha_ptr + v1, mask=want, other=0).to(tl.float32)
            o2 = tl.load(alpha_ptr + v2, mask=want, other=0).to(tl.float32)
            seen = seen & (blend(o0 * 255.0, o1 * 255.0, o2 * 255.0, w1, w2) > threshold)
        if COLOR:
            offset = 1 if RING else 0
            i0, i1, i2 = v0 // grid_w, v1 // grid_w, v2 // grid_w
            j0, j1, j2 = v0 - i0 * grid_w - offset, v1 - i1 * grid_w - offset, v2 - i2 * grid_w - offset
            i0, i1, i2 = i0 - offset, i1 - offset, i2 - offset
            splat_row = splat_pixel // width
            i0 = tl.where(splat, splat_row, i0)
            j0 = tl.where(splat, splat_pixel - splat_row * width, j0)
            want = want & seen
            splat = splat & seen
            first = want | splat
            w1, w2 = tl.where(splat, 0.0, w1), tl.where(splat, 0.0, w2)
            rounding = 0.0 if ALPHA else 0.5
            red = blend(
                corner_color(color_ptr, i0, j0, width, 0, first) * o0,
                corner_color(color_ptr, i1, j1, width, 0, want) * o1,
                corner_color(color_ptr, i2, j2, width, 0, want) * o2, w1, w2,
            )  # fmt: skip
            green = blend(
                corner_color(color_ptr, i0, j0, width, 1, first) * o0,
                corner_color(color_ptr, i1, j1, width, 1, want) * o1,
                corner_color(color_ptr, i2, j2, width, 1, want) * o2, w1, w2,
            )  # fmt: skip
            blue = blend(
                corner_color(color_ptr, i0, j0, width, 2, first) * o0,
                corner_color(color_ptr, i1, j1, width, 2, want) * o1,
                corner_color(color_ptr, i2, j2, width, 2, want) * o2, w1, w2,
            )  # fmt: skip
            red = tl.where(seen, tl.minimum(tl.maximum(tl.floor(red + rounding), 0.0), 255.0), 0.0)
            green = tl.where(seen, tl.minimum(tl.maximum(tl.floor(green + rounding), 0.0), 255.0), 0.0)
            blue = tl.where(seen, tl.minimum(tl.maximum(tl.floor(blue + rounding), 0.0), 255.0), 0.0)
    return seen, red.to(tl.int32), green.to(tl.int32), blue.to(tl.int32), z


@triton.jit(do_not_specialize=SIZES)
def resolve_grid(
    keys_ptr, screen_ptr, inv_z_ptr, alpha_ptr, depth_ptr, source_ptr, camera_ptr, color_ptr, limits_ptr,
    out_color_ptr, out_mask_ptr, out_depth_ptr, out_coverage_ptr, out_face_ptr, height, width, out_h, out_w,
    RING: tl.constexpr, ALPHA: tl.constexpr, COLOR: tl.constexpr, DEPTH: tl.constexpr, FACES: tl.constexpr,
    SAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Pixels of SAMPLES x SAMPLES keys each; with more than one sample by the rule of `render.clip.pool`."""
    grid_h = height + 2 if RING else height
    grid_w = width + 2 if RING else width
    frame = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < out_h * out_w
    row = pixel // out_w
    col = pixel - row * out_w
    keys_ptr += frame * (out_h * out_w * SAMPLES * SAMPLES)
    screen_ptr += frame * grid_h * grid_w
    inv_z_ptr += frame * grid_h * grid_w
    alpha_ptr += frame * grid_h * grid_w
    depth_ptr += frame * height * width
    color_ptr += frame * height * width * 3
    source_ptr += frame * NUM_FIELDS
    camera_ptr += frame * 12
    far_plane = tl.load(limits_ptr)
    threshold = tl.load(limits_ptr + 1)
    count = tl.zeros(pixel.shape, tl.int32)
    red = tl.zeros(pixel.shape, tl.int32)
    green = tl.zeros(pixel.shape, tl.int32)
    blue = tl.zeros(pixel.shape, tl.int32)
    nearest = tl.full(pixel.shape, float("inf"), tl.float32)
    nearest_seen = tl.full(pixel.shape, float("inf"), tl.float32)
    for sample in tl.static_range(SAMPLES * SAMPLES):
        at_row = row * SAMPLES + sample // SAMPLES
        at_col = col * SAMPLES + sample % SAMPLES
        key = tl.load(keys_ptr + at_row * (out_w * SAMPLES) + at_col, mask=live, other=EMPTY)
        seen, r, g, b, z = grid_sample(
            key, at_col * SUB + SUB // 2, at_row * SUB + SUB // 2, screen_ptr, inv_z_ptr, alpha_ptr,
            depth_ptr, source_ptr, camera_ptr, color_ptr, height, width, far_plane, threshold, RING, ALPHA, COLOR,
        )  # fmt: skip
        count += seen.to(tl.int32)
        red += r
        green += g
        blue += b
        nearest = tl.minimum(nearest, z)
        nearest_seen = tl.where(seen, tl.minimum(nearest_seen, z), nearest_seen)
        if FACES:
            face = tl.where(key == EMPTY, -1, (key & 0x7FFFFFFF).to(tl.int32))
            index = frame * (out_h * out_w * SAMPLES * SAMPLES) + at_row * (out_w * SAMPLES) + at_col
            tl.store(out_face_ptr + index, face, mask=live)
    index = frame * out_h * out_w + pixel
    total = SAMPLES * SAMPLES
    mask = 2 * count >= total
    tl.store(out_mask_ptr + index, mask.to(tl.uint8), mask=live)
    if COLOR:
        divisor = tl.maximum(count, 1)
        if SAMPLES > 1:
            red = tl.where(mask, (red + count // 2) // divisor, 0)
            green = tl.where(mask, (green + count // 2) // divisor, 0)
            blue = tl.where(mask, (blue + count // 2) // divisor, 0)
        tl.store(out_color_ptr + index * 3, red.to(tl.uint8), mask=live)
        tl.store(out_color_ptr + index * 3 + 1, green.to(tl.uint8), mask=live)
        tl.store(out_color_ptr + index * 3 + 2, blue.to(tl.uint8), mask=live)
    if DEPTH:
        tl.store(out_depth_ptr + index, tl.where(count > 0, nearest_seen, nearest), mask=live)
    if SAMPLES > 1:
        tl.store(out_coverage_ptr + index, ((255 * count + total // 2) // total).to(tl.uint8), mask=live)


@triton.jit(do_not_specialize=SIZES)
def resolve_soup(
    keys_ptr, screen_ptr, inv_z_ptr, vertices_ptr, faces_ptr, camera_ptr, color_ptr,
    out_face_ptr, out_color_ptr, out_depth_ptr, out_h, out_w, BLOCK: tl.constexpr,
):  # fmt: skip
    """Face id, RGBA (float32, of vertex colours [V, 4]) and depth of one frame of a general mesh."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < out_h * out_w
    row = pixel // out_w
    col = pixel - row * out_w
    key = tl.load(keys_ptr + pixel, mask=live, other=EMPTY)
    hit = key != EMPTY
    z = tl.where(hit, (1.0 / tl.where(hit, key_inv_z(key), 1.0).to(tl.float64)).to(tl.float32), float("inf"))
    face = (key & 0x7FFFFFFF).to(tl.int32)
    tl.store(out_face_ptr + pixel, tl.where(hit, face, -1), mask=live)
    tl.store(out_depth_ptr + pixel, z, mask=live)
    v0 = tl.load(faces_ptr + face * 3, mask=hit, other=0)
    v1 = tl.load(faces_ptr + face * 3 + 1, mask=hit, other=0)
    v2 = tl.load(faces_ptr + face * 3 + 2, mask=hit, other=0)
    x0, y0 = load_vertex(screen_ptr, v0, hit)
    x1, y1 = load_vertex(screen_ptr, v1, hit)
    x2, y2 = load_vertex(screen_ptr, v2, hit)
    q0 = tl.load(inv_z_ptr + v0, mask=hit, other=1.0)
    q1 = tl.load(inv_z_ptr + v1, mask=hit, other=1.0)
    q2 = tl.load(inv_z_ptr + v2, mask=hit, other=1.0)
    px = col * SUB + SUB // 2
    py = row * SUB + SUB // 2
    w1, w2, _, _ = screen_weights(
        x0.to(tl.float64), y0.to(tl.float64), x1.to(tl.float64), y1.to(tl.float64),
        x2.to(tl.float64), y2.to(tl.float64), q0, q1, q2, px.to(tl.float64), py.to(tl.float64),
    )  # fmt: skip
    clipped = hit & ((x0 == BAD) | (x1 == BAD) | (x2 == BAD))
    if tl.max(clipped.to(tl.int32), 0) > 0:
        cx, cy, cz = soup_corner(vertices_ptr, faces_ptr, face * 3, clipped)
        u0, t0, s0 = transform(camera_ptr, cx, cy, cz)
        cx, cy, cz = soup_corner(vertices_ptr, faces_ptr, face * 3 + 1, clipped)
        u1, t1, s1 = transform(camera_ptr, cx, cy, cz)
        cx, cy, cz = soup_corner(vertices_ptr, faces_ptr, face * 3 + 2, clipped)
        u2, t2, s2 = transform(camera_ptr, cx, cy, cz)
        c1, c2 = clipped_weights(
            u0, t0, s0, u1, t1, s1, u2, t2, s2, px.to(tl.float64), py.to(tl.float64)
        )  # fmt: skip
        w1, w2 = tl.where(clipped, c1, w1), tl.where(clipped, c2, w2)
    w1, w2 = w1.to(tl.float32), w2.to(tl.float32)
    for channel in tl.static_range(4):
        a = tl.load(color_ptr + v0 * 4 + channel, mask=hit, other=0.0)
        b = tl.load(color_ptr + v1 * 4 + channel, mask=hit, other=0.0)
        c = tl.load(color_ptr + v2 * 4 + channel, mask=hit, other=0.0)
        tl.store(out_color_ptr + pixel * 4 + channel, tl.where(hit, blend(a, b, c, w1, w2), 0.0), mask=live)
