"""G2: the reference preset builds the released mesh: exact faces and colours, angles within 0.05 degree."""

import numpy as np
import pytest

from ex4d.mesh.rule import DepthRange, MeshRule, boundary_ratios, grid_depth, hidden_faces, min_angles_deg
from ex4d.mesh.watertight import build_mesh


def items(arrays):
    return sorted(key.removesuffix("_depth_in") for key in arrays if key.endswith("_depth_in"))


def each_item(load_golden):
    arrays = load_golden("mesh.npz")
    names = items(arrays)
    print(f"mesh.npz: {len(names)} items checked: {', '.join(names)}")
    assert names, "no item in mesh.npz"
    for name in names:
        prefix = f"{name}_"
        yield name, {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def reference_mesh(item, **options):
    depth = item["depth_in"]
    return build_mesh(depth, item["rgb_in"], item["K"], MeshRule.reference(**options), DepthRange.of(depth))


def test_border_vertices_and_faces(load_golden):
    for name, item in each_item(load_golden):
        mesh = reference_mesh(item)
        grid = grid_depth(item["depth_in"], MeshRule.reference(), DepthRange.of(item["depth_in"]))
        np.testing.assert_array_equal(grid, item["depth_border"], err_msg=name)
        np.testing.assert_array_equal(mesh.faces, item["faces"], err_msg=name)
        np.testing.assert_allclose(mesh.vertices, item["vertices"], rtol=1e-6, atol=1e-6, err_msg=name)


def test_min_angles_within_a_twentieth_of_a_degree(load_golden):
    for name, item in each_item(load_golden):
        angles = min_angles_deg(item["vertices"][item["faces"]])
        np.testing.assert_allclose(angles, item["min_angles"], rtol=0, atol=0.05, err_msg=name)


def test_angle_filter_colours_and_faces(load_golden):
    for name, item in each_item(load_golden):
        mesh = reference_mesh(item)
        np.testing.assert_array_equal(mesh.visible, item["valid_angle"], err_msg=name)
        np.testing.assert_array_equal(mesh.color, item["colors_angle"], err_msg=name)


def test_boundary_filter_colours_and_faces(load_golden):
    for name, item in each_item(load_golden):
        mesh = reference_mesh(item, filter="boundary")
        ratios = boundary_ratios(item["vertices"][item["faces"]])
        np.testing.assert_allclose(ratios, item["boundary_ratio"], rtol=1e-3, atol=1e-3, err_msg=name)
        np.testing.assert_array_equal(~mesh.visible, item["invalid_boundary"], err_msg=name)
        np.testing.assert_array_equal(mesh.color, item["colors_boundary"], err_msg=name)


def test_without_the_watertight_mesh_hidden_faces_are_dropped_and_colours_kept(load_golden):
    for name, item in each_item(load_golden):
        mesh = reference_mesh(item, keep_hidden=False)
        np.testing.assert_array_equal(mesh.faces, item["faces"][item["valid_angle"]], err_msg=name)
        assert (mesh.color[:, 3] == 255).all(), name
        np.testing.assert_array_equal(mesh.color[:, :3], item["rgb_in"].reshape(-1, 3), err_msg=name)


@pytest.mark.parametrize("angle_deg", [2.0, 3.0])
def test_another_threshold_would_be_noticed(load_golden, angle_deg):
    changed = 0
    for _, item in each_item(load_golden):
        rule = MeshRule(pixel_offset=0.0, ring=False, border_depth=100.0, angle_deg=angle_deg, per_vertex=True)
        hidden = hidden_faces(item["vertices"][item["faces"]], item["K"], rule)
        changed += int((hidden != ~item["valid_angle"]).sum())
    assert changed > 0
