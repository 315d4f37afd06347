"""A depth map's watertight mesh, drawn without building it: the same points, faces and order as `mesh.watertight`.

Works on the grid of `geometry.mesh_rule.grid_depth`, row by row. Face ids are kept in a form that orders like the built
mesh's and decodes by shifts: class << (2 + 2 * bits)... see `cell_id`. Kernels are plain numba, as in `kernels`.
"""

import numpy as np
from numba import njit

from ex4d.render.kernels import (
    LAST_ID,
    NEAR,
    SUBPIXEL,
    draw_clipped,
    draw_triangle,
    face_tie,
    take_front,
)

UPPER, LOWER, CAP, SPLAT = 0, 1, 2, 3


@njit(cache=True, nogil=True)
def lift_row(i, depth, inverse_K, first_px, X, Y, Z):
    """Points of grid row i, in float64 rounded to float32 like `mesh_rule.lift`."""
    y = i + first_px
    for j in range(depth.shape[1]):
        x = j + first_px
        z = np.float64(depth[i, j])
        X[j] = np.float64(np.float32((inverse_K[0, 0] * x + inverse_K[0, 1] * y + inverse_K[0, 2]) * z))
        Y[j] = np.float64(np.float32((inverse_K[1, 1] * y + inverse_K[1, 2]) * z))
        Z[j] = z


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def is_steep(x0, y0, z0, x1, y1, z1, x2, y2, z2, ratio):
    """`mesh_rule.boundary_ratios` of one triangle, against its limit."""
    dx = max(x0, x1, x2) - min(x0, x1, x2)
    dy = max(y0, y1, y2) - min(y0, y1, y2)
    dz = max(z0, z1, z2) - min(z0, z1, z2)
    return dz / (max(dx, dy) + 1e-8) > ratio


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def project_row(i, depth, inverse_K, first_px, P, X, Y, Z, sx, sy, q):
    """Points and snapped screen positions of grid row i; True when every vertex is in front of the near plane."""
    lift_row(i, depth, inverse_K, first_px, X, Y, Z)
    lowest = np.inf
    for j in range(X.shape[0]):
        z = P[2, 0] * X[j] + P[2, 1] * Y[j] + P[2, 2] * Z[j] + P[2, 3]
        lowest = z if z < lowest else lowest
        r = 1.0 / z
        x = (P[0, 0] * X[j] + P[0, 1] * Y[j] + P[0, 2] * Z[j] + P[0, 3]) * r
        y = (P[1, 0] * X[j] + P[1, 1] * Y[j] + P[1, 2] * Z[j] + P[1, 3]) * r
        sx[j] = np.floor(x * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL)
        sy[j] = np.floor(y * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL)
        q[j] = r if z >= NEAR else 0.0
    return lowest >= NEAR


@njit(cache=True, nogil=True)
def project_corner(P, X, Y, Z, corners, k):
    """K @ camera point of one vertex, for clipping."""
    for axis in range(3):
        corners[k, axis] = P[axis, 0] * X + P[axis, 1] * Y + P[axis, 2] * Z + P[axis, 3]


@njit(cache=True, nogil=True)
def cell_id(kind, i, j, half, bits):
    """Face id of cell (i, j): the kind of face first, then rows, columns and, for splats, the half of the square."""
    cell = (np.int64(i) << bits) | j
    if kind == SPLAT:
        cell = (cell << 1) | half
    return (np.int64(kind) << (2 * bits + 1)) | cell


