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

# Kinds of face of a depth map's mesh, in the order of the built mesh's ids (`cell_id`).
UPPER, LOWER, CAP, SPLAT = 0, 1, 2, 3
VISIBLE = 1 << 31
CROSSING, BEHIND = np.int32(1 << 30), np.int32(1 << 29)  # beyond every column: their boxes are empty
SMALL_PX = 3  # cells of at most this many pixels a side are drawn whole


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
    """Draw a whole face. Callers pass a `weighted` that only run time knows: for a literal this is compiled once more."""
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
        whole = q0 > 0.0 and q1 > 0.0 and q2 > 0.0
        if whole:
            draw_triangle(
                screen[a, 0], screen[a, 1], q0, screen[b, 0], screen[b, 1], q1, screen[c, 0], screen[c, 1], q2,
                tie, whole, buffer,
            )  # fmt: skip
        elif q0 > 0.0 or q1 > 0.0 or q2 > 0.0:
            for k in range(3):
                v = faces[f, k]
                X, Y, Z = np.float64(vertices[v, 0]), np.float64(vertices[v, 1]), np.float64(vertices[v, 2])
                for axis in range(3):
                    corners[k, axis] = P[axis, 0] * X + P[axis, 1] * Y + P[axis, 2] * Z + P[axis, 3]
            draw_clipped(corners, tie, polygon, bary, buffer)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
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


# A depth map's watertight mesh, drawn without building it: the same points, faces and order as `mesh.watertight`, on the grid
# of `geometry.mesh_rule.grid_depth`, row by row.


@njit(cache=True, nogil=True, error_model="numpy")
def lift_row(i, depth, inverse_K, first_px, X, Y, Z):
    """Points of grid row i, in float64 rounded to float32 like `mesh_rule.lift`."""
    y = i + first_px
    for j in range(depth.shape[1]):
        x = j + first_px
        z = np.float64(depth[i, j])
        X[j] = np.float64(np.float32((inverse_K[0, 0] * x + inverse_K[0, 1] * y + inverse_K[0, 2]) * z))
        Y[j] = np.float64(np.float32((inverse_K[1, 1] * y + inverse_K[1, 2]) * z))
        Z[j] = z


@njit(cache=True, nogil=True, error_model="numpy")
def is_narrow(x0, y0, z0, x1, y1, z1, x2, y2, z2, sin2):
    """`mesh_rule.narrow` of one triangle."""
    ux, uy, uz, vx, vy, vz = x1 - x0, y1 - y0, z1 - z0, x2 - x0, y2 - y0, z2 - z0
    a2 = ux * ux + uy * uy + uz * uz
    b2 = vx * vx + vy * vy + vz * vz
    dot = ux * vx + uy * vy + uz * vz
    c2 = a2 + b2 - 2.0 * dot
    shortest = a2 if a2 < b2 else b2
    shortest = shortest if shortest < c2 else c2
    return (a2 * b2 - dot * dot) * shortest < sin2 * a2 * b2 * c2


@njit(cache=True, nogil=True, error_model="numpy")
def is_steep(x0, y0, z0, x1, y1, z1, x2, y2, z2, ratio):
    """`mesh_rule.boundary_ratios` of one triangle, against its limit."""
    dx = max(x0, x1, x2) - min(x0, x1, x2)
    dy = max(y0, y1, y2) - min(y0, y1, y2)
    dz = max(z0, z1, z2) - min(z0, z1, z2)
    return dz / (max(dx, dy) + 1e-8) > ratio


