"""Does every metric move the right way? Planted faults on a rendered clip, one row each.

    python benchmarks/planted_faults.py [--out benchmarks/results/planted_faults.md]

The clip is the true target of a rendered scene. `!` marks a number that got worse than on the truth itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from ex4d.evaluate.metrics.camera import camera_error
from ex4d.evaluate.metrics.distribution import frechet_distance
from ex4d.evaluate.metrics.features import RandomFeatures
from ex4d.evaluate.metrics.masks import mask_score
from ex4d.evaluate.protocols.score import Pair, Tools, score_pair
from ex4d.evaluate.rendered.references import true_view
from ex4d.geometry.frames import rigid
from ex4d.render.base import DepthRasterizer
from ex4d.render.make import get_rasterizer
from ex4d.scenes.scene import make_scene

SIZE, FRAMES, SEED = (192, 192), 16, 100_003
PICTURE = ("psnr", "psnr_seen", "psnr_hole", "ssim", "ms_ssim", "gmsd", "flicker", "excess_flicker", "warp_error")
MORE_IS_BETTER = ("psnr", "psnr_seen", "psnr_hole", "ssim", "ms_ssim", "precision", "recall", "F1", "IoU")


def faults(truth: np.ndarray, seen: np.ndarray) -> dict[str, np.ndarray]:
    """Damaged copies of a clip, uint8 [T, H, W, 3]."""
    rng = np.random.Generator(np.random.PCG64(0))
    even = (np.arange(len(truth)) % 2 == 0)[:, None, None, None]
    holes = np.where(seen[..., None], truth, 128)

    def clipped(x: np.ndarray) -> np.ndarray:
        return np.clip(np.round(x), 0, 255).astype(np.uint8)

    return {
        "none": truth,
        "noise, sd 10": clipped(truth + rng.normal(0, 10, truth.shape)),
        "blur, sd 2 px": np.stack([cv2.GaussianBlur(f, (0, 0), 2) for f in truth]),
        "shift by 2 px": np.roll(truth, 2, axis=2),
        "darker by 10 %": clipped(truth * 0.9),
        "flicker of 10 %": clipped(truth * np.where(even, 1.0, 0.9)),
        "frozen": np.repeat(truth[:1], len(truth), 0),
        "one frame late": np.concatenate([truth[:1], truth[:-1]]),
        "holes left grey": holes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rasterizer = cast(DepthRasterizer, get_rasterizer("auto"))
    scene = make_scene(SEED, "room", FRAMES)
    path = scene.orbit(40, SIZE)
    views = [true_view(scene, t, path, SIZE, rasterizer) for t in range(FRAMES)]
    truth, seen = (np.stack(x) for x in zip(*views, strict=True))
    features = RandomFeatures()
    rows: dict[str, dict[str, float]] = {}
    for name, clip in faults(truth, seen).items():
        scores = score_pair(Pair(clip, truth, seen), ("psnr", "ssim", "ms_ssim", "gmsd", "flicker", "warp"), Tools())
        rows[name] = {k: scores[k] for k in PICTURE}
        rows[name]["FID (untrained)"] = frechet_distance(features.of_frames(clip), features.of_frames(truth))
    text = (
        "# Planted faults\n\n"
        + _table(rows)
        + "\n"
        + _table(_masks(seen))
        + "\n"
        + _table(_cameras(path.cam_from_world))
    )
    print(text)
    if args.out:
        args.out.write_text(text)


def _masks(seen: np.ndarray) -> dict[str, dict[str, float]]:
    kernel = np.ones((5, 5), np.uint8)
    variants = {
        "none": seen,
        "mask grown by 2 px": np.stack([cv2.dilate(m.astype(np.uint8), kernel) > 0 for m in seen]),
        "mask shrunk by 2 px": np.stack([cv2.erode(m.astype(np.uint8), kernel) > 0 for m in seen]),
        "everything claimed": np.ones_like(seen),
        "one frame late": np.concatenate([seen[:1], seen[:-1]]),
    }
    names = {"precision": "precision", "recall": "recall", "f1": "F1", "iou": "IoU"}
    return {k: {label: getattr(mask_score(m, seen), key) for key, label in names.items()} for k, m in variants.items()}


def _cameras(true: np.ndarray) -> dict[str, dict[str, float]]:
    a = np.radians(2.0)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    turned = true.copy()
    turned[1:] = rigid(turn, np.zeros(3)) @ true[1:]
    scaled, late = true.copy(), true.copy()
    scaled[:, :3, 3] *= 1.5
    late[1:] = true[:-1]
    half = true[np.arange(len(true)) // 2]
    rows = {}
    for name, poses in {"none": true, "turned by 2 degrees": turned, "scene 1.5 times as large": scaled, "one frame late": late, "half the turn": half}.items():  # fmt: skip
        errors = {
            f"TransErr ({alignment})": camera_error(poses, true, alignment).trans
            for alignment in ("none", "last", "umeyama")
        }  # type: ignore[arg-type]
        e = camera_error(poses, true)
        rows[name] = {"RotErr": e.rot_deg, "RotErr, pairs": e.rot_pairs_deg, **errors, "CamMC": e.cam_mc}
    return rows


def _table(rows: dict[str, dict[str, float]]) -> str:
    columns = list(rows["none"])
    lines = ["| fault | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, row in rows.items():
        cells = []
        for column in columns:
            best = rows["none"][column]
            change = best - row[column] if column in MORE_IS_BETTER else row[column] - best
            cells.append(f"{row[column]:.4g}{' !' if name != 'none' and change > 1e-6 else ''}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
