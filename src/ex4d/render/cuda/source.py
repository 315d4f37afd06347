"""Device functions for the grid mesh that is never built: its vertices and faces from the depth map.

The rules are those of `mesh/rule.py`, in the same order of operations in float64 (kernels that use them are
launched without fused multiply-add), so that vertices and the hidden flag agree bit for bit. `source` is a float64 row a
frame: see `cuda_job.SOURCE_FIELDS`.
"""

# Triton traces these functions; to a type checker its tensors are tuples, its constants ints.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import triton
import triton.language as tl

from ex4d.mesh.rule import DEPTH_JUMP, SPECK_HALF_PX, SPLAT_HALF_PX
from ex4d.render.cuda.job import SOURCE_FIELDS

NUM_FIELDS = tl.constexpr(len(SOURCE_FIELDS))
JUMP = tl.constexpr(DEPTH_JUMP)
WHOLE = tl.constexpr(SPLAT_HALF_PX)
SPECK = tl.constexpr(SPECK_HALF_PX)


@triton.jit
def grid_depth(depth_ptr, source_ptr, i, j, height, width, RING: tl.constexpr, live):
    """float64 depth of grid vertex (i, j); depth_ptr points to the frame's [height, width] map."""
    border = tl.load(source_ptr + 8)
    if RING:
        inside = (i >= 1) & (i <= height) & (j >= 1) & (j <= width)
        raw = tl.load(depth_ptr + (i - 1) * width + (j - 1), mask=inside & live, other=1.0).to(tl.float64)
        raw = tl.minimum(tl.maximum(raw, tl.load(source_ptr + 6)), tl.load(source_ptr + 7))
    else:
        inside = (i >= 1) & (i < height - 1) & (j >= 1) & (j < width - 1)
        raw = tl.load(depth_ptr + i * width + j, mask=inside & live, other=1.0).to(tl.float64)
    return tl.where(inside, raw, border)


@triton.jit
def lift(source_ptr, x, y, z):
    """Source-camera X and Y of pixel position (x, y) at depth z, rounded once to float32 (`mesh_rule.lift`)."""
    px = (tl.load(source_ptr) * x + tl.load(source_ptr + 1) * y + tl.load(source_ptr + 2)) * z
    py = (tl.load(source_ptr + 3) * y + tl.load(source_ptr + 4)) * z
    return px.to(tl.float32).to(tl.float64), py.to(tl.float32).to(tl.float64)


@triton.jit
def grid_point(depth_ptr, source_ptr, i, j, height, width, RING: tl.constexpr, live):
    """Source-camera point of grid vertex (i, j)."""
    z = grid_depth(depth_ptr, source_ptr, i, j, height, width, RING, live)
    first = tl.load(source_ptr + 5)
    x, y = lift(source_ptr, first + j.to(tl.float64), first + i.to(tl.float64), z)
    return x, y, z


@triton.jit
def narrow(x0, y0, z0, x1, y1, z1, x2, y2, z2, sin2):
    """`mesh_rule.narrow`: is the smallest angle below the limit."""
    ux, uy, uz = x1 - x0, y1 - y0, z1 - z0
    vx, vy, vz = x2 - x0, y2 - y0, z2 - z0
    a2 = ux * ux + uy * uy + uz * uz
    b2 = vx * vx + vy * vy + vz * vz
    dot = ux * vx + uy * vy + uz * vz
    c2 = a2 + b2 - 2.0 * dot
    return (a2 * b2 - dot * dot) * tl.minimum(tl.minimum(a2, b2), c2) < sin2 * a2 * b2 * c2


@triton.jit
def steep(x0, y0, z0, x1, y1, z1, x2, y2, z2, ratio):
    """`mesh_rule.boundary_ratios(...) > ratio`."""
    width = tl.maximum(tl.maximum(x0, x1), x2) - tl.minimum(tl.minimum(x0, x1), x2)
    height = tl.maximum(tl.maximum(y0, y1), y2) - tl.minimum(tl.minimum(y0, y1), y2)
    extent = tl.maximum(tl.maximum(z0, z1), z2) - tl.minimum(tl.minimum(z0, z1), z2)
    return extent / (tl.maximum(width, height) + 1e-8) > ratio


