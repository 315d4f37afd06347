"""The mesh law: seen from its own camera a mesh shows its input bit for bit; and what must stay hidden stays hidden."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ex4d.errors import InputError
from ex4d.geometry.pinhole import intrinsics
from ex4d.mesh.rule import DepthRange, MeshRule, min_angles_deg, narrow
from ex4d.mesh.watertight import build_mesh
from ex4d.render.base import resolve_frame
from ex4d.render.cpu.rasterizer import CpuRasterizer

DRAWN = CpuRasterizer(1, identity_law=False)
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
any_depth = sizes.flatmap(
    lambda size: hnp.arrays(
        np.float32,
        size,
        elements=st.one_of(
            st.floats(2.0**-126, 2.0**127, width=32),
            st.floats(0.5, 20, width=32),
            st.sampled_from([1.0, 1.03, 2.0, 1e4]),
        ),
        fill=st.sampled_from([1.0, 3.0, 100.0]).map(np.float32),
    )
)


def picture(size_hw, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


@settings(max_examples=150, deadline=None)
@given(any_depth, st.floats(2, 5000), st.floats(-0.5, 1.5), st.floats(-0.5, 1.5))
def test_identity_render_returns_the_input_bit_for_bit(depth, focal, cx, cy):
    color = picture(depth.shape)
    K = intrinsics(depth.shape, focal)
    K[0, 2], K[1, 2] = cx * depth.shape[1], cy * depth.shape[0]
    rule, clip = MeshRule(), DepthRange.of(depth)
    mesh = build_mesh(depth, color, K, rule, clip)
    built = resolve_frame(DRAWN.draw(mesh, np.eye(4), K, depth.shape), mesh.visible, rule)
    fused = DRAWN.draw_depth(depth, color, K, rule, clip, np.eye(4), K, depth.shape)
    by_law = CpuRasterizer(1).draw_depth(depth, color, K, rule, clip, np.eye(4), K, depth.shape)
    for frame in (built, fused, by_law):
        assert frame.mask.all()
        np.testing.assert_array_equal(frame.color, color)
        np.testing.assert_array_equal(frame.depth, built.depth)


def test_identity_holds_at_4096_pixels_with_noise():
    size = (3, 4096)  # float32 points and the subpixel grid meet their limit here
    depth = np.exp(np.random.default_rng(0).normal(size=size)).astype(np.float32)
    color, K = picture(size), intrinsics(size, 3000.0)
    frame = DRAWN.draw_depth(depth, color, K, MeshRule(), DepthRange.of(depth), np.eye(4), K, size)
    assert frame.mask.all()
    np.testing.assert_array_equal(frame.color, color)


def open_edges(faces):
    """For every undirected edge of a mesh whether only one face has it."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    return np.unique(edges, axis=0, return_counts=True)[1] == 1


@settings(max_examples=50, deadline=None)
@given(any_depth)
def test_the_grid_and_its_caps_enclose_the_view(depth):
    """Every edge of the grid belongs to two faces but the outermost, which the cap's outline covers, at one depth."""
    clip = DepthRange.of(depth)
    mesh = build_mesh(depth, picture(depth.shape), intrinsics(depth.shape, 30.0), MeshRule(), clip)
    h, w = depth.shape[0] + 2, depth.shape[1] + 2
    grid = mesh.faces[: 2 * (h - 1) * (w - 1)]
    assert open_edges(grid).sum() == 2 * (h - 1) + 2 * (w - 1)
    caps = mesh.vertices[h * w : h * w + 4]
    corners = mesh.vertices[[0, w - 1, (h - 1) * w, h * w - 1]]
    np.testing.assert_array_equal(caps, corners)
    assert (mesh.vertices[h * w + 4 :, 2] < caps[0, 2]).all()
    assert mesh.vertices[: h * w].reshape(h, w, 3)[1:-1, 1:-1, 2].max() < caps[0, 2]
    assert not mesh.visible[len(grid) : len(grid) + 2].any()
    assert (mesh.color[:, 3] == 255).all()


