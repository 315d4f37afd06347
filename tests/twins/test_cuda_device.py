"""The GPU rasteriser at full size on a device: against the CPU rasteriser, the torch reference, and itself."""

import numpy as np
import pytest
import torch

from ex4d.geometry.frames import look_at
from ex4d.geometry.pinhole import focal_px, intrinsics
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.mesh.watertight import build_mesh
from ex4d.render.base import resolve_frame
from ex4d.render.cuda.rasterizer import CudaRasterizer
from ex4d.render.plain import ReferenceRasterizer
from ex4d.types import WatertightMesh
from twins.raster_compare import assert_agree, far_from_edges
from twins.raster_meshes import depth_map, picture

pytestmark = pytest.mark.gpu

RULES = [MeshRule(), MeshRule.reference(), MeshRule.reference(filter="boundary", keep_hidden=False)]
CAMERAS = {
    "60 degrees": look_at(np.array([3.5, -0.4, 2.0]), np.array([0.0, 0.0, 4.0])),
    "inside": look_at(np.array([0.3, 0.1, 4.05]), np.array([0.0, 0.2, 9.0])),
    "grazing": look_at(np.array([4.0, 0.0, 4.0]), np.array([0.0, 0.0, 4.0])),
}


def test_device_code_needs_no_numba():
    import subprocess
    import sys

    code = (
        "import sys, numpy as np, torch; from ex4d.render.cuda.rasterizer import CudaRasterizer, visibility_masks;"
        "from ex4d.mesh.rule import MeshRule, DepthRange;"
        "d = torch.full((1, 8, 8), 3., device='cuda'); K = np.eye(3, dtype=np.float32);"
        "visibility_masks(d, K, np.eye(4), K, (8, 8), rule=MeshRule(), clip=DepthRange(3, 3));"
        "assert 'numba' not in sys.modules and 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS.keys())
@pytest.mark.parametrize("rule", RULES, ids=["default", "reference", "boundary"])
@pytest.mark.parametrize("kind", ["bumps", "steps", "soup"])
def test_depth_maps_equal_the_cpu(kind, rule, camera):
    pytest.importorskip("numba")
    from ex4d.render.cpu.rasterizer import CpuRasterizer

    size = (512, 512) if kind == "steps" else (240, 320)
    depth, color = depth_map(kind, 1, size), picture(1, size)
    K, clip = intrinsics(size, 0.98 * size[1]), DepthRange.of(depth)
    mesh = build_mesh(depth, color, K, rule, clip)
    slow = CpuRasterizer().draw(mesh, camera, K, size)
    seen = resolve_frame(slow, mesh.visible, rule)
    fast = CudaRasterizer().render_grid(
        torch.from_numpy(depth[None]).cuda(), torch.from_numpy(color[None]).cuda(), K, camera, K, size,
        rule=rule, clip=clip, want_faces=True,
    )  # fmt: skip
    assert fast.face_id is not None and fast.color is not None and fast.depth is not None
    ids = fast.face_id[0].cpu().numpy()
    clear = far_from_edges(slow.face_id, mesh, camera, K)
    same = clear & (ids == slow.face_id)
    print(f"{kind}: {clear.mean():.4f} of pixels clear of edges, {same.sum() / clear.sum():.6f} of them the same face")
    assert same.sum() >= 0.999 * clear.sum() > 0
    assert (fast.mask[0].cpu().numpy() == seen.mask)[same].mean() >= 0.9999
    levels = np.abs(fast.color[0].cpu().numpy().astype(int) - seen.color).max(-1)[same]
    assert (levels <= 1).mean() >= 0.9999 and (levels == 0).mean() >= 0.999
    np.testing.assert_allclose(fast.depth[0].cpu().numpy()[same], seen.depth[same], rtol=1e-5)


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS.keys())
def test_general_meshes_equal_the_cpu(camera):
    pytest.importorskip("numba")
    from ex4d.render.cpu.rasterizer import CpuRasterizer

    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20000, 1, 3)) * [2, 2, 2] + [0, 0, 5]
    sizes = np.exp(rng.uniform(-7, 1.5, (20000, 1, 1)))  # from far below a pixel to the whole screen
    vertices = (centers + sizes * rng.normal(size=(20000, 3, 3))).astype(np.float32).reshape(-1, 3)
    faces = np.arange(60000, dtype=np.int32).reshape(-1, 3)
    color = rng.integers(0, 256, (60000, 4)).astype(np.float32)
    mesh = WatertightMesh(vertices, faces, color, rng.random(20000) < 0.5)
    size = (480, 640)
    for fov_deg in (60, 178):
        K = intrinsics(size, focal_px(size[1], np.deg2rad(fov_deg)))
        slow, fast = (r.draw(mesh, camera, K, size) for r in (CpuRasterizer(), CudaRasterizer()))
        assert_agree(fast, slow, mesh, camera, K)


def test_depth_maps_equal_the_torch_reference():
    size = (72, 96)
    depth, color = depth_map("steps", 4, size), picture(4, size)
    K, clip, camera = intrinsics(size, 90.0), DepthRange.of(depth), CAMERAS["60 degrees"]
    mesh = build_mesh(depth, color, K, MeshRule(), clip)
    assert_agree(
        CudaRasterizer().draw(mesh, camera, K, size), ReferenceRasterizer().draw(mesh, camera, K, size), mesh, camera, K
    )


def test_same_bytes_every_run_and_the_input_at_the_identity():
    size, frames = (512, 512), 8
    depth = np.stack([depth_map("steps", s, size) for s in range(frames)])
    color = np.stack([picture(s, size) for s in range(frames)])
    K, clip = intrinsics(size, 500.0), DepthRange.of(depth)
    device_depth, device_color = torch.from_numpy(depth).cuda(), torch.from_numpy(color).cuda()
    draw = CudaRasterizer().render_grid

    def render(camera, **options):
        return draw(device_depth, device_color, K, camera, K, size, rule=MeshRule(), clip=clip, **options)

    first = render(CAMERAS["grazing"], supersample=2)
    for _ in range(5):
        again = render(CAMERAS["grazing"], supersample=2)
        for name, value in vars(first).items():
            assert value is None or torch.equal(value, getattr(again, name)), name
    identity = render(np.eye(4))
    assert identity.color is not None and identity.mask.all()
    np.testing.assert_array_equal(identity.color.cpu().numpy(), color)
