"""The raster law in numba: undecorated by shape checks, all in one file because numba's cache sees one file at a time.

A z-buffer is two arrays: `keys` [height, width] int64 holds (bits of float32 1/z) * 2^32 + tie, so that one comparison
settles depth, visibility and face order; `weights` [height, width, 2] float32 holds the perspective-correct barycentric
weights of the second and third vertex of the face in front. Keys start at 0: nothing.
"""

import math

import numpy as np
from numba import njit

NEAR = 1e-3  # render.base.NEAR; numba freezes globals, a test holds the two equal
SUBPIXEL = 4096.0  # render.base.SUBPIXEL
LAST_ID = 0x7FFFFFFF
WIDE_PX = 4  # from this width on, the span of every row is computed instead of testing all of the box


@njit(cache=True, nogil=True)
def face_tie(face_id, visible):
    """The low 32 bits of a key: visible beats hidden, then the lowest id wins."""
    return (np.int64(visible) << 31) | (LAST_ID - face_id)


@njit(cache=True, nogil=True)
def snap(x):
    """Round a pixel coordinate to the subpixel grid."""
    return np.floor(x * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL)


@njit(cache=True, nogil=True)
def row_span(x0, dy0, x1, dy1, x2, dy2, sign, slack, left, right):
    """First and last pixel of a row that can lie inside; a little generous, the caller tests each.

    `slack` bounds the rounding error of an edge function; it is 0 for triangles whose edge functions are exact.
    """
    lo, hi = left - 1.0, right + 1.0
    for edge in range(3):
        if edge == 0:
            xa, ya, xb, yb = x1, dy1, x2, dy2
        elif edge == 1:
            xa, ya, xb, yb = x2, dy2, x0, dy0
        else:
            xa, ya, xb, yb = x0, dy0, x1, dy1
        slope = (ya - yb) * sign
        value = (xa * yb - ya * xb) * sign  # edge function at x = 0
        if slope > 0:
            lo = max(lo, -(value + slack) / slope)
        elif slope < 0:
            hi = min(hi, -(value + slack) / slope)
        elif value + slack < 0:
            return 1, 0
    return max(left, int(math.floor(lo - 0.5 - 1e-3))), min(right, int(math.ceil(hi - 0.5 + 1e-3)))


@njit(cache=True, nogil=True)
def draw_triangle(x0, y0, q0, x1, y1, q1, x2, y2, q2, tie, clipped, bary, keys, weights):
    """Draw one triangle of snapped pixels (x, y) and q = 1/z > 0.

    `bary` [3, 2] holds, when `clipped`, the weights of each corner for the second and third vertex of the whole face.
    """
    left = max(math.ceil(min(x0, x1, x2) - 0.5), 0)
    right = min(math.floor(max(x0, x1, x2) - 0.5), keys.shape[1] - 1)
    if left > right:
        return
    top = max(math.ceil(min(y0, y1, y2) - 0.5), 0)
    bottom = min(math.floor(max(y0, y1, y2) - 0.5), keys.shape[0] - 1)
    if top > bottom:
        return
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    if area == 0.0:
        return
    sign = 1.0 if area > 0 else -1.0
    size = abs(area)
    wide = right - left >= WIDE_PX
    slack = 0.0
    if wide:
        reach = max(abs(x0), abs(x1), abs(x2), abs(y0), abs(y1), abs(y2))
        if reach > 8192.0:
            slack = 1e-15 * reach * reach
    for row in range(top, bottom + 1):
        py = row + 0.5
        dy0, dy1, dy2 = y0 - py, y1 - py, y2 - py
        lo, hi = left, right
        if wide:
            lo, hi = row_span(x0, dy0, x1, dy1, x2, dy2, sign, slack, left, right)
        for col in range(lo, hi + 1):
            px = col + 0.5
            dx0, dx1, dx2 = x0 - px, x1 - px, x2 - px
            e0 = (dx1 * dy2 - dy1 * dx2) * sign
            e1 = (dx2 * dy0 - dy2 * dx0) * sign
            e2 = (dx0 * dy1 - dy0 * dx1) * sign
            if e0 >= 0.0 and e1 >= 0.0 and e2 >= 0.0:
                b1, b2 = e1 / size, e2 / size
                b0 = max(1.0 - b1 - b2, 0.0)
                q = b0 * q0 + b1 * q1 + b2 * q2
                key = (np.int64(np.float32(q).view(np.int32)) << 32) | tie
                if key > keys[row, col]:
                    keys[row, col] = key
                    w1, w2 = b1 * q1 / q, b2 * q2 / q
                    if clipped:
                        w0 = b0 * q0 / q
                        v1 = w0 * bary[0, 0] + w1 * bary[1, 0] + w2 * bary[2, 0]
                        w2 = w0 * bary[0, 1] + w1 * bary[1, 1] + w2 * bary[2, 1]
                        w1 = v1
                    weights[row, col, 0] = w1
                    weights[row, col, 1] = w2


@njit(cache=True, nogil=True)
def draw_clipped(corners, tie, polygon, bary, keys, weights):
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
        draw_triangle(
            polygon[0, 0], polygon[0, 1], polygon[0, 2],
            polygon[k, 0], polygon[k, 1], polygon[k, 2],
            polygon[k + 1, 0], polygon[k + 1, 1], polygon[k + 1, 2],
            tie, True, bary, keys, weights,
        )  # fmt: skip


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def draw_faces(first, last, faces, visible, vertices, px_from_world, screen, keys, weights):
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
                tie, False, bary, keys, weights,
            )  # fmt: skip
        elif q0 > 0.0 or q1 > 0.0 or q2 > 0.0:
            for k in range(3):
                v = faces[f, k]
                X, Y, Z = np.float64(vertices[v, 0]), np.float64(vertices[v, 1]), np.float64(vertices[v, 2])
                for axis in range(3):
                    corners[k, axis] = P[axis, 0] * X + P[axis, 1] * Y + P[axis, 2] * Z + P[axis, 3]
            draw_clipped(corners, tie, polygon, bary, keys, weights)


@njit(cache=True, nogil=True)
def take_front(keys, row, col):
    """The greatest key of a pixel over all buffers, and whose it is; the buffers are cleared on the way."""
    key, front = keys[0, row, col], 0
    keys[0, row, col] = 0
    for buffer in range(1, keys.shape[0]):
        other = keys[buffer, row, col]
        keys[buffer, row, col] = 0
        if other > key:
            key, front = other, buffer
    return key, front


@njit(cache=True, nogil=True)
def resolve_fragments(top, bottom, keys, weights, faces, colors, face_id, color, depth):
    """Rows top..bottom-1 of the picture from z-buffers keys [buffers, h, w], weights [buffers, h, w, 2]; empties the keys."""
    for row in range(top, bottom):
        for col in range(keys.shape[2]):
            key, front = take_front(keys, row, col)
            if key == 0:
                face_id[row, col] = -1
                depth[row, col] = np.inf
                color[row, col, :] = 0.0
                continue
            f = LAST_ID - (key & LAST_ID)
            face_id[row, col] = f
            depth[row, col] = 1.0 / np.float64(np.int32(key >> 32).view(np.float32))
            w1, w2 = weights[front, row, col, 0], weights[front, row, col, 1]
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            for channel in range(colors.shape[1]):
                base = colors[a, channel]
                color[row, col, channel] = base + w1 * (colors[b, channel] - base) + w2 * (colors[c, channel] - base)
