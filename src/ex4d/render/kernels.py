"""The raster law in numba: undecorated by shape checks, all in one file because numba's cache sees one file at a time.

A z-buffer [height, width, 2] int64 holds, a pixel, (bits of float32 1/z) * 2^32 + tie, so that one comparison settles
depth, visibility and face order, and beside it the bits of the perspective-correct float32 weights of the second and third
vertex of the face in front. A key of 0 is nothing.
"""

import math

import numpy as np
from numba import njit

NEAR = 1e-3  # render.base.NEAR; numba freezes globals, a test holds the two equal
SUBPIXEL = 4096.0  # render.base.SUBPIXEL
LAST_ID = 0x7FFFFFFF
WIDE_PX = 4  # from this width on, the span of every row is computed instead of testing all of the box


@njit(cache=True, nogil=True, error_model="numpy")
def face_tie(face_id, visible):
    """The low 32 bits of a key: visible beats hidden, then the lowest id wins."""
    return (np.int64(visible) << 31) | (LAST_ID - face_id)


@njit(cache=True, nogil=True, error_model="numpy")
def snap(x):
    """Round a pixel coordinate to the subpixel grid."""
    return np.floor(x * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL)


@njit(cache=True, nogil=True, error_model="numpy")
def edge_line(xa, ya, xb, yb, sign, slack):
    """The line through an edge as a bound on x: (side, x at y = 0, slope, margin).

    Side +1 bounds from below, -1 from above, 0 not at all. The margin covers the rounding of the line and, by `slack`, of
    the edge function itself; callers test every pixel that is left.
    """
    dy = ya - yb
    if dy == 0.0:
        return 0.0, 0.0, 0.0, 0.0
    slope = (xa - xb) / dy
    return (1.0 if dy * sign > 0 else -1.0), xa - ya * slope, slope, 1e-3 + slack / abs(dy)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def write_front(row, col, b1, b2, q0, q1, q2, tie, weighted, clipped, bary, buffer):
    """Put a fragment into the z-buffer if it is in front."""
    b0 = max(1.0 - b1 - b2, 0.0)
    q = b0 * q0 + b1 * q1 + b2 * q2
    key = (np.int64(np.float32(q).view(np.int32)) << 32) | tie
    if key > buffer[row, col, 0]:
        buffer[row, col, 0] = key
        if weighted:
            r = 1.0 / q
            w1, w2 = b1 * q1 * r, b2 * q2 * r
            if clipped:
                w0 = b0 * q0 * r
                v1 = w0 * bary[0, 0] + w1 * bary[1, 0] + w2 * bary[2, 0]
                w2 = w0 * bary[0, 1] + w1 * bary[1, 1] + w2 * bary[2, 1]
                w1 = v1
            high, low = np.int64(np.float32(w1).view(np.int32)), np.int64(np.float32(w2).view(np.int32))
            buffer[row, col, 1] = (high << 32) | (low & 0xFFFFFFFF)  # a weight of -0.0 has a sign to mask


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def draw_any(x0, y0, q0, x1, y1, q1, x2, y2, q2, tie, weighted, clipped, bary, buffer):
    """Draw one triangle of snapped pixels (x, y) and q = 1/z > 0; without `weighted`, into `keys` only.

    `bary` [3, 2] holds, when `clipped`, the weights of each corner for the second and third vertex of the whole face.
    """
    left = max(math.ceil(min(min(x0, x1), x2) - 0.5), 0)
    right = min(math.floor(max(max(x0, x1), x2) - 0.5), buffer.shape[1] - 1)
    top = max(math.ceil(min(min(y0, y1), y2) - 0.5), 0)
    bottom = min(math.floor(max(max(y0, y1), y2) - 0.5), buffer.shape[0] - 1)
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    if left > right or area == 0.0:
        bottom = top - 1
    sign = 1.0 if area > 0 else -1.0
    size = abs(area)
    wide = right - left >= WIDE_PX
    side0 = side1 = side2 = at0 = at1 = at2 = slope0 = slope1 = slope2 = margin0 = margin1 = margin2 = 0.0
    if wide:
        reach = max(max(max(abs(x0), abs(x1)), max(abs(x2), abs(y0))), max(abs(y1), abs(y2)))
        slack = 1e-15 * reach * reach if reach > 8192.0 else 0.0
        side0, at0, slope0, margin0 = edge_line(x1, y1, x2, y2, sign, slack)
        side1, at1, slope1, margin1 = edge_line(x2, y2, x0, y0, sign, slack)
        side2, at2, slope2, margin2 = edge_line(x0, y0, x1, y1, sign, slack)
    for row in range(top, bottom + 1):
        py = row + 0.5
        dy0, dy1, dy2 = y0 - py, y1 - py, y2 - py
        first, last = left, right
        if wide:
            lo, hi = left + 0.5, right + 0.5
            x = at0 + py * slope0
            lo, hi = (max(lo, x - margin0), hi) if side0 > 0 else (lo, min(hi, x + margin0) if side0 < 0 else hi)
            x = at1 + py * slope1
            lo, hi = (max(lo, x - margin1), hi) if side1 > 0 else (lo, min(hi, x + margin1) if side1 < 0 else hi)
            x = at2 + py * slope2
            lo, hi = (max(lo, x - margin2), hi) if side2 > 0 else (lo, min(hi, x + margin2) if side2 < 0 else hi)
            if lo > hi:
                continue
            first, last = math.ceil(lo - 0.5), math.floor(hi - 0.5)
        for col in range(first, last + 1):
            px = col + 0.5
            dx0, dx1, dx2 = x0 - px, x1 - px, x2 - px
            e0 = (dx1 * dy2 - dy1 * dx2) * sign
            e1 = (dx2 * dy0 - dy2 * dx0) * sign
            e2 = (dx0 * dy1 - dy0 * dx1) * sign
            if e0 >= 0.0 and e1 >= 0.0 and e2 >= 0.0:
                b1, b2 = e1 / size, e2 / size
                write_front(row, col, b1, b2, q0, q1, q2, tie, weighted, clipped, bary, buffer)


