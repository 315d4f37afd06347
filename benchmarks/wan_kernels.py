"""Milliseconds and GB/s of each fused kernel at the 14B model's size: `python benchmarks/wan_kernels.py --out DIR` (needs a GPU).

`--tiny` runs the same calls in Triton's interpreter (TRITON_INTERPRET=1) to see that they work.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import wan_common as common
from wan_common import Scene

# isort: split
import torch
from torch.nn import functional as F

#: (queries, keys) of one step of the cross-attention's program.
CROSS_TILES = ((128, 64), (64, 64), (128, 32))
PROMPT_TOKENS = (30, 126, 511)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    from ex4d.models.wan.fast import fused
    from ex4d.models.wan.fast.float8 import FP8

    scene = Scene(args.tiny)
    device, n, ffn = scene.device, scene.dim, scene.config["ffn_dim"]
    heads = scene.config["num_attention_heads"]
    _, _, t, h, w = scene.latent_shape
    tokens = t * h * w // 4
    record: dict[str, dict[str, float]] = {}

    def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    def measure(name: str, bytes_a_token: float, run) -> None:
        ms = common.milliseconds(run, 10, device, warmup=3)
        record[name] = {"ms": ms, "gb_s": bytes_a_token * tokens / ms / 1e6}
        print(f"{name:44s} {ms:8.3f} ms {record[name]['gb_s']:8.0f} GB/s", flush=True)

    residual = random(1, tokens, n, dtype=torch.float32)
    update, wide = random(1, tokens, n), random(1, tokens, ffn)
    gate, factor, shift = (random(1, 1, n, dtype=torch.float32) for _ in range(3))
    q, k, v, weight = random(1, tokens, n), random(1, tokens, n), random(1, tokens, n), random(n)
    cos, sin = (random(1, tokens, 1, n // heads, dtype=torch.float32) for _ in range(2))
    for name, dtype, size in (("fp8", FP8, 1), ("bf16", torch.bfloat16, 2)):
        measure(
            f"norm 1, {name}",
            (4 + size) * n,
            lambda d=dtype: fused.residual_norm(residual, None, None, factor, shift, 1e-6, d),
        )
        measure(
            f"gate, add, norm 2, {name}",
            (10 + size) * n,
            lambda d=dtype: fused.residual_norm(residual, update, gate, factor, shift, 1e-6, d),
        )
    measure("quantise", 3 * n, lambda: fused.quantise(update, False))
    measure("GELU and quantise", 3 * ffn, lambda: fused.quantise(wide, True))
    measure("norm and rotate q, k", 8 * n, lambda: fused.norm_rotate(q, k, weight, weight, cos, sin, heads, 1e-6))
    measure(
        "norm, rotate, pack q, k, v for 2 GPUs",
        12 * n,
        lambda: fused.norm_rotate_pack(q, k, v, weight, weight, cos, sin, heads, 1e-6, 2),
    )
    measure("norm of the cross-attention's q", 4 * n, lambda: fused.rms_norm(q, weight, 1e-6))

    image_k, image_v, text_v = random(1, 257, n), random(1, 257, n), random(1, 512, n)
    text_k = text_v
    for words in PROMPT_TOKENS:
        text_k = random(1, 512, n)
        text_k[:, words:] = text_k[:, -1:]
        text_v[:, words:] = text_v[:, -1:]
        distinct = fused.distinct_rows(text_k)
        for rows, keys in CROSS_TILES:
            fused.QUERY_ROWS, fused.KEY_ROWS = rows, keys
            measure(
                f"cross-attention, {words} words, tile {rows}x{keys}",
                4 * n,
                lambda kk=text_k, d=distinct: fused.cross_attention(q, image_k, image_v, kk, text_v, d, heads),
            )
    by_head = [x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, image_k, image_v, text_k, text_v)]

    def two_attentions() -> torch.Tensor:
        q_, ik, iv, tk, tv = by_head
        return F.scaled_dot_product_attention(q_, ik, iv) + F.scaled_dot_product_attention(q_, tk, tv)

    measure("two attentions of torch and their sum", 4 * n, two_attentions)
    common.save_json(args.out / "wan_kernels.json", {"machine": common.machine(), "kernels": record})
    return 0


if __name__ == "__main__":
    sys.exit(main())