@njit(cache=True, nogil=True, error_model="numpy")
def mark_cells(top, bottom, depth, inverse_K, first_px, ring, boundary, limit, visible):
    """visible [2, h-1, w-1] of cell rows top..bottom-1: upper and lower triangle of every cell.

    `limit` is the squared sine of the smallest angle, or the boundary ratio.
    """
    h, w = depth.shape
    X0, Y0, Z0 = np.empty(w), np.empty(w), np.empty(w)
    X1, Y1, Z1 = np.empty(w), np.empty(w), np.empty(w)
    lift_row(top, depth, inverse_K, first_px, X1, Y1, Z1)
    for i in range(top, bottom):
        X0, Y0, Z0, X1, Y1, Z1 = X1, Y1, Z1, X0, Y0, Z0
        lift_row(i + 1, depth, inverse_K, first_px, X1, Y1, Z1)
        upper, lower = visible[0, i], visible[1, i]
        if boundary:
            for j in range(w - 1):
                upper[j] = not is_steep(
                    X1[j], Y1[j], Z1[j], X0[j], Y0[j], Z0[j], X0[j + 1], Y0[j + 1], Z0[j + 1], limit
                )
                lower[j] = not is_steep(
                    X1[j], Y1[j], Z1[j], X0[j + 1], Y0[j + 1], Z0[j + 1], X1[j + 1], Y1[j + 1], Z1[j + 1], limit
                )
        else:
            for j in range(w - 1):
                upper[j] = not is_narrow(
                    X1[j], Y1[j], Z1[j], X0[j], Y0[j], Z0[j], X0[j + 1], Y0[j + 1], Z0[j + 1], limit
                )
                lower[j] = not is_narrow(
                    X1[j], Y1[j], Z1[j], X0[j + 1], Y0[j + 1], Z0[j + 1], X1[j + 1], Y1[j + 1], Z1[j + 1], limit
                )
        if ring:
            upper[0] = lower[0] = upper[w - 2] = lower[w - 2] = False
            if i == 0 or i == h - 2:
                upper[:] = False
                lower[:] = False


@njit(cache=True, nogil=True, error_model="numpy")
def project_row(i, depth, inverse_K, first_px, P, X, Y, Z, sx, sy, q):
    """Points and snapped screen positions of grid row i; q = 0 marks vertices in front of the near plane."""
    lift_row(i, depth, inverse_K, first_px, X, Y, Z)
    for j in range(X.shape[0]):
        z = P[2, 0] * X[j] + P[2, 1] * Y[j] + P[2, 2] * Z[j] + P[2, 3]
        r = 1.0 / z
        x = (P[0, 0] * X[j] + P[0, 1] * Y[j] + P[0, 2] * Z[j] + P[0, 3]) * r
        y = (P[1, 0] * X[j] + P[1, 1] * Y[j] + P[1, 2] * Z[j] + P[1, 3]) * r
        sx[j] = np.floor(x * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL)
        sy[j] = np.floor(y * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL)
        q[j] = r if z >= NEAR else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def project_corner(P, X, Y, Z, corners, k):
    """K @ camera point of one vertex, for clipping."""
    for axis in range(3):
        corners[k, axis] = P[axis, 0] * X + P[axis, 1] * Y + P[axis, 2] * Z + P[axis, 3]


@njit(cache=True, nogil=True, error_model="numpy")
def cell_id(kind, i, j, half, bits):
    """Face id of cell (i, j): the kind of face first, then rows, columns and, for splats, the half of the square."""
    cell = (np.int64(i) << bits) | j
    if kind == SPLAT:
        cell = (cell << 1) | half
    return (np.int64(kind) << (2 * bits + 1)) | cell


@njit(cache=True, nogil=True, error_model="numpy")
def find_unseen(upper0, lower0, upper1, lower1, unseen):
    """unseen [w] of a row of vertices between cell rows 0 (above) and 1: 1 where no face shows the vertex; how many."""
    up0, low0, up1 = upper0[1:], lower0[1:], upper1[1:]  # the cell to the right of the vertex
    count = 0
    for j in range(up1.shape[0]):
        seen = up1[j] | up0[j] | low0[j] | upper1[j] | lower1[j] | lower0[j]
        unseen[j + 1] = not seen
        count += not seen
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def has_support(depth, i, j, jump):
    """Whether one of the eight neighbours inside the ring has the depth of vertex (i, j)."""
    z = np.float64(depth[i, j])
    for a in range(max(i - 1, 1), min(i + 2, depth.shape[0] - 1)):
        for b in range(max(j - 1, 1), min(j + 2, depth.shape[1] - 1)):
            if a != i or b != j:
                other = np.float64(depth[a, b])
                if abs(other - z) <= jump * min(other, z):
                    return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def draw_hom(corners, tie, polygon, bary, buffer):
    """Draw a face from K @ camera point of its vertices, clipped where it must be."""
    whole = corners[0, 2] >= NEAR and corners[1, 2] >= NEAR and corners[2, 2] >= NEAR
    if whole:
        q0, q1, q2 = 1.0 / corners[0, 2], 1.0 / corners[1, 2], 1.0 / corners[2, 2]
        draw_triangle(
            np.floor(corners[0, 0] * q0 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL),
            np.floor(corners[0, 1] * q0 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL), q0,
            np.floor(corners[1, 0] * q1 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL),
            np.floor(corners[1, 1] * q1 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL), q1,
            np.floor(corners[2, 0] * q2 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL),
            np.floor(corners[2, 1] * q2 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL), q2,
            tie, whole, buffer,
        )  # fmt: skip
    elif corners[0, 2] >= NEAR or corners[1, 2] >= NEAR or corners[2, 2] >= NEAR:
        draw_clipped(corners, tie, polygon, bary, buffer)


