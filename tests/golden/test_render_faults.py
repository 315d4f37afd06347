"""A table of planted faults: for each, the golden or twin check that notices it, run with and without the fault."""

from dataclasses import replace

import numpy as np
import pytest

from ex4d.geometry.pinhole import intrinsics
from ex4d.mesh import watertight
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.mesh.watertight import build_mesh
from ex4d.render import plain as reference
from ex4d.render.cpu.rasterizer import CpuRasterizer
from ex4d.render.plain import ReferenceRasterizer
from ex4d.types import WatertightMesh

OWN_RULE = MeshRule.reference()


def check_released_mesh(arrays, rule):
    """G2: faces and colours exact, vertices within 5e-4."""
    names = sorted(key.removesuffix("_depth_in") for key in arrays if key.endswith("_depth_in"))
    assert names, "no item in mesh.npz"
    for name in names:
        depth = arrays[f"{name}_depth_in"]
        mesh = build_mesh(depth, arrays[f"{name}_rgb_in"], arrays[f"{name}_K"], rule, DepthRange.of(depth))
        np.testing.assert_array_equal(mesh.faces, arrays[f"{name}_faces"])
        np.testing.assert_allclose(mesh.vertices, arrays[f"{name}_vertices"], rtol=0, atol=5e-4)
        np.testing.assert_array_equal(mesh.color, arrays[f"{name}_colors_angle"])


def check_twins(arrays, rule):
    """The numba rasteriser against plain torch on a slanted wall and on a floor that crosses the near plane."""
    vertices = np.array(
        [[-2, 1, -3], [2, 1, -3], [-2, 1, 9], [2, 1, 9], [-1, -1, 1], [3, -1, 8], [-1, 0, 1]], np.float32
    )
    faces = np.array([[0, 1, 2], [1, 3, 2], [4, 5, 6]], np.int32)
    color = np.linspace(0, 255, 28, dtype=np.float32).reshape(7, 4)
    mesh = WatertightMesh(vertices, faces, color, np.ones(3, bool))
    K = intrinsics((24, 32), 16.0)
    fast, slow = (r.draw(mesh, np.eye(4), K, (24, 32)) for r in (CpuRasterizer(1), ReferenceRasterizer()))
    np.testing.assert_array_equal(fast.face_id, slow.face_id)
    np.testing.assert_allclose(fast.color, slow.color, rtol=0, atol=1e-3)


def no_caps(monkeypatch):
    monkeypatch.setattr(watertight, "cap_faces", lambda *corners: np.zeros((0, 3), np.int32))


def affine_interpolation(monkeypatch):
    cover = reference._cover

    def affine(piece, size_hw):
        covered = cover(piece, size_hw)
        if covered is None:
            return None
        at, inside, inverse_z, weights = covered
        screen = weights * piece[:, 2]  # undo the division by z
        return at, inside, inverse_z, screen / screen.sum(-1, keepdim=True)

    monkeypatch.setattr(reference, "_cover", affine)


def crossing_triangles_dropped(monkeypatch):
    clip = reference.clip_near
    monkeypatch.setattr(reference, "clip_near", lambda corners: clip(corners) if corners[:, 2].min() > 1e-3 else [])


#: fault, how it is planted (a rule, or a patch), the check that must notice it
FAULTS = [
    ("no caps", no_caps, check_released_mesh),
    ("half pixel", replace(OWN_RULE, pixel_offset=0.5), check_released_mesh),
    ("border 50", replace(OWN_RULE, border_depth=50.0), check_released_mesh),
    ("threshold 2.0", replace(OWN_RULE, angle_deg=2.0), check_released_mesh),
    ("threshold 3.0", replace(OWN_RULE, angle_deg=3.0), check_released_mesh),
    ("affine interpolation", affine_interpolation, check_twins),
    ("crossing triangles dropped", crossing_triangles_dropped, check_twins),
]


@pytest.mark.parametrize(("fault", "plant", "check"), FAULTS, ids=[fault for fault, _, _ in FAULTS])
def test_planted_fault_is_noticed(fault, plant, check, monkeypatch, request):
    arrays = request.getfixturevalue("load_golden")("mesh.npz") if check is check_released_mesh else None
    check(arrays, OWN_RULE)
    if isinstance(plant, MeshRule):
        rule = plant
    else:
        plant(monkeypatch)
        rule = OWN_RULE
    with pytest.raises(AssertionError):
        check(arrays, rule)