@triton.jit
def grid_corners(face, grid_h, grid_w):
    """Vertex ids of a face of `mesh_rule.grid_faces`, or of a cap after them."""
    quads = (grid_h - 1) * (grid_w - 1)
    second = face >= quads
    a, b = quad_corners(tl.where(second, face - quads, face), grid_w)
    cap = face - 2 * quads
    last = grid_h * grid_w - 1
    v0 = tl.where(cap == 0, grid_w - 1, tl.where(cap == 1, last, b))
    v1 = tl.where(cap >= 0, 0, tl.where(second, a + 1, a))
    v2 = tl.where(cap == 0, last, tl.where(cap == 1, last - grid_w + 1, tl.where(second, b + 1, a + 1)))
    return v0, v1, v2


@triton.jit
def quad_corners(quad, grid_w):
    """Vertex ids of A and B of a cell; C = A + 1, D = B + 1."""
    a = quad + quad // (grid_w - 1)
    return a, a + grid_w


@triton.jit
def close(depth_ptr, source_ptr, row, col, height, width, z, live):
    """Is pixel (row, col) inside the picture and within a depth jump of z."""
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    other = tl.load(depth_ptr + row * width + col, mask=inside & live, other=1.0).to(tl.float64)
    other = tl.minimum(tl.maximum(other, tl.load(source_ptr + 6)), tl.load(source_ptr + 7))
    return inside & (tl.abs(other - z) <= tl.minimum(other, z) * JUMP)


@triton.jit
def splat_half(depth_ptr, source_ptr, row, col, height, width, z, live):
    """`mesh_rule.splat_half_px`: half side of an unseen pixel's square."""
    supported = row < 0
    for k in tl.static_range(9):
        near = close(depth_ptr, source_ptr, row + (k // 3 - 1), col + (k % 3 - 1), height, width, z, live)
        if k != 4:
            supported = supported | near
    return tl.where(supported, WHOLE, SPECK).to(tl.float64)


@triton.jit
def face_corner(
    depth_ptr, source_ptr, face, K: tl.constexpr, half, z_splat, height, width, RING: tl.constexpr, live,
):  # fmt: skip
    """Source-camera point K (0, 1, 2) of any face: of the grid, of a cap, or of a splat (`half`, `z_splat` describe it)."""
    grid_h = height + 2 if RING else height
    grid_w = width + 2 if RING else width
    first_splat = 2 * (grid_h - 1) * (grid_w - 1) + 2
    v0, v1, v2 = grid_corners(face, grid_h, grid_w)
    vertex = v0 if K == 0 else (v1 if K == 1 else v2)
    i = vertex // grid_w
    j = vertex - i * grid_w
    first = tl.load(source_ptr + 5)
    is_splat = face >= first_splat
    z = grid_depth(depth_ptr, source_ptr, i, j, height, width, RING, live & ~is_splat)
    # Splat corners A, B, C, D are (-, -), (-, +), (+, -), (+, +) in (x, y); its faces are (B, A, C) and (B, C, D).
    pixel = (face - first_splat) >> 1
    second = ((face - first_splat) & 1) == 1
    row = pixel // width
    if K == 0:
        side_x, side_y = tl.where(second, -1.0, -1.0), tl.where(second, 1.0, 1.0)
    elif K == 1:
        side_x, side_y = tl.where(second, 1.0, -1.0), tl.where(second, -1.0, -1.0)
    else:
        side_x, side_y = tl.where(second, 1.0, 1.0), tl.where(second, 1.0, -1.0)
    offset = first + (1.0 if RING else 0.0)  # the picture's own first pixel position
    splat_x = (pixel - row * width).to(tl.float64) + offset + half * side_x
    splat_y = row.to(tl.float64) + offset + half * side_y
    z = tl.where(is_splat, z_splat, z)
    x = tl.where(is_splat, splat_x, first + j.to(tl.float64))
    y = tl.where(is_splat, splat_y, first + i.to(tl.float64))
    point_x, point_y = lift(source_ptr, x, y, z)
    return point_x, point_y, z
