"""G9, the released renders, on the GPU at the bars of the CPU path."""

import numpy as np
import pytest

from ex4d.mesh.rule import MeshRule
from ex4d.render.cuda.rasterizer import CudaRasterizer
from golden.test_render_golden import compare_renders, renders

pytestmark = pytest.mark.gpu


def test_released_renders_on_the_gpu(golden):
    files = renders(golden)
    if not files:
        pytest.skip(f"no renders in {golden}")
    rasterizer, checked = CudaRasterizer(), 0
    for path in files:
        for pose, iou, close in compare_renders(path, MeshRule.reference(keep_first=False), rasterizer):
            print(f"{path.stem} pose {pose}: mask IoU {iou:.5f}, colour within 1 level {close:.5f}")
            assert iou >= 0.998, (path.stem, pose, iou)
            assert close >= (0.98 if "real" in path.stem and pose == 48 else 0.999), (path.stem, pose, close)
            checked += 1
    print(f"renders: {len(files)} files, {checked} frames checked")
    assert checked


def test_renders_change_with_the_fault_that_antialiasing_hides(golden):
    """The comparison notices half a pixel: the default rule on the same frames misses the bars."""
    files = renders(golden)
    if not files:
        pytest.skip(f"no renders in {golden}")
    rows = compare_renders(files[0], MeshRule(keep_first=False), CudaRasterizer())
    assert min(close for _, _, close in rows) < 0.99 or min(iou for _, iou, _ in rows) < 0.998
    assert np.isfinite(rows).all()
