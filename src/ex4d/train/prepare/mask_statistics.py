"""Are simulated masks like real ones? Coverage, its course over time and the shape of holes, per kind, as a table and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ex4d.system.atomic import ensure_dir, written_whole
from ex4d.train.mixture import KINDS

#: Test-time paths that simulated masks are compared with: what people ask of `ex4d run --camera`.
REAL_PATHS = tuple(f"orbit:{sign}{angle}" for angle in (30, 60, 90) for sign in ("", "-"))


@dataclass(frozen=True)
class MaskStatistics:
    """Of one mask [T, H, W], after its first frame.

    Attributes:
        coverage: Seen share.
        course: Seen share of each frame, the first included.
        edges: Length of the mask's outline in pixels a frame, over the picture's perimeter.
        largest: Share of the unseen area in its largest connected piece, mean over frames.
        flicker: Share of pixels that change between neighbouring frames.
    """

    coverage: float
    course: np.ndarray
    edges: float
    largest: float
    flicker: float


def statistics(mask: np.ndarray) -> MaskStatistics:
    """Statistics of a mask, bool [T, H, W]."""
    import cv2

    h, w = mask.shape[1:]
    edges, largest = [], []
    for frame in mask[1:]:
        outline = np.count_nonzero(frame[1:] != frame[:-1]) + np.count_nonzero(frame[:, 1:] != frame[:, :-1])
        edges.append(outline / (2 * (h + w)))
        hole = ~frame
        if hole.any():
            _, _, stats, _ = cv2.connectedComponentsWithStats(hole.astype(np.uint8), connectivity=4)
            largest.append(stats[1:, cv2.CC_STAT_AREA].max() / hole.sum())
    rest = mask[1:] if len(mask) > 1 else mask
    changes = (rest[1:] != rest[:-1]).mean() if len(rest) > 1 else 0.0
    return MaskStatistics(
        float(rest.mean()),
        mask.mean((1, 2)),
        float(np.mean(edges or [0])),
        float(np.mean(largest or [0])),
        float(changes),
    )


def table(found: Mapping[str, list[MaskStatistics]]) -> str:
    """Markdown: kind, count, and mean (10th to 90th percentile) of each number."""
    lines = [
        "| kind | masks | coverage | outline / perimeter | largest hole | flicker |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, values in found.items():
        if not values:
            continue
        cells = []
        for name in ("coverage", "edges", "largest", "flicker"):
            v = np.array([getattr(s, name) for s in values])
            low, high = np.percentile(v, (10, 90))
            cells.append(f"{v.mean():.3f} ({low:.2f}..{high:.2f})")
        lines.append(f"| {kind} | {len(values)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(found: Mapping[str, list[MaskStatistics]], path: Path) -> None:
    """Histograms of coverage, courses over the clip, outline against coverage: one colour a kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for kind, values in found.items():
        if not values:
            continue
        coverage = np.array([s.coverage for s in values])
        heights, edges = np.histogram(coverage, bins=20, range=(0, 1), density=True)
        left.stairs(heights, edges, label=f"{kind} ({len(values)})", linewidth=1.6)
        lengths = [np.interp(np.linspace(0, 1, 50), np.linspace(0, 1, len(s.course)), s.course) for s in values]
        mean, spread = np.mean(lengths, axis=0), np.std(lengths, axis=0)
        (line,) = middle.plot(np.linspace(0, 1, 50), mean, label=kind)
        middle.fill_between(np.linspace(0, 1, 50), mean - spread, mean + spread, alpha=0.12, color=line.get_color())
        right.scatter(coverage, [s.edges for s in values], s=8, alpha=0.6, label=kind)
    left.set(xlabel="coverage of the clip", ylabel="density", title="How much is seen")
    middle.set(xlabel="place in the clip", ylabel="coverage of the frame", title="When holes open", ylim=(0, 1.02))
    right.set(xlabel="coverage of the clip", ylabel="outline / perimeter", title="How ragged holes are")
    left.legend(fontsize=7)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=110)


def report_data(data: Path, out: Path) -> str:
    """Coverage of each kind in prepared shards: a table, OUT/coverage.md and OUT/coverage.png.

    Shards hold holes at the size of latents; outlines are therefore in latent cells.
    """
    from ex4d.train.data.shards import read_shards

    found: dict[str, list[MaskStatistics]] = {kind: [] for kind in KINDS}
    for sample in read_shards(data):
        for code, hole in zip(sample.arrays["kind"], sample.arrays["hole"], strict=True):
            found[KINDS[int(code)]].append(statistics(hole < 128))
    return _written(found, ensure_dir(Path(out)), "coverage")


def simulate_and_render(frames: np.ndarray, depth, seed: int, variants: int = 4) -> dict[str, list[np.ndarray]]:
    """Masks of every kind for a clip, and under "real" those of its mesh along REAL_PATHS, eroded alike."""
    from fractions import Fraction

    from ex4d.cameras.make import make_path
    from ex4d.train.masks.make import MaskRule, eroded, simulate_masks
    from ex4d.train.masks.rendering import rendering_mask

    rule = MaskRule(variants)
    out: dict[str, list[np.ndarray]] = {kind: [] for kind in rule.kinds}
    for found in simulate_masks(frames, depth, rule, seed):
        out[found.kind].append(found.mask)
    real = []
    for i, words in enumerate(REAL_PATHS):
        path = make_path(words, first=depth, num_frames=len(depth), fps=Fraction(24))
        real.append(eroded(rendering_mask(depth, path, aligned=False), rule, seed + i))
    return {**out, "real": real}


def compare_with_renders(videos: Path, out: Path, *, depth: str, frames: int, size_hw: tuple[int, int]) -> str:
    """Simulated masks beside real renders of the same clips: a table, OUT/compared.md, OUT/compared.png and one strip a clip."""
    from ex4d.train.prepare.clips import find_videos, open_at, windows
    from ex4d.train.prepare.prepare import PrepareConfig, clip_depth

    config = PrepareConfig("", frames, size_hw, 1, depth)
    found: dict[str, list[MaskStatistics]] = {}
    for number, path in enumerate(find_videos(videos)):
        source = open_at(path, size_hw)
        for first, clip in windows(source, frames, 1):
            maps = clip_depth(path, first, clip, source.source_hw, config)
            masks = simulate_and_render(clip.frames, maps, number)
            for kind, group in masks.items():
                found.setdefault(kind, []).extend(statistics(m) for m in group)
            save_strip(clip.frames, masks, ensure_dir(Path(out)) / f"masks_{path.stem}.jpg")
    return _written(found, ensure_dir(Path(out)), "compared")


def save_strip(frames: np.ndarray, masks: Mapping[str, list[np.ndarray]], path: Path) -> None:
    """One row a kind: the first mask of it over the clip, at five times; unseen pixels are dark red."""
    from PIL import Image

    times = np.linspace(0, len(frames) - 1, 5).round().astype(int)
    rows = []
    for group in masks.values():
        if group:
            shown = np.where(
                group[0][times][..., None], frames[times], (0.2 * frames[times] + (70, 0, 0)).astype(np.uint8)
            )
            rows.append(np.concatenate(list(shown.astype(np.uint8)), axis=1))
    with written_whole(path) as temporary:
        picture = Image.fromarray(np.concatenate(rows))
        picture.thumbnail((800, 800))
        picture.save(temporary)


def _written(found: Mapping[str, list[MaskStatistics]], out: Path, name: str) -> str:
    text = table(found)
    with written_whole(out / f"{name}.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    plot(found, out / f"{name}.png")
    return text