@njit(cache=True, nogil=True, error_model="numpy")
def first_px_of(lowest, size):
    """First pixel whose centre is not below `lowest`, kept within -1..size."""
    return np.int32(min(max(np.ceil(lowest - 0.5), 0.0), size))


@njit(cache=True, nogil=True, error_model="numpy")
def last_px_of(highest, size):
    """Last pixel whose centre is not above `highest`, kept within -1..size - 1."""
    return np.int32(min(max(np.floor(highest - 0.5), -1.0), size - 1.0))


@njit(cache=True, nogil=True, error_model="numpy")
def box_row(sx0, sy0, q0, sx1, sy1, q1, width, height, boxes):
    """boxes [4, w-1] of a row of cells: first and last column, first and last row; CROSSING in the first where some
    vertices lie in front of the near plane, BEHIND where all do."""
    left, right, top, bottom = boxes[0], boxes[1], boxes[2], boxes[3]
    for j in range(sx0.shape[0] - 1):
        ax, bx, cx, dx = sx0[j], sx1[j], sx0[j + 1], sx1[j + 1]
        ay, by, cy, dy = sy0[j], sy1[j], sy0[j + 1], sy1[j + 1]
        least = min(min(q0[j], q1[j]), min(q0[j + 1], q1[j + 1]))
        most = max(max(q0[j], q1[j]), max(q0[j + 1], q1[j + 1]))
        first = first_px_of(min(min(ax, bx), min(cx, dx)), width)
        left[j] = first if least > 0.0 else (CROSSING if most > 0.0 else BEHIND)
        right[j] = last_px_of(max(max(ax, bx), max(cx, dx)), width)
        top[j] = first_px_of(min(min(ay, by), min(cy, dy)), height)
        bottom[j] = last_px_of(max(max(ay, by), max(cy, dy)), height)