@njit(cache=True, nogil=True, error_model="numpy")
def draw_triangle(x0, y0, q0, x1, y1, q1, x2, y2, q2, tie, weighted, buffer):
    """Draw a whole face."""
    draw_any(x0, y0, q0, x1, y1, q1, x2, y2, q2, tie, weighted, False, buffer, buffer)


@njit(cache=True, nogil=True, error_model="numpy")
def draw_piece(x0, y0, q0, x1, y1, q1, x2, y2, q2, tie, bary, buffer):
    """Draw a piece of a clipped face."""
    draw_any(x0, y0, q0, x1, y1, q1, x2, y2, q2, tie, True, True, bary, buffer)


@njit(cache=True, nogil=True, error_model="numpy")
def draw_clipped(corners, tie, polygon, bary, buffer):
    """Clip a face at the near plane and draw what is left.

    `corners` [3, 3] holds K @ camera point of every vertex; `polygon` [4, 5] and `bary` [3, 2] are scratch.
    """
    count = 0
    for k in range(3):
        j = (k + 1) % 3
        k_in, j_in = corners[k, 2] >= NEAR, corners[j, 2] >= NEAR
        if k_in:
            z = corners[k, 2]
            polygon[count, 0] = snap(corners[k, 0] * (1.0 / z))
            polygon[count, 1] = snap(corners[k, 1] * (1.0 / z))
            polygon[count, 2] = 1.0 / z
            polygon[count, 3] = 1.0 if k == 1 else 0.0
            polygon[count, 4] = 1.0 if k == 2 else 0.0
            count += 1
        if k_in != j_in:
            # always from inside to outside, so that two faces cut their shared edge at the same point
            a, b = (k, j) if k_in else (j, k)
            t = (corners[a, 2] - NEAR) / (corners[a, 2] - corners[b, 2])
            for axis in range(2):
                value = corners[a, axis] + t * (corners[b, axis] - corners[a, axis])
                polygon[count, axis] = snap(value * (1.0 / NEAR))
            polygon[count, 2] = 1.0 / NEAR
            for axis in range(2):
                weight_a = 1.0 if a == axis + 1 else 0.0
                weight_b = 1.0 if b == axis + 1 else 0.0
                polygon[count, 3 + axis] = weight_a + t * (weight_b - weight_a)
            count += 1
    for k in range(1, count - 1):
        for m in range(3):
            source = 0 if m == 0 else k + m - 1
            bary[m, 0] = polygon[source, 3]
            bary[m, 1] = polygon[source, 4]
        draw_piece(
            polygon[0, 0], polygon[0, 1], polygon[0, 2],
            polygon[k, 0], polygon[k, 1], polygon[k, 2],
            polygon[k + 1, 0], polygon[k + 1, 1], polygon[k + 1, 2],
            tie, bary, buffer,
        )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def project_vertices(first, last, vertices, px_from_world, screen):
    """Snapped x, y and 1/z (0 in front of the near plane) of vertices first..last-1 into `screen` [V, 3]."""
    P = px_from_world
    for v in range(first, last):
        X, Y, Z = np.float64(vertices[v, 0]), np.float64(vertices[v, 1]), np.float64(vertices[v, 2])
        z = P[2, 0] * X + P[2, 1] * Y + P[2, 2] * Z + P[2, 3]
        if z >= NEAR:
            q = 1.0 / z
            screen[v, 0] = snap((P[0, 0] * X + P[0, 1] * Y + P[0, 2] * Z + P[0, 3]) * q)
            screen[v, 1] = snap((P[1, 0] * X + P[1, 1] * Y + P[1, 2] * Z + P[1, 3]) * q)
            screen[v, 2] = q
        else:
            screen[v, 2] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def draw_faces(first, last, faces, visible, vertices, px_from_world, screen, buffer):
    """Draw faces first..last-1 of a general mesh."""
    P = px_from_world
    bary, polygon, corners = np.zeros((3, 2)), np.empty((4, 5)), np.empty((3, 3))
    for f in range(first, last):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        q0, q1, q2 = screen[a, 2], screen[b, 2], screen[c, 2]
        tie = face_tie(f, visible[f])
        if q0 > 0.0 and q1 > 0.0 and q2 > 0.0:
            draw_triangle(
                screen[a, 0], screen[a, 1], q0, screen[b, 0], screen[b, 1], q1, screen[c, 0], screen[c, 1], q2,
                tie, True, buffer,
            )  # fmt: skip
        elif q0 > 0.0 or q1 > 0.0 or q2 > 0.0:
            for k in range(3):
                v = faces[f, k]
                X, Y, Z = np.float64(vertices[v, 0]), np.float64(vertices[v, 1]), np.float64(vertices[v, 2])
                for axis in range(3):
                    corners[k, axis] = P[axis, 0] * X + P[axis, 1] * Y + P[axis, 2] * Z + P[axis, 3]
            draw_clipped(corners, tie, polygon, bary, buffer)


