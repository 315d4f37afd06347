"""Small kernels that call one device function each, so that tests can compare it with its NumPy original."""

import numpy as np
import torch
import triton
import triton.language as tl

from ex4d.render.cuda.source import narrow, steep


@triton.jit
def face_rule_kernel(corners_ptr, limit_ptr, out_ptr, count, STEEP: tl.constexpr, BLOCK: tl.constexpr):
    face = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = face < count
    at = corners_ptr + face * 9
    x0, y0, z0 = tl.load(at, live), tl.load(at + 1, live), tl.load(at + 2, live)
    x1, y1, z1 = tl.load(at + 3, live), tl.load(at + 4, live), tl.load(at + 5, live)
    x2, y2, z2 = tl.load(at + 6, live), tl.load(at + 7, live), tl.load(at + 8, live)
    if STEEP:
        result = steep(x0, y0, z0, x1, y1, z1, x2, y2, z2, tl.load(limit_ptr))
    else:
        result = narrow(x0, y0, z0, x1, y1, z1, x2, y2, z2, tl.load(limit_ptr))
    tl.store(out_ptr + face, result.to(tl.uint8), live)


def face_rule(corners: np.ndarray, limit: float, name: str, device: torch.device) -> np.ndarray:
    """`narrow` or `steep` of every face of [F, 3, 3]."""
    points = torch.from_numpy(corners.astype(np.float64)).to(device)
    out = torch.empty(len(corners), dtype=torch.uint8, device=device)
    threshold = torch.tensor([limit], dtype=torch.float64, device=device)
    blocks = -(-len(corners) // 1024)
    face_rule_kernel[(blocks,)](
        points, threshold, out, len(corners), STEEP=name == "steep", BLOCK=1024, enable_fp_fusion=False
    )
    return out.cpu().numpy().astype(bool)