@njit(cache=True, nogil=True)
def unseen(visible, i, j):
    """Whether no visible face has inner grid vertex (i, j)."""
    upper, lower = visible[0], visible[1]
    return not (
        upper[i, j] or upper[i - 1, j] or lower[i - 1, j] or upper[i, j - 1] or lower[i, j - 1] or lower[i - 1, j - 1]
    )


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def draw_hom(corners, tie, polygon, bary, keys, weights):
    """Draw a face from K @ camera point of its vertices, clipped where it must be."""
    if corners[0, 2] >= NEAR and corners[1, 2] >= NEAR and corners[2, 2] >= NEAR:
        q0, q1, q2 = 1.0 / corners[0, 2], 1.0 / corners[1, 2], 1.0 / corners[2, 2]
        draw_triangle(
            np.floor(corners[0, 0] * q0 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL),
            np.floor(corners[0, 1] * q0 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL), q0,
            np.floor(corners[1, 0] * q1 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL),
            np.floor(corners[1, 1] * q1 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL), q1,
            np.floor(corners[2, 0] * q2 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL),
            np.floor(corners[2, 1] * q2 * SUBPIXEL + 0.5) * (1.0 / SUBPIXEL), q2,
            tie, False, bary, keys, weights,
        )  # fmt: skip
    elif corners[0, 2] >= NEAR or corners[1, 2] >= NEAR or corners[2, 2] >= NEAR:
        draw_clipped(corners, tie, polygon, bary, keys, weights)


@njit(cache=True, nogil=True)
def draw_cells(  # noqa: C901 - numba inlines best what stands in one loop
    top,
    bottom,
    depth,
    inverse_K,
    first_px,
    P,
    visible,
    splats,
    half_px,
    speck_px,
    jump,
    keep_hidden,
    bits,
    keys,
    weights,
):
    """Draw cell rows top..bottom-1 and, with `splats`, the squares of unseen vertices of the same rows."""
    w = depth.shape[1]
    X0, Y0, Z0, sx0, sy0, q0 = np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w)
    X1, Y1, Z1, sx1, sy1, q1 = np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w), np.empty(w)
    bary, polygon, corners = np.zeros((3, 2)), np.empty((4, 5)), np.empty((3, 3))
    right_px, bottom_px = keys.shape[1] - 0.5, keys.shape[0] - 0.5
    front1 = project_row(top, depth, inverse_K, first_px, P, X1, Y1, Z1, sx1, sy1, q1)
    for i in range(top, bottom):
        X0, Y0, Z0, sx0, sy0, q0, X1, Y1, Z1, sx1, sy1, q1 = X1, Y1, Z1, sx1, sy1, q1, X0, Y0, Z0, sx0, sy0, q0
        front0 = front1
        front1 = project_row(i + 1, depth, inverse_K, first_px, P, X1, Y1, Z1, sx1, sy1, q1)
        in_front = front0 and front1
        for j in range(w - 1):
            ax, ay, aq = sx0[j], sy0[j], q0[j]
            bx, by, bq = sx1[j], sy1[j], q1[j]
            cx, cy, cq = sx0[j + 1], sy0[j + 1], q0[j + 1]
            dx, dy, dq = sx1[j + 1], sy1[j + 1], q1[j + 1]
            shown0, shown1 = visible[0, i, j], visible[1, i, j]
            if in_front or (aq > 0.0 and bq > 0.0 and cq > 0.0 and dq > 0.0):
                lo = min(min(ax, bx), min(cx, dx))
                hi = max(max(ax, bx), max(cx, dx))
                if np.ceil(lo - 0.5) > np.floor(hi - 0.5) or hi < 0.5 or lo > right_px:
                    continue
                lo = min(min(ay, by), min(cy, dy))
                hi = max(max(ay, by), max(cy, dy))
                if np.ceil(lo - 0.5) > np.floor(hi - 0.5) or hi < 0.5 or lo > bottom_px:
                    continue
                if keep_hidden or shown0:
                    tie = face_tie(cell_id(UPPER, i, j, 0, bits), shown0)
                    draw_triangle(bx, by, bq, ax, ay, aq, cx, cy, cq, tie, False, bary, keys, weights)
                if keep_hidden or shown1:
                    tie = face_tie(cell_id(LOWER, i, j, 0, bits), shown1)
                    draw_triangle(bx, by, bq, cx, cy, cq, dx, dy, dq, tie, False, bary, keys, weights)
            elif aq > 0.0 or bq > 0.0 or cq > 0.0 or dq > 0.0:
                if keep_hidden or shown0:
                    project_corner(P, X1[j], Y1[j], Z1[j], corners, 0)
                    project_corner(P, X0[j], Y0[j], Z0[j], corners, 1)
                    project_corner(P, X0[j + 1], Y0[j + 1], Z0[j + 1], corners, 2)
                    tie = face_tie(cell_id(UPPER, i, j, 0, bits), shown0)
                    draw_hom(corners, tie, polygon, bary, keys, weights)
                if keep_hidden or shown1:
                    project_corner(P, X1[j], Y1[j], Z1[j], corners, 0)
                    project_corner(P, X0[j + 1], Y0[j + 1], Z0[j + 1], corners, 1)
                    project_corner(P, X1[j + 1], Y1[j + 1], Z1[j + 1], corners, 2)
                    tie = face_tie(cell_id(LOWER, i, j, 0, bits), shown1)
                    draw_hom(corners, tie, polygon, bary, keys, weights)
        if splats and i > 0:
            for j in range(1, w - 1):
                if unseen(visible, i, j):
                    half = half_px if has_support(depth, i, j, jump) else speck_px
                    draw_splat(
                        i, j, half, depth, inverse_K, first_px, P, bits, corners, polygon, bary, keys, weights
                    )  # fmt: skip