@njit(cache=True, nogil=True, error_model="numpy")
def take_front(buffers, row, col):
    """The greatest key of a pixel over all buffers and its two weights; the buffers are emptied on the way."""
    key, weights = buffers[0, row, col, 0], buffers[0, row, col, 1]
    buffers[0, row, col, 0] = 0
    for other in range(1, buffers.shape[0]):
        if buffers[other, row, col, 0] > key:
            key, weights = buffers[other, row, col, 0], buffers[other, row, col, 1]
        buffers[other, row, col, 0] = 0
    w1, w2 = np.int32(weights >> 32).view(np.float32), np.uint32(weights & 0xFFFFFFFF).view(np.float32)
    return key, w1, w2


@njit(cache=True, nogil=True, error_model="numpy")
def resolve_fragments(top, bottom, buffers, faces, colors, face_id, color, depth):
    """Rows top..bottom-1 of the picture from z-buffers [n, h, w, 2], which it empties."""
    for row in range(top, bottom):
        for col in range(buffers.shape[2]):
            key, w1, w2 = take_front(buffers, row, col)
            if key == 0:
                face_id[row, col] = -1
                depth[row, col] = np.inf
                color[row, col, :] = 0.0
                continue
            f = LAST_ID - (key & LAST_ID)
            face_id[row, col] = f
            depth[row, col] = 1.0 / np.float64(np.int32(key >> 32).view(np.float32))
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            for channel in range(colors.shape[1]):
                base = colors[a, channel]
                color[row, col, channel] = base + w1 * (colors[b, channel] - base) + w2 * (colors[c, channel] - base)
