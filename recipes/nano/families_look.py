"""Contact sheets of made clips: first, middle and last frame and depth.

python recipes/nano/families_look.py --family floating --seeds 0:12 --out sheet.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from families import FAMILIES, make_clip
from families.draw import Drawn, draw


def depth_picture(depth: np.ndarray) -> np.ndarray:
    """Near is bright, infinite is black, uint8 [H, W, 3]."""
    inverse = np.where(np.isfinite(depth), 1 / np.maximum(depth, 1e-3), 0)
    found = inverse[inverse > 0]
    top = np.percentile(found, 99) if found.size else 1.0
    return cv2.applyColorMap((np.clip(inverse / top, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


def strip(drawn: Drawn, shots: int = 2) -> np.ndarray:
    """Some frames and the first one's depth beside one another."""
    at = np.linspace(0, len(drawn.color) - 1, shots).round().astype(int)
    return np.concatenate([*drawn.color[at], depth_picture(drawn.depth[at[0]])], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", default=list(FAMILIES))
    parser.add_argument("--seeds", default="0:12", help="FIRST:LAST, the last one not included")
    parser.add_argument("--px", type=int, default=160)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    first, last = (int(x) for x in args.seeds.split(":"))
    strips, spent = [], 0.0
    for family in args.family:
        for seed in range(first, last):
            begin = time.process_time()
            clip = make_clip(family, seed, frames=args.frames, size_hw=(args.px, args.px))
            spent += time.process_time() - begin
            picture = strip(draw(clip)).copy()
            cv2.putText(picture, f"{family} {seed}", (3, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 0), 1)
            strips.append(picture)
    print(f"{spent / len(strips):.3f} core seconds a clip without drawing")
    while len(strips) % args.columns:
        strips.append(np.zeros_like(strips[0]))
    rows = [np.concatenate(strips[k : k + args.columns], 1) for k in range(0, len(strips), args.columns)]
    cv2.imwrite(str(args.out), np.concatenate(rows)[..., ::-1])


if __name__ == "__main__":
    main()
