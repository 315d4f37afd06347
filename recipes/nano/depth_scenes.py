"""Render the source videos and exact depth of many training scenes on CPU cores, for the depth network.

    python recipes/nano/depth_scenes.py --out SCENES --workers 28 --minutes 12

One .npz a scene: `color` uint8 [views, time, px, px, 3] and `depth` float16 [views, time, px, px] (metres, +inf where nothing is).
View 0 is the source camera; the others stand elsewhere around the same moment. Held-out scenes (`val_*.npz`, validation seeds,
source camera, whole clip at a stride of 6) are made first. Runs beside the training, which reads new files as they come. A file that is
there already is not made again; a scene that fails is left out.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # one process a core

import argparse  # noqa: E402
import multiprocessing  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

#: First seed of the held-out scenes used while training.
FIRST_HELD_OUT = 100_000


def other_camera(scene, rng: np.random.Generator):
    """A camera elsewhere around the scene, near the families' own distance and height; hand-held. Maps time to cam_from_world."""
    from ex4d.geometry.frames import invert_rigid, look_at

    d = scene.pivot_depth
    yaw = rng.uniform(0, 2 * np.pi)
    out = d * rng.uniform(0.85, 1.1)
    middle = np.array([0.0, 0.0, d, 1.0])
    world_from_scene = scene.cam_from_scene(0.0)
    middle = (invert_rigid(world_from_scene) @ middle)[:3]
    eye = middle + [np.sin(yaw) * out, -rng.uniform(0.0, 0.6), np.cos(yaw) * out]
    target = middle + rng.normal(0, [0.3, 0.15, 0.3])
    drift, sway = rng.normal(0, 0.2, 3) * rng.integers(0, 2), rng.normal(0, 0.006, 3)
    n = max(scene.num_frames - 1, 1)

    def camera(at: float) -> np.ndarray:
        move = drift * at / n + sway * np.sin(0.3 * at)
        return look_at(eye + move, target + 0.5 * move) @ invert_rigid(world_from_scene)

    return camera


def make_scene_file(seed: int, out: Path, px: int, frames: int, views: int) -> None:
    """Render one scene and store it."""
    from make_pairs import store

    from ex4d.render.make import get_rasterizer
    from ex4d.scenes.scene import FAMILIES, TRAIN_SEEDS, make_scene

    held_out = seed not in TRAIN_SEEDS
    rng = np.random.default_rng((20261122, 11, seed))
    scene = make_scene(seed, FAMILIES[seed % len(FAMILIES)])
    rasterizer = get_rasterizer("cpu")
    if held_out:
        times = [np.arange(0, scene.num_frames, 6)]
        cameras = [scene.source_camera]
    else:
        cameras = [scene.source_camera] + [other_camera(scene, rng) for _ in range(views - 1)]
        times = []
        for _ in cameras:
            stride = int(min(rng.integers(1, 10), (scene.num_frames - 1) // max(frames - 1, 1)))
            times.append(rng.integers(0, scene.num_frames - (frames - 1) * stride) + stride * np.arange(frames))
    K, size = scene.intrinsics((px, px)), (px, px)
    color, depth = [], []
    for camera, at in zip(cameras, times, strict=True):
        shots = [scene.render(float(t), camera(float(t)), K, size, rasterizer) for t in at]
        color.append(np.stack([s.color for s in shots]))
        depth.append(np.stack([s.depth for s in shots]))
    z = np.stack(depth)
    z = np.where(np.isfinite(z), np.minimum(z, 6e4), np.inf).astype(np.float16)
    name = f"{'val_' if held_out else ''}{seed:06d}.npz"
    store(out / name, {"color": np.stack(color), "depth": z})


def _work(job: tuple) -> str:
    try:
        make_scene_file(*job)
        return ""
    except Exception as error:  # one scene must not end the build
        return f"{job[0]} FAILED {type(error).__name__}: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="20000:99000", help="FIRST:LAST, training seeds, the last one not included")
    parser.add_argument("--held-out", type=int, default=48, help="held-out scenes, made first")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--held-out-px", type=int, default=256)
    parser.add_argument("--frames", type=int, default=3, help="as many as train_depth.py takes")
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no scene after this")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = [
        (seed, args.out, args.held_out_px, args.frames, 1)
        for seed in range(FIRST_HELD_OUT, FIRST_HELD_OUT + args.held_out)
        if not (args.out / f"val_{seed:06d}.npz").exists()
    ]
    first, last = (int(x) for x in args.seeds.split(":"))
    jobs += [
        (seed, args.out, args.px, args.frames, args.views)
        for seed in range(first, last)
        if not (args.out / f"{seed:06d}.npz").exists()
    ]
    begin, done, failed = time.time(), 0, 0
    (args.out / "warm").mkdir(exist_ok=True)
    make_scene_file(0, args.out / "warm", 64, 2, 1)  # compiles the kernels once, before many processes would
    print(f"kernels ready after {time.time() - begin:.0f} s", flush=True)
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for line in pool.imap_unordered(_work, jobs):
            done += 1
            failed += bool(line)
            if (line and failed < 10) or done % 500 == 0 or done in (1, 60):
                print(f"{done} scenes, {failed} failed, {time.time() - begin:.0f} s {line}", flush=True)
            if time.time() - begin > 60 * args.minutes:
                pool.terminate()
                break
    print(f"{done} scenes, {failed} failed, {time.time() - begin:.0f} s", flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
