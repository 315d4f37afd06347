"""The raster law in plain torch, in float64: slow, short, and the meaning of "correct".

`ReferenceRasterizer` follows the law to the letter and is the twin of the fast backends. `rasterize` is its differentiable
sister: which face is in front is decided without gradients (a choice has none), then colour and depth are recomputed from that
face's unsnapped vertices, differentiable with respect to vertices, colours and camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from ex4d.render.base import NEAR, SUBPIXEL, Fragments
from ex4d.types import WatertightMesh

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


@dataclass(frozen=True)
class TorchFragments:
    """`render.base.Fragments` as tensors; `color` and `depth` carry gradients."""

    face_id: Int[Tensor, "height width"]
    color: Float[Tensor, "height width channels"]
    depth: Float[Tensor, "height width"]


class ReferenceRasterizer:
    """Draws meshes by the raster law of `render.base`, one triangle after another."""

    name = "reference"

    def draw(
        self,
        mesh: WatertightMesh,
        cam_from_world: Float[np.ndarray, "4 4"],
        K: Float[np.ndarray, "3 3"],
        size_hw: tuple[int, int],
    ) -> Fragments:
        """The nearest surface of every pixel."""
        import torch

        vertices, faces = torch.from_numpy(mesh.vertices).double(), torch.from_numpy(mesh.faces).long()
        camera, intrinsics = (torch.from_numpy(np.asarray(m, np.float64)) for m in (cam_from_world, K))
        homogeneous = to_homogeneous(vertices, camera, intrinsics)
        front = _front_faces(homogeneous, faces, torch.from_numpy(mesh.visible), size_hw)
        hit = front.face_id >= 0
        colors = torch.from_numpy(mesh.color).double()[faces[front.face_id.clamp(min=0)]]
        color = torch.where(hit[..., None], (front.weights[..., None] * colors).sum(-2), 0)
        depth = torch.where(hit, 1 / front.inverse_z.double(), float("inf"))
        return Fragments(front.face_id.int().numpy(), color.float().numpy(), depth.float().numpy())


@dataclass(frozen=True)
class Front:
    """What is in front of every pixel: face (-1: nothing), float32 1/z, and perspective-correct weights of its vertices."""

    face_id: Int[Tensor, "height width"]
    inverse_z: Float[Tensor, "height width"]
    weights: Float[Tensor, "height width 3"]


def to_homogeneous(
    points: Float[Tensor, "V 3"], cam_from_world: Float[Tensor, "4 4"], K: Float[Tensor, "3 3"]
) -> Float[Tensor, "V 3"]:
    """(x z, y z, z) of world points: pixels times depth, and depth."""
    px_from_world = K @ cam_from_world[:3]
    return points @ px_from_world[:, :3].mT + px_from_world[:, 3]


def rasterize(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    color: Float[Tensor, "V channels"],
    visible: Bool[Tensor, " F"],
    cam_from_world: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    size_hw: tuple[int, int],
) -> TorchFragments:
    """Draw differentiably; float64 in, float64 out. Colours differ from `ReferenceRasterizer`'s by what snapping moves."""
    import torch

    homogeneous = to_homogeneous(vertices, cam_from_world, K)
    with torch.no_grad():
        face_id = _front_faces(homogeneous.detach(), faces, visible, size_hw).face_id
    hit = face_id >= 0
    rows, cols = torch.nonzero(hit, as_tuple=True)
    rays = torch.stack([cols + 0.5, rows + 0.5, torch.ones_like(rows)], -1).to(homogeneous)
    weights, inverse_z = face_weights(homogeneous[faces[face_id[hit]]], rays)
    out_color = color.new_zeros((*size_hw, color.shape[1]))
    out_depth = homogeneous.new_full(size_hw, float("inf"))
    out_color = out_color.index_put((rows, cols), (weights[..., None] * color[faces[face_id[hit]]]).sum(1))
    out_depth = out_depth.index_put((rows, cols), 1 / inverse_z)
    return TorchFragments(face_id, out_color, out_depth)


