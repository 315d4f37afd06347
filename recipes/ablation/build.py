"""Data of the ablation: clips of training scenes with every kind of simulated mask, and held-out scenes with their truth.

    python recipes/ablation/build.py train --seeds 0:200 --out runs/ablation/train --workers 16
    python recipes/ablation/build.py test --seeds 100500:100512 --out runs/ablation/test --workers 16

CPU work, one process a scene. A training file holds the source clip (uint8), and masks (packed bits) of every kind, simulated
from its depth as from any video's. A test file holds, for 30, 60 and 90 degrees, the mesh's render, its mask and the true view.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # one process a core

import argparse  # noqa: E402
import time  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402
from multiprocessing import get_context  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

ANGLES_DEG = (30, 60, 90)
KINDS = ("transplanted", "aligned", "tracking", "shapes")


def finite(depth):
    """Sky at 1.5 times the farthest surface."""
    from dataclasses import replace

    far = depth.depth[np.isfinite(depth.depth)].max()
    return replace(depth, depth=np.where(np.isfinite(depth.depth), depth.depth, 1.5 * far).astype(np.float32))


def train_scene(seed: int, px: int, frames: int, variants: int) -> dict[str, np.ndarray]:
    """Source clip and simulated masks of a training seed."""
    from ex4d.render.cpu.rasterizer import CpuRasterizer
    from ex4d.scenes.scene import FAMILIES, TRAIN_SEEDS, make_scene
    from ex4d.train.masks.make import MaskRule, simulate_masks

    if seed not in TRAIN_SEEDS:
        raise SystemExit(f"seed {seed} is not for training")
    rasterizer = CpuRasterizer(1)
    scene = make_scene(seed, FAMILIES[seed % len(FAMILIES)], frames)
    video, depth = scene.source_clip((px, px), frames, rasterizer)
    masks = simulate_masks(video.frames, finite(depth), MaskRule(variants, KINDS), seed, rasterizer=rasterizer)
    return {
        "frames": video.frames,
        "masks": np.packbits(np.stack([m.mask for m in masks]), axis=-1),
        "kinds": np.array([m.kind for m in masks]),
    }


def test_scene(seed: int, px: int, frames: int, variants: int) -> dict[str, np.ndarray]:
    """Render, mask and truth of a validation seed at each angle."""
    from ex4d.conditioning.condition import ConditionRule
    from ex4d.pipeline.config import RenderOptions
    from ex4d.pipeline.line import reconstruct
    from ex4d.render.cpu.rasterizer import CpuRasterizer
    from ex4d.scenes.scene import FAMILIES, TRAIN_SEEDS, make_scene
    from ex4d.train.masks.make import MaskRule, eroded

    if seed in TRAIN_SEEDS:
        raise SystemExit(f"seed {seed} is a training seed")
    assert ConditionRule().erosion_px is None
    rasterizer = CpuRasterizer(1)
    scene = make_scene(seed, FAMILIES[seed % len(FAMILIES)], frames)
    video, depth = scene.source_clip((px, px), frames, rasterizer)
    out = {}
    for angle in ANGLES_DEG:
        path = scene.orbit(angle * (1 if seed % 2 else -1), (px, px), frames)
        render = reconstruct(video, finite(depth), path, RenderOptions(rasterizer="cpu", plate=False))
        mask = render.mask.copy()
        mask[0] = True
        color = render.color.copy()
        color[0] = video.frames[0]
        out[f"color_{angle}"] = color
        out[f"mask_{angle}"] = np.packbits(eroded(mask, MaskRule(), seed), axis=-1)
        out[f"truth_{angle}"] = np.stack(
            [scene.render(t, path.cam_from_world[t], path.K[t], (px, px), rasterizer).color for t in range(frames)]
        )
    return out


def work(job: tuple) -> str:
    which, seed, out, px, frames, variants = job
    begin, path = time.time(), Path(out) / f"{seed:06d}.npz"
    if path.exists():
        return f"{seed} is there"
    try:
        arrays = (train_scene if which == "train" else test_scene)(seed, px, frames, variants)
    except Exception as error:  # one scene must not end the build
        return f"{seed} FAILED {type(error).__name__}: {error}"
    temporary = path.with_name(f".{path.stem}.tmp.npz")
    np.savez(temporary, **arrays)
    os.replace(temporary, path)
    return f"{seed} {time.time() - begin:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("train", "test"))
    parser.add_argument("--seeds", required=True, help="FIRST:LAST, the last one not included")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--variants", type=int, default=2)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = range(*(int(x) for x in args.seeds.split(":")))
    jobs = [(args.which, seed, str(args.out), args.px, args.frames, args.variants) for seed in seeds]
    begin = time.time()
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for done, line in enumerate(pool.map(work, jobs), 1):
            if "FAILED" in line or done % 20 == 0 or done == len(jobs):
                print(f"{done}/{len(jobs)} after {time.time() - begin:.0f} s: {line}", flush=True)


if __name__ == "__main__":
    main()
