"""Simulated masks: how fast, how true, and how like real ones?

    python benchmarks/masks.py --out benchmarks/results/masks      (about two minutes on two cores; --rasterizer cuda on a GPU)

Speed: masks of a 49-frame clip at 256 px a minute, per kind. Truth: aligned masks against rays cast through whole validation
scenes at 30, 60 and 90 degrees, slivers under 2 px ignored (bar: 0.9). Likeness: each kind beside real renders of the same scenes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from ex4d.render.make import get_rasterizer
from ex4d.scenes.scene import FAMILIES, make_scene
from ex4d.train.masks.make import MaskRule, simulate_masks
from ex4d.train.masks.rendering import rendering_mask
from ex4d.train.masks.truth import overlap_without_slivers, truly_seen
from ex4d.train.prepare.mask_statistics import plot, save_strip, simulate_and_render, statistics, table
from ex4d.types import CameraPath, DepthClip

BAR = 0.9


def finite(depth: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(depth), depth, 1.5 * depth[np.isfinite(depth)].max()).astype(np.float32)


def truth(families: tuple[str, ...], seeds: range, size: tuple[int, int], rasterizer) -> str:
    """Table of the overlap with cast rays."""
    lines = ["| family | 30 deg | 60 deg | 90 deg |", "| --- | --- | --- | --- |"]
    everything: dict[int, list[float]] = {30: [], 60: [], 90: []}
    for family in families:
        mine: dict[int, list[float]] = {a: [] for a in everything}
        for seed in seeds:
            scene = make_scene(seed, family, 5)
            k, source, mesh = scene.intrinsics(size), scene.source_camera(2), scene.mesh(2)
            depth = finite(rasterizer.draw(mesh, source, k, size).depth)
            clip = DepthClip(
                np.repeat(depth[None], 2, 0), np.repeat(k[None], 2, 0), "metric", np.repeat(source[None], 2, 0)
            )
            for angle in mine:
                new = scene.orbit(angle, size, 2).cam_from_world[1]
                path = CameraPath(np.stack([source, new]), clip.K, size, np.arange(2.0))
                mask = rendering_mask(clip, path, aligned=True, rasterizer=rasterizer)[1]
                mine[angle].append(overlap_without_slivers(~mask, ~truly_seen(mesh, depth, k, source, new)))
        for angle, values in mine.items():
            everything[angle] += values
        lines.append(f"| {family} | " + " | ".join(f"{np.mean(v):.3f} ({min(v):.2f})" for v in mine.values()) + " |")
    means = {a: float(np.mean(v)) for a, v in everything.items()}
    lines.append(
        "| all, mean (worst) | " + " | ".join(f"{means[a]:.3f} ({min(v):.2f})" for a, v in everything.items()) + " |"
    )
    met = "met" if min(means.values()) >= BAR else "MISSED"
    return "\n".join(lines) + f"\n\nbar {BAR} on the mean of each angle: {met}"


def speed(rasterizer, px: int, frames: int) -> str:
    """Clips and frames a minute of every kind, one process."""
    video, depth = scene_clip(FAMILIES[0], 100_020, px, frames, rasterizer)
    lines = [
        f"| kind | clips of {frames} frames a minute | frames a minute | frames a minute of processor time |",
        "| --- | --- | --- | --- |",
    ]
    for kind in MaskRule().kinds:
        rule = MaskRule(1, (kind,), coverage=(0.0, 1.0))
        simulate_masks(video, depth, rule, 0, rasterizer=rasterizer)  # compiled kernels, warm caches
        begin, busy, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begin < 3 or count < 2:
            simulate_masks(video, depth, rule, count + 1, rasterizer=rasterizer)
            count += 1
        rate, alone = 60 * count / (time.perf_counter() - begin), 60 * count / (time.process_time() - busy)
        lines.append(f"| {kind} | {rate:,.0f} | {rate * frames:,.0f} | {alone * frames:,.0f} |")
    return "\n".join(lines)


def scene_clip(family: str, seed: int, px: int, frames: int, rasterizer) -> tuple[np.ndarray, DepthClip]:
    scene = make_scene(seed, family, frames)
    video, depth = scene.source_clip((px, px), frames, rasterizer)
    return video.frames, DepthClip(finite(depth.depth), depth.K, depth.unit, depth.cam_from_world)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rasterizer", default="auto")
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--scenes", type=int, default=2, help="scenes of each family")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/masks"))
    args = parser.parse_args()
    rasterizer = get_rasterizer(args.rasterizer)
    families = FAMILIES[:1] if args.tiny else FAMILIES
    px, frames = (48, 5) if args.tiny else (args.px, args.frames)
    args.out.mkdir(parents=True, exist_ok=True)
    parts = [f"Rasteriser {rasterizer.name}, {px} px"]
    parts.append("## Speed, one process\n\n" + speed(rasterizer, px, frames))
    size = (48, 64) if args.tiny else (3 * px // 4, px)
    parts.append(
        "## Truth: overlap of hidden regions, mean (worst)\n\n"
        + truth(families, range(100_030, 100_030 + args.scenes), size, rasterizer)
    )
    found: dict[str, list] = {}
    for number, family in enumerate(families):
        video, depth = scene_clip(family, 100_040, px, min(frames, 25), rasterizer)
        masks = simulate_and_render(video, depth, number)
        for kind, group in masks.items():
            found.setdefault(kind, []).extend(statistics(m) for m in group)
        save_strip(video, masks, args.out / f"strip_{family}.jpg")
    plot(found, args.out / "compared.png")
    parts.append("## Likeness, mean (10th to 90th percentile)\n\n" + table(found))
    text = "\n\n".join(parts) + "\n"
    print(text)
    (args.out / "masks.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