@given(st.floats(100, 5000))
def test_the_angle_rule_is_one_relative_depth_jump_at_every_focal_length(focal):
    K = intrinsics((100, 100), focal)
    assert MeshRule().min_angle_deg(K) == pytest.approx(2.5 * 500 / focal, rel=1e-6)
    limit = MeshRule().min_angle_deg(K)
    for jump, hidden in ((0.040, False), (0.052, True)):
        z = 7.0 * np.array([1, 1, 1 + jump])
        corners = np.array([[0, z[0] / focal, z[0]], [0, 0, z[1]], [z[2] / focal, 0, z[2]]], np.float32)[None]
        assert narrow(corners, limit)[0] == hidden


@given(hnp.arrays(np.float32, (20, 3, 3), elements=st.floats(-10, 10, width=16)), st.floats(1, 30))
def test_the_fast_angle_test_is_the_angle_test(corners, limit):
    angles = min_angles_deg(corners)
    clear = np.abs(angles - limit) > 1e-3
    edges = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=-1)
    clear &= edges.min(1) > 1e-2
    np.testing.assert_array_equal(narrow(corners, limit)[clear], (angles < limit)[clear])


def step(size_hw=(40, 60), near=2.0, far=6.0, blur=0):
    """A near half and a far half; `blur` columns between them hold mixtures, another one in every row, as sensors give."""
    depth = np.full(size_hw, near, np.float32)
    middle = size_hw[1] // 2
    depth[:, middle:] = far
    mixture = np.random.default_rng(0).uniform(0.1, 0.9, (size_hw[0], blur))
    depth[:, middle : middle + blur] = near + (far - near) * np.sort(mixture, axis=1)
    return depth


@pytest.mark.parametrize("blur", [0, 1, 2, 3])
def test_flying_pixels_do_not_become_rubber_sheets(blur):
    """From the side the gap behind a depth step is not seen, however many mixed pixels stand in it."""
    depth = step(blur=blur)
    size = depth.shape
    K = intrinsics(size, 60.0)
    camera = np.eye(4)
    camera[0, 3] = -1.0  # the camera moves right and looks behind the near half
    frame = DRAWN.draw_depth(depth, picture(size), K, MeshRule(), DepthRange.of(depth), camera, K, size)
    inside = (frame.depth > 2.0 * 1.05) & (frame.depth < 6.0 / 1.05)
    assert inside.sum() > 100  # the curtain is there
    assert frame.mask[inside].mean() < 0.1  # a sheet would show nearly all of it; lone specks remain
    assert frame.mask[np.abs(frame.depth - 6) < 0.01].mean() > 0.9


def test_a_wire_of_one_pixel_is_seen_from_the_side_and_leaves_no_sheet():
    depth = np.full((40, 60), 6.0, np.float32)
    depth[:, 30] = 2.0
    color = np.zeros((40, 60, 3), np.uint8)
    color[:, 30] = 255
    K = intrinsics(depth.shape, 60.0)
    camera = np.eye(4)
    camera[0, 3] = -0.3
    frame = DRAWN.draw_depth(depth, color, K, MeshRule(), DepthRange.of(depth), camera, K, depth.shape)
    wire = frame.mask & (np.abs(frame.depth - 2) < 0.01)
    assert (wire.sum(axis=1) == 1).all()
    assert (frame.color[wire] == 255).all()
    between = (frame.depth > 2.1) & (frame.depth < 5.7)
    assert between.any() and not frame.mask[between].any()


def test_nothing_beyond_the_ring_is_lost():
    """Depths of 10,000, which the release hides behind its cap at 100, are seen from aside."""
    depth = step(near=3.0, far=1e4)
    K = intrinsics(depth.shape, 60.0)
    camera = np.eye(4)
    camera[0, 3] = 0.05
    frames = [
        DRAWN.draw_depth(depth, picture(depth.shape), K, rule, DepthRange.of(depth), camera, K, depth.shape)
        for rule in (MeshRule(), MeshRule.reference())
    ]
    assert (frames[0].mask & (frames[0].depth > 1000)).mean() > 0.4
    assert not (frames[1].mask & (frames[1].depth > 1000)).any()


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_bad_depth_is_an_input_error(value):
    depth = np.full((4, 5), 2.0, np.float32)
    depth[1, 2] = value
    with pytest.raises(InputError, match="finite depth > 0"):
        build_mesh(depth, picture((4, 5)), intrinsics((4, 5), 5.0), MeshRule(), DepthRange(1, 2))
