"""The embedded depth network on made clips of people, animals and outdoor places (recipes/nano/families), held-out seeds.

    python benchmarks/nano_families.py --out benchmarks/results/nano_families.md

Needs the folder that recipes/nano/families_assets.py makes. One scale and one shift of 1/z for the whole clip; pixels without a mesh (sky,
photographs) take no part in the fit. Beside the network: a vertical ramp, and one flat depth.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from nano_depth import Case, estimate, weights_folder

from ex4d.depth.estimators.nano import load_nano
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.evaluate.metrics.depth import fitted, ramp, score

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes" / "nano"))

from families import HELD_OUT, make_clip
from families.draw import Drawn, draw

FAMILIES = ("people", "animals", "outdoors")

#: A jump of depth between neighbours of different things by more than this share is an edge; found within so many px.
EDGE, EDGE_PX = 0.1, 2

#: Objects with fewer pixels in the clip are not measured on their own.
LEAST_PX = 300


class Row(NamedTuple):
    """abs_rel and delta1 of all meshes; object_range: mean over the clip's objects of the median |z - true| / true inside the mask;
    edge_recall: share of true edges with a jump of the estimate within EDGE_PX."""

    abs_rel: float
    delta1: float
    object_range: float
    edge_recall: float


def true_edges(depth: np.ndarray, object_id: np.ndarray) -> np.ndarray:
    """bool [T, H, W]: pixels before a jump to something else of known or infinite depth."""
    out = np.zeros(depth.shape, bool)
    for axis in (1, 2):
        a, b = (np.moveaxis(depth, axis, 0)[s] for s in (slice(None, -1), slice(1, None)))
        i, j = (np.moveaxis(object_id, axis, 0)[s] for s in (slice(None, -1), slice(1, None)))
        with np.errstate(invalid="ignore"):
            jump = (i != j) & ((a > (1 + EDGE) * b) | (b > (1 + EDGE) * a))
        view = np.moveaxis(out, axis, 0)
        view[:-1] |= jump & np.isfinite(a)
        view[1:] |= jump & np.isfinite(b)
    return out


def edge_recall(z: np.ndarray, edges: np.ndarray) -> float:
    """Share of true edge pixels that have a jump of z (greatest over least of 3x3 px) no more than EDGE_PX away."""
    found = total = 0
    side = 2 * (EDGE_PX - 1) + 1
    for t in range(len(z)):
        frame = z[t].astype(np.float32)
        jump = cv2.dilate(frame, np.ones((3, 3))) > (1 + EDGE) * cv2.erode(frame, np.ones((3, 3)))
        near = cv2.dilate(jump.astype(np.uint8), np.ones((side, side))) > 0
        found, total = found + int((near & edges[t]).sum()), total + int(edges[t].sum())
    return found / total if total else float("nan")


def measure(depth: np.ndarray, drawn: Drawn, edges: np.ndarray) -> Row:
    """Fit, then all numbers."""
    valid = np.isfinite(drawn.depth)
    try:
        z = fitted(depth, drawn.depth, valid)
    except ValueError:  # it runs the wrong way, or says one depth everywhere
        z = np.full(depth.shape, float(np.median(drawn.depth[valid])))
    within = []
    for k in np.unique(drawn.object_id[drawn.object_id > 0]):
        mask = drawn.object_id == k
        if mask.sum() >= LEAST_PX:
            within.append(float(np.median(np.abs(z[mask] - drawn.depth[mask]) / drawn.depth[mask])))
    found = score(z, drawn.depth, valid)
    return Row(found.abs_rel, found.delta1, float(np.mean(within)) if within else float("nan"), edge_recall(z, edges))


def table(rows: list[dict], names: tuple[str, ...]) -> list[str]:
    """Markdown: a row for each family and estimate."""
    lines = [
        "| family | clips | estimate | AbsRel | delta1 | range error within one object | edges within 2 px, recall |"
    ]
    lines.append("| --- " * 7 + "|")
    for family in (*FAMILIES, "all"):
        chosen = [row for row in rows if family in (row["family"], "all")]
        for name in names:
            values = [np.nanmean([row[name][key] for row in chosen]) for key in Row._fields]
            lines.append(f"| {family} | {len(chosen)} | {name} | " + " | ".join(f"{v:.3f}" for v in values) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="folder of unpublished weights; default the package's")
    parser.add_argument("--first-seed", type=int, default=HELD_OUT.start)
    parser.add_argument("--each", type=int, default=15, help="clips of a family")
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--out", type=Path, help="Markdown file; JSON goes beside it")
    args = parser.parse_args()
    rows: list[dict] = []
    names = ("nano", "ramp", "one depth")
    with tempfile.TemporaryDirectory() as place:
        folder = weights_folder(args.weights, Path(place))
        network = load_nano(choose_intrinsics((args.px, args.px)), folder=folder).network
        for seed in range(args.first_seed, args.first_seed + args.each):
            for family in FAMILIES:
                clip = make_clip(family, seed, frames=args.frames, size_hw=(args.px, args.px))
                drawn = draw(clip)
                case = Case(f"{family} {seed}", drawn.color, drawn.depth, clip.K, clip.cam_from_world)
                edges = true_edges(drawn.depth, drawn.object_id)
                told = {"nano": estimate(network, case)[0], "ramp": ramp(drawn.depth.shape)}
                told["one depth"] = np.ones(drawn.depth.shape)
                rows.append({"family": family, "seed": seed})
                rows[-1] |= {name: measure(depth, drawn, edges)._asdict() for name, depth in told.items()}
                if args.out:  # what is done is kept
                    args.out.with_suffix(".json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
                print(family, seed, {k: round(v, 3) for k, v in rows[-1]["nano"].items()}, flush=True)
    head = [
        "# The embedded depth network on made clips", "",
        f"`python benchmarks/nano_families.py`: {args.frames} frames of {args.px} px, held-out seeds from {args.first_seed}. One scale and "
        "shift of 1/z for each whole clip.", "",
    ]  # fmt: skip
    text = "\n".join([*head, *table(rows, names), ""])
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
