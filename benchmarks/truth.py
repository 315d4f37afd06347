"""Is the default mesh better than the released one? Both against rendered truth at 30, 60 and 90 degrees.

    python benchmarks/truth.py [--seeds 1000000 1000001 ...] [--size 256] [--out FILE]

Mask F1 is against true visibility (seen from the source camera at the same time, 1 % of depth); PSNR is of the pixels each
claims to have seen, and of those that both claim. Prints a markdown table; differences carry 95 % bootstrap intervals over scenes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

from ex4d.evaluate.metrics.statistics import paired_difference, summarize
from ex4d.evaluate.rendered import geometry
from ex4d.mesh.rule import MeshRule
from ex4d.render.base import DepthRasterizer
from ex4d.render.make import get_rasterizer

COLUMNS = {
    "f1": "mask F1",
    "psnr_claimed": "PSNR of claimed pixels",
    "psnr_common": "PSNR where both claim",
    "psnr_common_seen": "PSNR where both claim and it was seen",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1_000_000, 1_000_012)))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rasterizer = cast(DepthRasterizer, get_rasterizer("auto"))
    shown = {
        "default": geometry.mesh_with(MeshRule(), rasterizer),
        "reference": geometry.mesh_with(MeshRule.reference(keep_first=False), rasterizer),
    }
    rows = []
    for seed in args.seeds:
        rows += geometry.run_scene(
            seed, geometry.family_of(seed), (30.0, 60.0, 90.0), (args.size, args.size), shown, rasterizer
        )
    lines = [
        f"{len(args.seeds)} scenes (test seeds {min(args.seeds)} to {max(args.seeds)}, families in turn), "
        f"5 moments each, {args.size}x{args.size}.",
        "",
        "| angle | measure | default | reference | difference (95 % interval) | scenes won |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for angle in (30.0, 60.0, 90.0):
        for key, label in COLUMNS.items():
            a, b = (
                [getattr(r, key) for r in rows if r.angle_deg == angle and r.representation == name] for name in shown
            )
            d = paired_difference(a, b)
            won = sum(x > y for x, y in zip(a, b, strict=True))
            form = ".4f" if key == "f1" else ".2f"
            lines.append(
                f"| {angle:g} | {label} | {summarize(a).mean:{form}} | {summarize(b).mean:{form}} "
                f"| {d.mean:+{form}} ({d.low:+{form}} to {d.high:+{form}}) | {won}/{len(a)} |"
            )
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
