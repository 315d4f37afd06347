"""The GPU rasteriser against the torch reference and the CPU, on small cases: in Triton's interpreter where there is no GPU."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.errors import InputError, ResourceError
from ex4d.geometry.frames import look_at
from ex4d.geometry.pinhole import focal_px, intrinsics
from ex4d.mesh import rule as mesh_rule
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.mesh.watertight import build_mesh
from ex4d.render.base import resolve_frame
from ex4d.render.clip import pool
from ex4d.render.cuda import rasterizer as cuda
from ex4d.render.plain import ReferenceRasterizer
from ex4d.types import WatertightMesh
from twins import raster_meshes
from twins.raster_compare import assert_agree, far_from_edges
from twins.raster_meshes import mesh_of

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(not cuda.available()[0], reason="Triton cannot run here")

if cuda.available()[0]:
    from ex4d.render.cuda.job import Tuning
    from ex4d.render.cuda.launch import Launcher
    from twins import triton_probes

#: Small: the interpreter takes about 20 microseconds an operation.
SIZE_HW, SOURCE_HW = (10, 13), (7, 8)
K = intrinsics(SIZE_HW, 11.0)

#: Few large programs: the interpreter pays for every operation, not for every lane.
WIDE = dict(block=256, queue_block=128, vertex_block=256, splat_block=128, pixel_block=1024, programs=2)

FRONT = look_at(np.array([1.0, -0.4, 0.5]), np.array([0.0, 0.0, 4.0]))
INSIDE = look_at(np.array([0.3, 0.1, 4.2]), np.array([0.0, 0.0, 9.0]))  # triangles cross the near plane
GRAZING = look_at(np.array([3.0, 0.0, 4.0]), np.array([0.0, 0.0, 4.0]))
RULES = [MeshRule(), MeshRule.reference(), MeshRule.reference(filter="boundary", keep_hidden=False)]


def depth_map(kind: str, seed: int) -> np.ndarray:
    return raster_meshes.depth_map(kind, seed, SOURCE_HW)


def picture(seed: int, size_hw: tuple[int, int] = SOURCE_HW) -> np.ndarray:
    return raster_meshes.picture(seed, size_hw)


def rasterizer(**tuning) -> cuda.CudaRasterizer:
    return cuda.CudaRasterizer(tuning=Tuning(**{**WIDE, "middle": 4000, **tuning}))


def grid(rasterizer, depth, color, camera, rule, *, out_K=K, size_hw=SIZE_HW, source_K=None, clip=None, **options):
    """render_grid of [T, h, w] arrays, as NumPy arrays."""
    source_K = intrinsics(SOURCE_HW, 8.0) if source_K is None else source_K
    clip = DepthRange.of(depth) if clip is None else clip
    device = rasterizer.device
    color = None if color is None else torch.from_numpy(color).to(device)
    out = rasterizer.render_grid(
        torch.from_numpy(depth).to(device), color, source_K, camera, out_K, size_hw, rule=rule, clip=clip, **options
    )
    return {k: v.cpu().numpy() for k, v in vars(out).items() if v is not None}


@pytest.mark.parametrize(
    "kind, camera", [("soup", FRONT), ("soup", INSIDE), ("bumps", GRAZING)], ids=["soup", "near plane", "grazing"]
)
def test_general_meshes_equal_the_reference(kind, camera):
    mesh = mesh_of(kind, 5)
    slow = ReferenceRasterizer().draw(mesh, camera, K, SIZE_HW)
    fast = rasterizer().draw(mesh, camera, K, SIZE_HW)
    assert len(np.unique(slow.face_id)) >= 5
    assert_agree(fast, slow, mesh, camera, K)


@pytest.mark.parametrize("rule", RULES, ids=["default", "reference", "boundary"])
@pytest.mark.parametrize("kind, camera", [("steps", FRONT), ("soup", INSIDE)], ids=["front", "inside"])
def test_depth_maps_equal_the_built_mesh(kind, camera, rule):
    depth, color = depth_map(kind, 8), picture(8)
    source_K, clip = intrinsics(SOURCE_HW, 8.0), DepthRange.of(depth)
    mesh = build_mesh(depth, color, source_K, rule, clip)
    slow = ReferenceRasterizer().draw(mesh, camera, K, SIZE_HW)
    seen = resolve_frame(slow, mesh.visible, rule)
    fast = grid(rasterizer(), depth[None], color[None], camera, rule, want_faces=True)
    clear = far_from_edges(slow.face_id, mesh, camera, K)
    assert (fast["face_id"][0] == slow.face_id)[clear].mean() >= 0.999
    same = (fast["face_id"][0] == slow.face_id) & clear
    np.testing.assert_array_equal(fast["mask"][0][same], seen.mask[same])
    assert np.abs(fast["color"][0].astype(int) - seen.color)[same].max(initial=0) <= 1  # 1e-4 may straddle a half
    np.testing.assert_allclose(fast["depth"][0][same], seen.depth[same], rtol=1e-5)


def test_identity_returns_the_input():
    depth, color = depth_map("soup", 2), picture(2)
    source_K = intrinsics(SOURCE_HW, 8.0)
    out = grid(rasterizer(), depth[None], color[None], np.eye(4), MeshRule(), out_K=source_K, size_hw=depth.shape)
    assert out["mask"].all()
    np.testing.assert_array_equal(out["color"][0], color)


def extreme_mesh() -> WatertightMesh:
    """A full-screen wall, a wall in front of half of it, a triangle of one pixel, a sliver, one far outside, one of no area."""
    triangles = [
        [[-900, -900, 9], [900, -900, 9], [0, 1800, 9]],
        [[0, -900, 8], [900, -900, 8], [0, 1800, 8]],
        [[0.5, 0.5, 6], [0.9, 0.5, 6], [0.5, 0.9, 6]],
        [[-3, -3, 5], [3, 3, 5], [3, 3.01, 5]],
        [[5e6, 0, 4], [6e6, 0, 4], [5e6, 1e6, 4]],
        [[1, 1, 3], [1, 1, 3], [2, 1, 3]],
        [[-40, 2, -30], [40, 2, -30], [0, 2, 60]],
    ]
    vertices = np.array(triangles, np.float32).reshape(-1, 3)
    color = np.random.default_rng(0).integers(0, 256, (len(vertices), 4)).astype(np.float32)
    faces = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    return WatertightMesh(vertices, faces, color, np.arange(len(faces)) % 2 == 0)


@pytest.mark.parametrize("fov_deg", [20.0, 89.0 * 2])
def test_huge_and_tiny_triangles(fov_deg):
    """One-pixel, full-screen and out-of-range triangles, also through a lens that sees 89 degrees either way."""
    mesh = extreme_mesh()
    lens = intrinsics(SIZE_HW, focal_px(SIZE_HW[1], np.deg2rad(fov_deg)))
    slow = ReferenceRasterizer().draw(mesh, np.eye(4), lens, SIZE_HW)
    fast = rasterizer(middle=24).draw(mesh, np.eye(4), lens, SIZE_HW)
    assert len(np.unique(slow.face_id)) >= 3
    assert_agree(fast, slow, mesh, np.eye(4), lens)


def test_results_do_not_depend_on_tuning():
    """Whether a face is drawn at once, by one lane or in strips, and in which groups frames come, changes no byte."""
    depth = np.stack([depth_map("steps", s) for s in (1, 2)])
    color = np.stack([picture(s) for s in (1, 2)])
    cameras = np.stack([FRONT, INSIDE])
    tunings = [dict(), dict(tiny=0, middle=8, segment=4, workspace_bytes=1), dict(queue_floor=1)]
    results = []
    for tuning in tunings:
        renderer = rasterizer(**tuning)
        if "queue_floor" in tuning:
            renderer._launcher(renderer.device)._shares = [0.0, 0.0, 0.0]  # every queue overflows at first
        results.append(grid(renderer, depth, color, cameras, MeshRule(), want_faces=True))
    for other, tuning in zip(results[1:], tunings[1:], strict=True):
        for name, value in results[0].items():
            np.testing.assert_array_equal(value, other[name], err_msg=f"{name} with {tuning}")


def test_overflowing_queues_are_seen(monkeypatch):
    """The test above fails where overflow goes unnoticed."""
    depth, color = depth_map("steps", 1)[None], picture(1)[None]
    whole = grid(rasterizer(), depth, color, FRONT, MeshRule())
    monkeypatch.setattr(Launcher, "_fits", lambda self, full: True)
    renderer = rasterizer(queue_floor=1, tiny=0)
    renderer._launcher(renderer.device)._shares = [0.0, 0.0, 0.0]
    assert not np.array_equal(whole["mask"], grid(renderer, depth, color, FRONT, MeshRule())["mask"])


def test_supersampling_pools_like_the_cpu_and_every_frame_has_its_lens():
    depth = np.stack([depth_map("steps", s) for s in (3, 4)])
    color = np.stack([picture(s) for s in (3, 4)])
    rule, source_K, clip = MeshRule(), intrinsics(SOURCE_HW, 8.0), DepthRange.of(depth)
    lenses = np.stack([intrinsics((5, 7), f) for f in (4.0, 6.0)])
    renderer = rasterizer()
    fast = grid(renderer, depth, color, FRONT, rule, out_K=lenses, size_hw=(5, 7), supersample=2)
    scale = np.array([[2], [2], [1]], np.float32)
    for t in range(2):
        fine = renderer.draw_depth(depth[t], color[t], source_K, rule, clip, FRONT, lenses[t] * scale, (10, 14))
        expected = dict(zip(("color", "mask", "depth", "coverage"), pool(fine, 2), strict=True))
        for name, value in expected.items():
            np.testing.assert_array_equal(fast[name][t], value, err_msg=name)
    assert 0 < ((fast["coverage"] > 0) & (fast["coverage"] < 255)).sum()


@pytest.mark.parametrize("rule", RULES[:2], ids=["default", "reference"])
def test_masks_without_colour_equal_those_with_it(rule):
    depth, color = depth_map("steps", 6)[None], picture(6)[None]
    renderer = rasterizer()
    full = grid(renderer, depth, color, FRONT, rule)
    masks = cuda.visibility_masks(
        torch.from_numpy(depth).to(renderer.device), intrinsics(SOURCE_HW, 8.0), FRONT, K, SIZE_HW,
        rule=rule, clip=DepthRange.of(depth), rasterizer=renderer,
    )  # fmt: skip
    np.testing.assert_array_equal(masks.cpu().numpy(), full["mask"])
    assert 0 < full["mask"].mean() < 1


def test_face_rules_equal_those_of_the_mesh():
    """The occlusion predicates restated for the GPU, on random and on nearly degenerate faces, near the limit too."""
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(4000, 3, 3)).astype(np.float32)
    corners[1000:, 2] = corners[1000:, 1] + 0.06 * corners[1000:, 2]
    corners[2000:, :, 2] *= 3
    corners[-1] = corners[-1, 0]
    angle = 5.0
    for name, limit, expected in (
        ("narrow", np.sin(np.radians(angle)) ** 2, mesh_rule.narrow(corners, angle)),
        ("steep", 2.0, mesh_rule.boundary_ratios(corners) > 2.0),
    ):
        got = triton_probes.face_rule(corners, limit, name, rasterizer().device)
        assert 0.05 < expected.mean() < 0.95
        np.testing.assert_array_equal(got, expected, err_msg=name)


def test_one_line_where_it_cannot_run(monkeypatch):
    monkeypatch.setattr(cuda, "available", lambda: (False, "no CUDA device"))
    with pytest.raises(ResourceError, match="no CUDA device; need a CUDA GPU and Triton; try: --rasterizer cpu"):
        cuda.CudaRasterizer()


def test_bad_sizes_are_refused():
    renderer = rasterizer()
    with pytest.raises(InputError, match="a picture of 0x20"):
        renderer.draw(mesh_of("soup", 1), FRONT, K, (20, 0))
    with pytest.raises(InputError, match="colour .* for depth"):
        grid(renderer, depth_map("bumps", 1)[None], picture(1, (7, 9))[None], FRONT, MeshRule())


def test_an_empty_mesh_shows_nothing():
    mesh = mesh_of("soup", 1)
    mesh = WatertightMesh(mesh.vertices, mesh.faces[:0], mesh.color, mesh.visible[:0])
    out = rasterizer().draw(mesh, FRONT, K, SIZE_HW)
    assert (out.face_id == -1).all() and np.isinf(out.depth).all() and not out.color.any()


def constant_first(sources: list[str]) -> list[str]:
    """Operations in which a file-level tl.constexpr stands left of what is not a constant."""
    trees = [ast.parse(source) for source in sources]
    constants = {
        node.targets[0].id
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and ast.unparse(node.value).startswith("tl.constexpr(")
    }

    def fixed(node: ast.expr) -> bool:
        if isinstance(node, ast.BinOp):
            return fixed(node.left) and fixed(node.right)
        return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id in constants)

    found = []
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.BinOp):
            pair = (node.left, node.right)
        elif isinstance(node, ast.Compare):
            pair = (node.left, node.comparators[0])
        else:
            continue
        if isinstance(pair[0], ast.Name) and pair[0].id in constants and not fixed(pair[1]):
            found.append(ast.unparse(node))
    return found


def test_a_constant_stands_right_of_a_tensor():
    """Triton 3.7's interpreter makes a constant of `CONSTANT * tensor`, and then takes it for no tensor."""
    assert constant_first(["JUMP = tl.constexpr(0.1)\n\ndef f(x):\n    return x <= JUMP * x"]) == ["JUMP * x"]
    sources = [path.read_text() for path in Path(cuda.__file__).parent.rglob("*.py")]
    assert any("tl.constexpr(" in source for source in sources)
    assert constant_first(sources) == []
