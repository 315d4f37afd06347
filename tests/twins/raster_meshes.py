"""Meshes and cameras that rasterisers must agree on: bumps, near-plane crossings, grazing angles, soups."""

import numpy as np
from hypothesis import strategies as st

from ex4d.geometry.frames import look_at
from ex4d.geometry.pinhole import intrinsics
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.mesh.watertight import build_mesh
from ex4d.types import WatertightMesh

SIZE_HW = (20, 26)
K = intrinsics(SIZE_HW, 22.0)

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["soup", "bumps", "steps"])
rules = st.sampled_from([MeshRule(), MeshRule.reference(), MeshRule.reference(filter="boundary")])
#: ordinary views, views from inside the scene (near-plane crossings) and views along the surface (grazing angles)
eyes = st.tuples(
    st.floats(-3, 3), st.floats(-2, 2), st.one_of(st.floats(-3, 1), st.floats(2, 6), st.just(4.0), st.just(0.0))
)
cameras = st.builds(lambda eye: look_at(np.array(eye), np.array([0.0, 0.0, 4.0 if eye[2] < 3.9 else 9.0])), eyes)


def depth_map(kind: str, seed: int, size_hw: tuple[int, int] = (9, 11)) -> np.ndarray:
    """A depth map around 4: smooth, or with steps and lone pixels, or pure noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    depth = 4 + 0.3 * np.sin(x * rng.uniform(0.3, 1) + y * rng.uniform(0.3, 1))
    if kind == "steps":
        depth = depth + 2.0 * ((x // 3 + y // 4) % 2)
        depth[rng.integers(0, size_hw[0]), rng.integers(0, size_hw[1])] *= 0.5
    if kind == "soup":
        depth = np.exp(rng.normal(1, 1, size_hw))
    return depth.astype(np.float32)


def picture(seed: int, size_hw: tuple[int, int] = (9, 11)) -> np.ndarray:
    """Random colours."""
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def mesh_of(kind: str, seed: int) -> WatertightMesh:
    """A triangle soup around the camera's view (slivers, duplicates and shared depths included), or a depth map's mesh."""
    if kind != "soup":
        depth = depth_map(kind, seed)
        return build_mesh(depth, picture(seed), intrinsics(depth.shape, 10.0), MeshRule(), DepthRange.of(depth))
    rng = np.random.default_rng(seed)
    vertices = (rng.normal(size=(40, 3)) * [2, 2, 2] + [0, 0, 4]).astype(np.float32)
    vertices[:8] = np.round(vertices[:8])  # corners on round positions: ties and edges through pixel centres
    faces = rng.integers(0, 40, (60, 3)).astype(np.int32)
    faces[-10:] = faces[:10]  # the same triangles again: the lowest visible id must win
    color = rng.integers(0, 256, (40, 4)).astype(np.float32)
    return WatertightMesh(vertices, faces, color, rng.random(60) < 0.5)
