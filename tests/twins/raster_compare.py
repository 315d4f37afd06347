"""The bar that every rasteriser is held to: same faces away from edges, same attributes and depth on them."""

import numpy as np

from ex4d.render.base import NEAR, Fragments
from ex4d.types import WatertightMesh

#: Pixels whose centre is at least this far from every edge of the face in front are compared.
EDGE_PX = 1e-3


def far_from_edges(face_id: np.ndarray, mesh: WatertightMesh, cam_from_world: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pixels [h, w] whose centre is more than `EDGE_PX` inside the face in front, or that have none.

    Distances are taken on the screen from homogeneous edges, so that faces through the near plane have them too.
    """
    h, w = face_id.shape
    px_from_world = K.astype(np.float64) @ cam_from_world[:3]
    points = mesh.vertices.astype(np.float64) @ px_from_world[:, :3].T + px_from_world[:, 3]
    corners = points[mesh.faces[np.maximum(face_id, 0)]]
    y, x = np.mgrid[:h, :w] + 0.5
    ray = np.stack([x, y, np.ones_like(x)], -1)
    clear = np.ones((h, w), bool)
    for k in range(3):
        line = np.cross(corners[..., k, :], corners[..., (k + 1) % 3, :])
        length = np.linalg.norm(line[..., :2], axis=-1)
        clear &= np.abs((ray * line).sum(-1)) > EDGE_PX * length
    return clear | (face_id < 0)


def assert_agree(
    fast: Fragments, slow: Fragments, mesh: WatertightMesh, cam_from_world: np.ndarray, K: np.ndarray
) -> None:
    """Same face id on 99.9 % of the pixels clear of edges; attributes within 1e-4 of 0..1 and depth within 1e-5 there."""
    clear = far_from_edges(slow.face_id, mesh, cam_from_world, K) & far_from_edges(
        fast.face_id, mesh, cam_from_world, K
    )
    same = fast.face_id == slow.face_id
    assert clear.mean() > 0.5
    assert same[clear].mean() >= 0.999, f"{(~same & clear).sum()} of {clear.sum()} pixels have another face"
    at = same & clear
    worst = np.abs(fast.color - slow.color)[at].max(initial=0) / 255
    assert worst <= 1e-4, f"attributes differ by {worst:.2g}"
    depth = slow.depth[at]
    assert (depth[np.isfinite(depth)] >= NEAR * (1 - 1e-6)).all()
    np.testing.assert_allclose(fast.depth[at], depth, rtol=1e-5)
