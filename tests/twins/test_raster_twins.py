"""Twins: the numba rasteriser against plain torch, its fused path against build_mesh + draw, one thread against two."""

import numpy as np
import pytest
from hypothesis import given, settings

from ex4d.geometry.pinhole import intrinsics
from ex4d.mesh.rule import DepthRange
from ex4d.mesh.watertight import build_mesh
from ex4d.render import base
from ex4d.render.base import resolve_frame
from ex4d.render.cpu import kernels
from ex4d.render.cpu.rasterizer import CpuRasterizer
from ex4d.render.plain import ReferenceRasterizer
from twins.raster_meshes import SIZE_HW, K, cameras, depth_map, kinds, mesh_of, picture, rules, seeds

ONE, TWO = CpuRasterizer(1), CpuRasterizer(2)
DRAWN = CpuRasterizer(2, identity_law=False)


def test_kernels_use_the_constants_of_the_law():
    assert (kernels.NEAR, kernels.SUBPIXEL) == (base.NEAR, base.SUBPIXEL)


@settings(max_examples=25, deadline=None)
@given(kinds, seeds, cameras)
def test_numba_equals_torch(kind, seed, camera):
    mesh = mesh_of(kind, seed)
    fast, slow = (rasterizer.draw(mesh, camera, K, SIZE_HW) for rasterizer in (ONE, ReferenceRasterizer()))
    np.testing.assert_array_equal(fast.face_id, slow.face_id)
    np.testing.assert_allclose(fast.depth, slow.depth, rtol=1e-6)
    np.testing.assert_allclose(fast.color, slow.color, rtol=0, atol=1e-3)  # float32 weights: 255 * 2^-23 each


def assert_same(a, b):
    for name in ("face_id", "color", "mask", "depth"):
        if hasattr(a, name):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@settings(max_examples=20, deadline=None)
@given(kinds, seeds, cameras, rules)
def test_fused_path_equals_build_and_draw(kind, seed, camera, rule):
    depth, color = depth_map(kind, seed), picture(seed)
    source_K, clip = intrinsics(depth.shape, 10.0), DepthRange.of(depth)
    mesh = build_mesh(depth, color, source_K, rule, clip)
    built = resolve_frame(ONE.draw(mesh, camera, K, SIZE_HW), mesh.visible, rule)
    assert_same(built, ONE.draw_depth(depth, color, source_K, rule, clip, camera, K, SIZE_HW))
    identity = resolve_frame(ONE.draw(mesh, np.eye(4), source_K, depth.shape), mesh.visible, rule)
    for rasterizer in (DRAWN, TWO):
        assert_same(
            identity, rasterizer.draw_depth(depth, color, source_K, rule, clip, np.eye(4), source_K, depth.shape)
        )


@pytest.mark.parametrize("kind", ["bumps", "steps", "soup"])
def test_same_bytes_with_one_and_two_threads(kind):
    size = (150, 170)  # large enough for several bands a thread
    depth, color = depth_map(kind, 3, size), picture(3, size)
    source_K, clip = intrinsics(size, 120.0), DepthRange.of(depth)
    mesh = build_mesh(depth, color, source_K, base.MeshRule(), clip)
    camera = np.eye(4)
    camera[0, 3] = -0.7
    for _ in range(3):
        assert_same(ONE.draw(mesh, camera, source_K, size), TWO.draw(mesh, camera, source_K, size))
        one, two = (
            r.draw_depth(depth, color, source_K, base.MeshRule(), clip, camera, source_K, size) for r in (ONE, TWO)
        )
        assert_same(one, two)


def test_a_wall_through_the_camera_is_clipped_not_swept():
    """A floor that passes under the camera covers the lower half of the view, and nothing above the horizon."""
    depth = np.full((3, 3), 1.0, np.float32)
    mesh = build_mesh(depth, picture(0, (3, 3)), intrinsics((3, 3), 1.0), base.MeshRule(), DepthRange.of(depth))
    floor = type(mesh)(
        np.array([[-50, 1, -50], [50, 1, -50], [-50, 1, 50], [50, 1, 50]], np.float32),
        np.array([[0, 1, 2], [1, 3, 2]], np.int32),
        np.full((4, 4), 255, np.float32),
        np.ones(2, bool),
    )
    for rasterizer in (ONE, ReferenceRasterizer()):
        out = rasterizer.draw(floor, np.eye(4), K, SIZE_HW)
        rows = np.arange(SIZE_HW[0]) + 0.5 - SIZE_HW[0] / 2
        z = np.where(rows > 0, K[1, 1] / np.maximum(rows, 1e-9), np.inf)  # y = 1 = rows * z / f
        expected = np.where(z <= 50, z, np.inf)
        np.testing.assert_allclose(out.depth, np.tile(expected[:, None], SIZE_HW[1]), rtol=1e-3)