@njit(cache=True, nogil=True)
def draw_splat(i, j, half, depth, inverse_K, first_px, P, bits, corners, polygon, bary, keys, weights):
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
        draw_hom(corners, face_tie(cell_id(SPLAT, i, j, lower, bits), True), polygon, bary, keys, weights)


@njit(cache=True, nogil=True)
def draw_caps(depth, inverse_K, first_px, P, shown, keep_hidden, bits, keys, weights):
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
            corners[k, :] = four[corner, :]
        draw_hom(corners, face_tie(cell_id(CAP, 0, cap, 0, bits), shown[cap]), polygon, bary, keys, weights)


@njit(cache=True, nogil=True)
def resolve_faces(top, bottom, keys, weights, source, bits, far, color, mask, depth):
    """Rows top..bottom-1 by face flags: colour of the visible faces, 0 elsewhere. `source` [h, w, 3] has no ring."""
    low = (np.int64(1) << bits) - 1
    half = np.float32(0.5)
    for row in range(top, bottom):
        for col in range(keys.shape[2]):
            key, front = take_front(keys, row, col)
            z = np.float32(np.inf)
            if key != 0:
                z = np.float32(1.0 / np.float64(np.int32(key >> 32).view(np.float32)))
            depth[row, col] = z
            seen = (key & (np.int64(1) << 31)) != 0 and z <= far
            mask[row, col] = seen
            if not seen:
                color[row, col, 0] = color[row, col, 1] = color[row, col, 2] = 0
                continue
            face = LAST_ID - (key & LAST_ID)
            kind = face >> (2 * bits + 1)
            if kind == SPLAT:
                cell = (face & ((np.int64(1) << (2 * bits + 1)) - 1)) >> 1
                i, j = (cell >> bits) - 1, (cell & low) - 1
                for channel in range(3):
                    color[row, col, channel] = source[i, j, channel]
                continue
            i, j = ((face >> bits) & low) - 1, (face & low) - 1
            w1, w2 = weights[front, row, col, 0], weights[front, row, col, 1]
            for channel in range(3):
                b, c = np.float32(source[i + 1, j, channel]), np.float32(source[i, j + 1, channel])
                if kind == UPPER:
                    value = b + w1 * (np.float32(source[i, j, channel]) - b) + w2 * (c - b)
                else:
                    value = b + w1 * (c - b) + w2 * (np.float32(source[i + 1, j + 1, channel]) - b)
                color[row, col, channel] = np.uint8(min(max(np.floor(value + half), 0.0), 255.0))


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def resolve_alpha(top, bottom, keys, weights, source, opaque, bits, threshold, far, color, mask, depth):
    """Rows top..bottom-1 by interpolated alpha, colour truncated, as the release does it."""
    low = (np.int64(1) << bits) - 1
    h, w = opaque.shape
    zero = np.float32(0.0)
    for row in range(top, bottom):
        for col in range(keys.shape[2]):
            key, front = take_front(keys, row, col)
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
            w1, w2 = weights[front, row, col, 0], weights[front, row, col, 1]
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
                    color[row, col, channel] = np.uint8(min(max(value, 0.0), 255.0))
