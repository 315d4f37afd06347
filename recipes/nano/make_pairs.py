"""Build training pairs for the embedded model on CPU cores: rendered scenes seen from a second camera, with the truth.

    python recipes/nano/make_pairs.py --seeds 0:1000 --out PAIRS --workers 16

One .npz a scene, uint8 [time, height, width, 3] unless said: `color` the source video, `depth` float16 its exact depth (metres),
`target` the true second view, `filled` the classical fill of the mesh's render along the same path, `mask` what was seen (packed
bits); every other scene also has `filled_source`: the source video under the same mask, filled. With --clips, windows of real
clips take masks of scenes instead: `target` the window, `filled` its fill, `mask`. A file that is there already is not made again.
Only training seeds of the scenes are allowed.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # one process a core

import argparse  # noqa: E402
import multiprocessing  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

#: Yaw of the second camera at the end, degrees; both ways. Pitch and dolly are drawn too.
MAX_YAW_DEG, MAX_PITCH_DEG, MAX_DOLLY = 90.0, 20.0, 0.25


def make_pair(seed: int, out: Path, px: int, frames: int) -> float:
    """Render, reconstruct, fill and store one scene; returns the share of seen pixels."""
    from ex4d.cameras.place import place_path
    from ex4d.pipeline.config import RenderOptions
    from ex4d.pipeline.line import generate, reconstruct
    from ex4d.scenes.scene import FAMILIES, TRAIN_SEEDS, make_scene

    if seed not in TRAIN_SEEDS:
        raise SystemExit(f"seed {seed} is not for training; need {TRAIN_SEEDS}")
    rng = np.random.default_rng((20261122, seed))
    scene = make_scene(seed, FAMILIES[seed % len(FAMILIES)])
    video, depth = scene.source_clip((px, px), frames)
    far = np.nanmax(np.where(np.isfinite(depth.depth), depth.depth, np.nan))
    z = np.where(np.isfinite(depth.depth), depth.depth, 1.5 * far).astype(np.float32)
    depth = type(depth)(z, depth.K, depth.unit, depth.cam_from_world)
    yaw = rng.choice([-1, 1]) * rng.uniform(5, MAX_YAW_DEG)
    pitch, dolly = rng.uniform(-3, MAX_PITCH_DEG), rng.uniform(-MAX_DOLLY, MAX_DOLLY)
    path = scene.orbit(float(yaw), (px, px), frames)
    if rng.random() < 0.5:
        from ex4d.cameras.make import make_path

        words = f"orbit:yaw={yaw:.2f},pitch={pitch:.2f}" + (f" + dolly:in={dolly:.3f}" if rng.random() < 0.3 else "")
        first = type(depth)(depth.depth[:1], depth.K[:1], depth.unit)
        path = place_path(
            make_path(words, first=first, num_frames=frames, fps=video.fps), depth.cam_from_world, "source"
        )
    render = reconstruct(video, depth, path, RenderOptions(rasterizer="cpu"))
    filled = generate(render, "fill").frames
    target = np.stack([scene.render(t, path.cam_from_world[t], path.K[t], (px, px)).color for t in range(frames)])
    mask = render.mask
    arrays = {"color": video.frames, "depth": np.minimum(z, 6e4).astype(np.float16), "target": target, "filled": filled}
    arrays["mask"] = np.packbits(mask, axis=-1)
    if seed % 2 == 0:
        arrays["filled_source"] = fill_under(video.frames, mask)
    store(out / f"{seed:06d}.npz", arrays)
    return float(mask.mean())


def store(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write beside and rename: readers watch the folder."""
    temporary = path.with_name(f".{path.stem}.tmp.npz")
    np.savez(temporary, **arrays)
    temporary.rename(path)


def fill_under(frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The classical fill of a video under a simulated mask, as a camera that stands still would see it."""
    from fractions import Fraction

    from ex4d.pipeline.line import generate
    from ex4d.types import CameraPath, RenderClip, VideoClip

    n, h, w = mask.shape
    K = np.array([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1]], np.float32)
    path = CameraPath(np.tile(np.eye(4), (n, 1, 1)), np.tile(K, (n, 1, 1)), (h, w), np.arange(n, dtype=np.float64))
    color = frames * mask[..., None]
    video = VideoClip(frames, Fraction(30))
    render = RenderClip(color, mask, np.ones(mask.shape, np.float32), path, video, Fraction(30))
    return generate(render, "fill").frames


def make_real(number: int, clips: Path, pairs: Path, out: Path, px: int, frames: int) -> float:
    """One window of one real clip under the mask of a random scene."""
    from clips import read_clips

    rng = np.random.default_rng((20261122, 7, number))
    shots = _SHOTS or _SHOTS.extend(s for s in read_clips(clips, "cpu") if len(s.frames) >= frames) or _SHOTS
    shot = shots[rng.integers(len(shots))]
    n, _, h, w = shot.frames.shape
    stride = int(min(rng.integers(1, 4), (n - 1) // (frames - 1)))
    start = rng.integers(0, n - (frames - 1) * stride)
    side = int(rng.integers(min(px * 3 // 4, h, w), min(h, w) + 1))
    y, x = rng.integers(0, h - side + 1), rng.integers(0, w - side + 1)
    import cv2

    window = shot.frames[start : start + (frames - 1) * stride + 1 : stride, :, y : y + side, x : x + side].numpy()
    window = np.stack([cv2.resize(f.transpose(1, 2, 0), (px, px), interpolation=cv2.INTER_AREA) for f in window])
    window = window[:, :, ::-1] if rng.random() < 0.5 else window
    names = sorted(pairs.glob("[0-9]*.npz"))
    with np.load(names[rng.integers(len(names))]) as data:
        mask = np.unpackbits(data["mask"], axis=-1).astype(bool)[:frames]
    window = np.ascontiguousarray(window)
    store(
        out / f"r{number:06d}.npz",
        {"target": window, "filled": fill_under(window, mask), "mask": np.packbits(mask, -1)},
    )
    return float(mask.mean())


_SHOTS: list = []


def _work(job: tuple) -> str:
    begin = time.time()
    try:
        seen = make_pair(*job) if len(job) == 4 else make_real(*job)
        return f"{job[0]} seen {seen:.2f} {time.time() - begin:.1f} s"
    except Exception as error:  # one scene must not end the build
        traceback.print_exc()
        return f"{job[0]} FAILED {type(error).__name__}: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:200", help="FIRST:LAST, the last one not included")
    parser.add_argument("--clips", type=Path, help="folder of real clips; --seeds then numbers their windows")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no scene after this")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    numbers = range(*(int(x) for x in args.seeds.split(":")))
    if args.clips:
        jobs = [(n, args.clips, args.out, args.out, args.px, args.frames) for n in numbers]
        jobs = [job for job in jobs if not (args.out / f"r{job[0]:06d}.npz").exists()]
    else:
        jobs = [(n, args.out, args.px, args.frames) for n in numbers if not (args.out / f"{n:06d}.npz").exists()]
        (args.out / "warm").mkdir(exist_ok=True)
        make_pair(numbers[0], args.out / "warm", 64, 5)  # compiles the kernels once, before many processes would
    begin, done = time.time(), 0
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for line in pool.imap_unordered(_work, jobs):
            done += 1
            if "FAILED" in line or done % 20 == 0:
                print(f"{done}/{len(jobs)} after {time.time() - begin:.0f} s: {line}", flush=True)
            if time.time() - begin > 60 * args.minutes:
                pool.terminate()
                break


if __name__ == "__main__":
    main()
