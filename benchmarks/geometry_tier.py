"""The geometry tier: four representations against rendered truth, no model needed.

    python benchmarks/geometry_tier.py [--seeds 1000000 ...] [--size 256] [--out benchmarks/results/geometry_tier.md]

The same as `ex4d evaluate geometry`, which also writes the JSON and HTML reports.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ex4d.evaluate.rendered import geometry
from ex4d.scenes.scene import VERSION


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(geometry.SEEDS))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--machine", default="two-core x86-64 CPU")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    start = time.perf_counter()
    rows = geometry.run_tier(
        args.seeds, size=args.size, progress=lambda i, n, what: print(f"{i}/{n} {what}", file=sys.stderr)
    )
    minutes = (time.perf_counter() - start) / 60
    families = ", ".join(f"{s}: {geometry.family_of(s)}" for s in args.seeds)
    text = (
        f"# Geometry tier\n\n{len(args.seeds)} scenes (version {VERSION}; {families}), 5 moments each, {args.size}x{args.size}; "
        f"means over scenes with 95 % bootstrap intervals (n = {len(args.seeds)}). {args.machine}, {minutes:.1f} minutes.\n\n"
        + geometry.tier_table(rows)
    )
    print(text)
    if args.out:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