@njit(cache=True, nogil=True, error_model="numpy")
def draw_crossing(i, j, X0, Y0, Z0, X1, Y1, Z1, P, shown0, shown1, bits, corners, polygon, bary, buffer):
    """The two faces of a cell of which a vertex lies in front of the near plane; ties below 0 are not drawn."""
    for kind in range(2):  # UPPER, LOWER
        shown = shown0 if kind == UPPER else shown1
        if shown < 0:
            continue
        for k in range(3):
            col = j + (1 if k == 2 or (k == 1 and kind == LOWER) else 0)
            below = k == 0 or (k == 2 and kind == LOWER)
            X, Y, Z = X1[col] if below else X0[col], Y1[col] if below else Y0[col], Z1[col] if below else Z0[col]
            project_corner(P, X, Y, Z, corners, k)
        draw_hom(corners, face_tie(cell_id(kind, i, j, 0, bits), shown), polygon, bary, buffer)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def draw_small_cell(
    left, right, top, bottom, ax, ay, aq, bx, by, bq, cx, cy, cq, dx, dy, dq,
    area0, area1, tie0, tie1, weigh_hidden, buffer,
):  # fmt: skip
    """Both faces of a cell of a few pixels whose faces have one orientation: the diagonal decides which face can cover.

    The same numbers as two calls of `draw_triangle`, with one unpredictable branch a pixel.
    """
    sign = 1.0 if area0 > 0 else -1.0
    for row in range(top, bottom + 1):
        py = row + 0.5
        day, dby, dcy, ddy = ay - py, by - py, cy - py, dy - py
        for col in range(left, right + 1):
            px = col + 0.5
            dbx, dcx = bx - px, cx - px
            diagonal = (dcx * dby - dcy * dbx) * sign
            upper = diagonal >= 0.0
            tx = (ax if upper else dx) - px
            ty = day if upper else ddy
            flip = sign if upper else -sign
            if min((tx * dcy - ty * dcx) * flip, (dbx * ty - dby * tx) * flip) >= 0.0:
                n = (dbx * ty - dby * tx) * flip
                size = abs(area0) if upper else abs(area1)
                tie = tie0 if upper else tie1
                b1 = (diagonal if upper else n) / size
                b2 = (n if upper else -diagonal) / size
                q1, q2 = (aq if upper else cq), (cq if upper else dq)
                weighted = weigh_hidden or (tie & VISIBLE) != 0
                write_front(row, col, b1, b2, bq, q1, q2, tie, weighted, False, buffer, buffer)
            if diagonal == 0.0:  # the other face covers it too
                tx, ty = dx - px, ddy
                n = (dby * tx - dbx * ty) * sign
                if min((ty * dcx - tx * dcy) * sign, n) >= 0.0:
                    weighted = weigh_hidden or (tie1 & VISIBLE) != 0
                    write_front(
                        row, col, n / abs(area1), 0.0, bq, cq, dq, tie1, weighted, False, buffer, buffer
                    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def draw_row(
    i, X0, Y0, Z0, sx0, sy0, q0, X1, Y1, Z1, sx1, sy1, q1, lefts, rights, tops, bottoms, P, upper, lower,
    keep_hidden, weigh_hidden, bits, corners, polygon, bary, buffer,
):  # fmt: skip
    """Draw one row of cells."""
    for j in range(sx0.shape[0] - 1):
        left, right, above, below = lefts[j], rights[j], tops[j], bottoms[j]
        if left == CROSSING:
            shown0 = 1 if upper[j] else (0 if keep_hidden else -1)
            shown1 = 1 if lower[j] else (0 if keep_hidden else -1)
            draw_crossing(
                i, j, X0, Y0, Z0, X1, Y1, Z1, P, shown0, shown1, bits, corners, polygon, bary, buffer
            )  # fmt: skip
            continue
        if left > right or above > below:
            continue
        shown0, shown1 = upper[j], lower[j]
        tie0 = face_tie(cell_id(UPPER, i, j, 0, bits), shown0)
        tie1 = face_tie(cell_id(LOWER, i, j, 0, bits), shown1)
        ax, ay, aq, bx, by, bq = sx0[j], sy0[j], q0[j], sx1[j], sy1[j], q1[j]
        cx, cy, cq, dx, dy, dq = sx0[j + 1], sy0[j + 1], q0[j + 1], sx1[j + 1], sy1[j + 1], q1[j + 1]
        area0 = (ax - bx) * (cy - by) - (ay - by) * (cx - bx)
        area1 = (cx - bx) * (dy - by) - (cy - by) * (dx - bx)
        if right - left < SMALL_PX and below - above < SMALL_PX and area0 * area1 > 0.0 and keep_hidden:
            draw_small_cell(
                left, right, above, below, ax, ay, aq, bx, by, bq, cx, cy, cq, dx, dy, dq,
                area0, area1, tie0, tie1, weigh_hidden, buffer,
            )  # fmt: skip
            continue
        if keep_hidden or shown0:
            draw_triangle(
                bx, by, bq, ax, ay, aq, cx, cy, cq, tie0, weigh_hidden or shown0, buffer
            )  # fmt: skip
        if keep_hidden or shown1:
            draw_triangle(
                bx, by, bq, cx, cy, cq, dx, dy, dq, tie1, weigh_hidden or shown1, buffer
            )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def draw_cells(
    top, bottom, depth, inverse_K, first_px, P, visible, splats, half_px, speck_px, jump, keep_hidden, weigh_hidden,
    bits, buffer,
):  # fmt: skip
    """Draw cell rows top..bottom-1 and, with `splats`, the squares of unseen vertices of the same rows."""
    w = depth.shape[1]
    X0, Y0, Z0, sx0, sy0, q0 = np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w)
    X1, Y1, Z1, sx1, sy1, q1 = np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w)
    bary, polygon, corners = np.zeros((3, 2)), np.empty((4, 5)), np.empty((3, 3))
    boxes, unseen = np.empty((4, w), np.int32), np.empty(w, np.bool_)
    width, height = float(buffer.shape[1]), float(buffer.shape[0])
    project_row(top, depth, inverse_K, first_px, P, X1, Y1, Z1, sx1, sy1, q1)
    for i in range(top, bottom):
        X0, Y0, Z0, sx0, sy0, q0, X1, Y1, Z1, sx1, sy1, q1 = X1, Y1, Z1, sx1, sy1, q1, X0, Y0, Z0, sx0, sy0, q0
        project_row(i + 1, depth, inverse_K, first_px, P, X1, Y1, Z1, sx1, sy1, q1)
        box_row(sx0, sy0, q0, sx1, sy1, q1, width, height, boxes)
        draw_row(
            i, X0, Y0, Z0, sx0, sy0, q0, X1, Y1, Z1, sx1, sy1, q1, boxes[0], boxes[1], boxes[2], boxes[3], P,
            visible[0, i], visible[1, i], keep_hidden, weigh_hidden, bits, corners, polygon, bary, buffer,
        )  # fmt: skip
        if splats and i > 0 and find_unseen(visible[0, i - 1], visible[1, i - 1], visible[0, i], visible[1, i], unseen):
            for j in range(1, w - 1):
                if unseen[j]:
                    half = half_px if has_support(depth, i, j, jump) else speck_px
                    draw_splat(
                        i, j, half, depth, inverse_K, first_px, P, bits, corners, polygon, bary, buffer
                    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def draw_splat(i, j, half, depth, inverse_K, first_px, P, bits, corners, polygon, bary, buffer):
    """The frontal square of an unseen pixel, as faces (B, A, C) and (B, C, D) like a cell's."""
    z = np.float64(depth[i, j])
    for lower in range(2):
        for k in range(3):
            corner = (1, 2, 3)[k] if lower == 1 else (1, 0, 2)[k]  # A, B, C, D = 0..3
            x = j + first_px + (half if corner >= 2 else -half)
            y = i + first_px + (half if corner % 2 == 1 else -half)
            X = np.float64(np.float32((inverse_K[0, 0] * x + inverse_K[0, 1] * y + inverse_K[0, 2]) * z))
            Y = np.float64(np.float32((inverse_K[1, 1] * y + inverse_K[1, 2]) * z))
            project_corner(P, X, Y, z, corners, k)
        draw_hom(corners, face_tie(cell_id(SPLAT, i, j, lower, bits), True), polygon, bary, buffer)


@njit(cache=True, nogil=True, error_model="numpy")
def draw_caps(depth, inverse_K, first_px, P, shown, keep_hidden, bits, buffer):
    """The two triangles between the grid's corners."""
    h, w = depth.shape
    X, Y, Z = np.empty(w), np.empty(w), np.empty(w)
    four = np.empty((4, 3))
    for bottom in range(2):
        lift_row(bottom * (h - 1), depth, inverse_K, first_px, X, Y, Z)
        for right in range(2):
            j = right * (w - 1)
            project_corner(P, X[j], Y[j], Z[j], four, 2 * bottom + right)
    bary, polygon, corners = np.zeros((3, 2)), np.empty((4, 5)), np.empty((3, 3))
    for cap in range(2):
        if not (keep_hidden or shown[cap]):
            continue
        for k in range(3):
            corner = (1, 0, 3)[k] if cap == 0 else (3, 0, 2)[k]  # top left, top right, bottom left, bottom right = 0..3
            for axis in range(3):  # a slice would compile numba's shape check and its messages: seconds
                corners[k, axis] = four[corner, axis]
        draw_hom(corners, face_tie(cell_id(CAP, 0, cap, 0, bits), shown[cap]), polygon, bary, buffer)


@njit(cache=True, nogil=True, error_model="numpy")
def resolve_faces(top, bottom, buffers, source, source_width, bits, far, color, mask, depth):
    """Rows top..bottom-1 by face flags: colour of the visible faces, 0 elsewhere.

    `source` and `color` are flat RGB; the source has no ring.
    """
    low = (np.int64(1) << bits) - 1
    half = np.float32(0.5)
    row_step = np.uint64(3 * source_width)
    out = np.uint64(top * buffers.shape[2] * 3)
    for row in range(top, bottom):
        for col in range(buffers.shape[2]):
            key, w1, w2 = take_front(buffers, row, col)
            z = np.float32(np.inf)
            if key != 0:
                z = np.float32(1.0 / np.float64(np.int32(key >> 32).view(np.float32)))
            depth[row, col] = z
            seen = (key & VISIBLE) != 0 and z <= far
            mask[row, col] = seen
            red = green = blue = np.uint8(0)
            if seen:
                face = LAST_ID - (key & LAST_ID)
                kind = face >> (2 * bits + 1)
                if kind == SPLAT:
                    cell = (face & ((np.int64(1) << (2 * bits + 1)) - 1)) >> 1
                    p0 = p1 = p2 = np.uint64((((cell >> bits) - 1) * source_width + (cell & low) - 1) * 3)
                    w1 = w2 = np.float32(0.0)
                else:
                    a = np.uint64(((((face >> bits) & low) - 1) * source_width + (face & low) - 1) * 3)
                    p0 = a + row_step
                    p1 = a if kind == UPPER else a + np.uint64(3)
                    p2 = a + np.uint64(3) if kind == UPPER else p0 + np.uint64(3)
                base = np.float32(source[p0])
                value = base + w1 * (np.float32(source[p1]) - base) + w2 * (np.float32(source[p2]) - base)
                red = np.uint8(np.int32(value + half))  # the weights keep it in 0..255
                one = np.uint64(1)
                base = np.float32(source[p0 + one])
                value = base + w1 * (np.float32(source[p1 + one]) - base) + w2 * (np.float32(source[p2 + one]) - base)
                green = np.uint8(np.int32(value + half))
                one = np.uint64(2)
                base = np.float32(source[p0 + one])
                value = base + w1 * (np.float32(source[p1 + one]) - base) + w2 * (np.float32(source[p2 + one]) - base)
                blue = np.uint8(np.int32(value + half))
            color[out] = red
            color[out + np.uint64(1)] = green
            color[out + np.uint64(2)] = blue
            out += np.uint64(3)


@njit(cache=True, nogil=True, error_model="numpy")
def mark_opaque(top, bottom, visible, opaque):
    """opaque [h, w] of vertex rows top..bottom-1: no face of the vertex is hidden (the release's per-vertex rule)."""
    h, w = opaque.shape
    for i in range(top, bottom):
        for j in range(w):
            clear = True
            if i < h - 1 and j < w - 1:
                clear = clear and visible[0, i, j]
            if i > 0 and j < w - 1:
                clear = clear and visible[0, i - 1, j] and visible[1, i - 1, j]
            if i < h - 1 and j > 0:
                clear = clear and visible[0, i, j - 1] and visible[1, i, j - 1]
            if i > 0 and j > 0:
                clear = clear and visible[1, i - 1, j - 1]
            opaque[i, j] = clear


@njit(cache=True, nogil=True, error_model="numpy")
def resolve_alpha(top, bottom, buffers, source, opaque, bits, threshold, far, color, mask, depth):
    """Rows top..bottom-1 by interpolated alpha, colour truncated, as the release does it."""
    low = (np.int64(1) << bits) - 1
    h, w = opaque.shape
    zero = np.float32(0.0)
    for row in range(top, bottom):
        for col in range(buffers.shape[2]):
            key, w1, w2 = take_front(buffers, row, col)
            color[row, col, 0] = color[row, col, 1] = color[row, col, 2] = 0
            mask[row, col] = False
            if key == 0:
                depth[row, col] = np.inf
                continue
            z = np.float32(1.0 / np.float64(np.int32(key >> 32).view(np.float32)))
            depth[row, col] = z
            face = LAST_ID - (key & LAST_ID)
            kind = face >> (2 * bits + 1)
            i, j = (face >> bits) & low, face & low
            if kind == CAP:
                i0, j0 = (0, w - 1) if j == 0 else (h - 1, w - 1)
                i1, j1 = 0, 0
                i2, j2 = (h - 1, w - 1) if j == 0 else (h - 1, 0)
            elif kind == UPPER:
                i0, j0, i1, j1, i2, j2 = i + 1, j, i, j, i, j + 1
            else:
                i0, j0, i1, j1, i2, j2 = i + 1, j, i, j + 1, i + 1, j + 1
            o0, o1, o2 = opaque[i0, j0], opaque[i1, j1], opaque[i2, j2]
            a = np.float32(255.0) if o0 else zero
            b = np.float32(255.0) if o1 else zero
            c = np.float32(255.0) if o2 else zero
            alpha = a + w1 * (b - a) + w2 * (c - a)
            if alpha > threshold and z <= far:
                mask[row, col] = True
                for channel in range(3):
                    a = np.float32(source[i0, j0, channel]) if o0 else zero
                    b = np.float32(source[i1, j1, channel]) if o1 else zero
                    c = np.float32(source[i2, j2, channel]) if o2 else zero
                    value = a + w1 * (b - a) + w2 * (c - a)
                    color[row, col, channel] = np.uint8(np.int32(value))  # weights keep it in 0..255