def face_weights(
    corners: Float[Tensor, "n 3 3"], rays: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Perspective-correct weights of a face's corners (x z, y z, z) at pixels (x, y, 1), and 1/z there.

    The point is the sum of weights times corners and lies on the ray, so the weights are proportional to the triple products
    of the ray with pairs of corners; this holds for corners behind the camera too. A ray that misses by a fraction of the
    subpixel grid is moved onto the face.
    """
    import torch

    products = [(rays * torch.linalg.cross(corners[:, k - 2], corners[:, k - 1])).sum(-1) for k in range(3)]
    weights = torch.stack(products, -1)
    total = weights.sum(-1, keepdim=True)
    weights = torch.where(total != 0, weights / torch.where(total != 0, total, 1), 1 / 3).clamp(0, 1)
    weights = weights / weights.sum(-1, keepdim=True)
    return weights, 1 / (weights * corners[..., 2]).sum(-1).clamp(min=NEAR)


def _front_faces(
    homogeneous: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], visible: Bool[Tensor, " F"], size_hw: tuple[int, int]
) -> Front:
    """Laws 2 to 6, without gradients."""
    import torch

    best = torch.zeros(size_hw, dtype=torch.float32)
    face_id = torch.full(size_hw, -1)
    seen = torch.zeros(size_hw, dtype=torch.bool)
    weights = torch.zeros((*size_hw, 3), dtype=torch.float64)
    for f, corners in enumerate(homogeneous[faces]):
        for piece, piece_weights in clip_near(corners):
            covered = _cover(piece, size_hw)
            if covered is None:
                continue
            at, inside, inverse_z, inner = covered
            first = (face_id[at] < 0) | (visible[f] & ~seen[at]) | ((visible[f] == seen[at]) & (f < face_id[at]))
            wins = inside & ((inverse_z > best[at]) | ((inverse_z == best[at]) & first))
            best[at] = torch.where(wins, inverse_z, best[at])
            seen[at] = torch.where(wins, visible[f], seen[at])
            face_id[at] = torch.where(wins, f, face_id[at])
            weights[at] = torch.where(wins[..., None], inner @ piece_weights, weights[at])
    return Front(face_id, best, weights)


def clip_near(corners: Float[Tensor, "3 3"]) -> list[tuple[Float[Tensor, "3 3"], Float[Tensor, "3 3"]]]:
    """Pieces of a face (corners x z, y z, z) behind the near plane, with the weights of each corner in the whole face.

    A fan of at most two; every crossing is computed from the inside corner to the outside one.
    """
    import torch

    whole = torch.eye(3, dtype=corners.dtype)
    inside = corners[:, 2] >= NEAR
    polygon = []
    for k in range(3):
        j = (k + 1) % 3
        if inside[k]:
            polygon.append((corners[k], whole[k]))
        if inside[k] != inside[j]:
            a, b = (k, j) if inside[k] else (j, k)
            t = (corners[a, 2] - NEAR) / (corners[a, 2] - corners[b, 2])
            cut = corners[a] + t * (corners[b] - corners[a])
            cut[2] = NEAR
            polygon.append((cut, whole[a] + t * (whole[b] - whole[a])))
    fan = [(polygon[0], polygon[k], polygon[k + 1]) for k in range(1, len(polygon) - 1)]
    return [(torch.stack([c for c, _ in piece]), torch.stack([w for _, w in piece])) for piece in fan]


def _cover(piece: Float[Tensor, "3 3"], size_hw: tuple[int, int]):
    """Where a triangle is drawn: (slices of its box, inside, float32 1/z, weights of its corners); None for nowhere."""
    import torch

    q = 1 / piece[:, 2]
    xy = torch.floor(piece[:, :2] * q[:, None] * SUBPIXEL + 0.5) / SUBPIXEL
    low = torch.ceil(xy.amin(0) - 0.5).clamp(min=0)
    high = torch.minimum(torch.floor(xy.amax(0) - 0.5), xy.new_tensor([size_hw[1] - 1, size_hw[0] - 1]))
    area = _cross(xy[1] - xy[0], xy[2] - xy[0])
    if bool((low > high).any()) or area == 0:
        return None
    (left, top), (right, bottom) = low.long().tolist(), high.long().tolist()
    y, x = torch.meshgrid(torch.arange(top, bottom + 1) + 0.5, torch.arange(left, right + 1) + 0.5, indexing="ij")
    to_corner = xy[:, None, None] - torch.stack([x, y], -1).double()
    edges = [_cross(to_corner[k - 2], to_corner[k - 1]) * area.sign() for k in range(3)]
    inside = (edges[0] >= 0) & (edges[1] >= 0) & (edges[2] >= 0)
    b1, b2 = edges[1] / area.abs(), edges[2] / area.abs()
    b = torch.stack([(1 - b1 - b2).clamp(min=0), b1, b2], -1)
    inverse_z = b[..., 0] * q[0] + b[..., 1] * q[1] + b[..., 2] * q[2]
    weights = b * q / torch.where(inside, inverse_z, 1)[..., None]
    return (slice(top, bottom + 1), slice(left, right + 1)), inside, inverse_z.float(), weights


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
