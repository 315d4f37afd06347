"""The geometry tier: how well a representation of one frame and its depth shows the same moment from another camera.

No model takes part. On rendered scenes the truth is known, so each representation is judged by what it claims to have seen
(its mask) and by the colours it shows there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np

from ex4d.evaluate.metrics.image import psnr_of, squared_error
from ex4d.evaluate.metrics.masks import mask_score
from ex4d.evaluate.metrics.statistics import paired_difference, summarize
from ex4d.geometry.frames import invert_rigid
from ex4d.geometry.pinhole import px_centers, unproject
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.render.base import NEAR, DepthRasterizer, SeenFrame
from ex4d.scenes.scene import FAMILIES, FIRST_TEST_SEED, make_scene
from ex4d.types import Progress

ANGLES_DEG = (15.0, 30.0, 60.0, 90.0)
SEEDS = tuple(range(FIRST_TEST_SEED, FIRST_TEST_SEED + 10))

#: TrajectoryCrafter's warper weighs a point by exp(-50 log(1 + z) / log(1 + z_max)): nearer points win, softly.
SPLAT_SHARPNESS = 50.0


class View(NamedTuple):
    """What a representation is given, and the camera it must show."""

    color: np.ndarray
    depth: np.ndarray
    source_K: np.ndarray
    clip: DepthRange
    cam_from_source: np.ndarray
    K: np.ndarray
    size_hw: tuple[int, int]


class Row(NamedTuple):
    """One representation of one scene at one angle, over its frames."""

    seed: int
    family: str
    angle_deg: float
    representation: str
    coverage: float
    precision: float
    recall: float
    f1: float
    iou: float
    psnr_claimed: float
    psnr_common: float
    psnr_common_seen: float


def splat_points(view: View) -> SeenFrame:
    """Every source pixel as a point, spread over the four pixels around where it lands: TrajectoryCrafter's renderer.

    Bilinear shares divided by the depth weight are summed, colour is their mean, and a pixel counts as seen where any share
    landed (models/utils.py of TrajectoryCrafter, `Warper.bilinear_splatting`).
    """
    h, w = view.size_hw
    points = unproject(px_centers(view.depth.shape), view.depth.astype(np.float64), view.source_K).reshape(-1, 3)
    p = points @ view.cam_from_source[:3, :3].T + view.cam_from_source[:3, 3]
    front = p[:, 2] > NEAR
    p, color = p[front], view.color.reshape(-1, 3)[front].astype(np.float64)
    K = view.K.astype(np.float64)
    xy = p[:, :2] / p[:, 2:] * [K[0, 0], K[1, 1]] + K[:2, 2] - 0.5  # pixel indices
    near = (xy > -2).all(1) & (xy[:, 0] < w + 1) & (xy[:, 1] < h + 1)
    p, color, xy = p[near], color[near], xy[near]
    log_z = np.log1p(np.minimum(p[:, 2], 1000.0))
    strength = np.exp(-SPLAT_SHARPNESS * log_z / max(float(log_z.max(initial=1e-9)), 1e-9))
    low = np.floor(xy).astype(np.int64)
    share = xy - low
    total, sums, depth = np.zeros(h * w), np.zeros((h * w, 3)), np.zeros(h * w)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = low[:, 0] + dx, low[:, 1] + dy
        weight = np.abs(1 - dx - share[:, 0]) * np.abs(1 - dy - share[:, 1]) * strength
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h) & (weight > 0)
        index, weight = (y * w + x)[inside], weight[inside]
        total += np.bincount(index, weight, h * w)
        depth += np.bincount(index, weight * p[inside, 2], h * w)
        for c in range(3):
            sums[:, c] += np.bincount(index, weight * color[inside, c], h * w)
    mask = total > 0
    safe = np.where(mask, total, 1.0)
    shown = np.floor(sums / safe[:, None] + 0.5).clip(0, 255).astype(np.uint8)
    z = np.where(mask, depth / safe, np.inf).astype(np.float32)
    return SeenFrame(shown.reshape(h, w, 3), mask.reshape(h, w), z.reshape(h, w))


def mesh_with(rule: MeshRule, rasterizer: DepthRasterizer) -> Callable[[View], SeenFrame]:
    """A watertight mesh by a rule, drawn by a rasteriser."""
    return lambda v: rasterizer.draw_depth(
        v.depth, v.color, v.source_K, rule, v.clip, v.cam_from_source, v.K, v.size_hw
    )


def representations(rasterizer: DepthRasterizer) -> dict[str, Callable[[View], SeenFrame]]:
    """The four that the tier compares, by name."""
    return {
        "watertight mesh (default)": mesh_with(MeshRule(), rasterizer),
        "watertight mesh (reference)": mesh_with(MeshRule.reference(keep_first=False), rasterizer),
        "point splatting": splat_points,
        "plain mesh, nothing marked": mesh_with(MeshRule(angle_deg=0.0), rasterizer),
    }


def run_scene(
    seed: int,
    family: str,
    angles_deg: Sequence[float],
    size_hw: tuple[int, int],
    shown: dict[str, Callable[[View], SeenFrame]],
    rasterizer: DepthRasterizer,
    times: Sequence[int] = (0, 12, 24, 36, 48),
) -> list[Row]:
    """All representations of one scene at all angles; odd seeds turn left, even ones right."""
    scene = make_scene(seed, family)
    K = scene.intrinsics(size_hw)
    sources = [scene.source(t, size_hw, rasterizer) for t in times]
    clip = DepthRange.of(np.stack([s.depth for s in sources]))
    rows = []
    for angle in angles_deg:
        camera = scene.orbit(angle if seed % 2 == 0 else -angle, size_hw, 2).cam_from_world[1]
        tally = {name: _Tally() for name in shown}
        for time, source in zip(times, sources, strict=True):
            from_source = camera @ invert_rigid(scene.source_camera(time))
            truth = scene.render(time, camera, K, size_hw, rasterizer)
            seen = scene.visible_from_source(time, camera, K, truth.depth, rasterizer=rasterizer)
            view = View(source.color, source.depth, K, clip, from_source, K, size_hw)
            frames = {name: draw(view) for name, draw in shown.items()}
            common = np.logical_and.reduce([f.mask for f in frames.values()])
            for name, frame in frames.items():
                tally[name].add(frame, truth.color, seen, common)
        rows += [Row(seed, family, float(angle), name, *t.result()) for name, t in tally.items()]
    return rows


def family_of(seed: int) -> str:
    """The family that a tier's seed is drawn from: they take turns."""
    return FAMILIES[seed % len(FAMILIES)]


class _Tally:
    """Sums over the frames of one row; squared errors are pooled before they become decibels."""

    def __init__(self) -> None:
        self.claimed: list[np.ndarray] = []
        self.truth: list[np.ndarray] = []
        self.errors: list[tuple[float, int]] = []
        self.common: list[tuple[float, int]] = []
        self.common_seen: list[tuple[float, int]] = []

    def add(self, frame: SeenFrame, truth: np.ndarray, seen: np.ndarray, common: np.ndarray) -> None:
        self.claimed.append(frame.mask)
        self.truth.append(seen)
        for where, mask in ((self.errors, frame.mask), (self.common, common), (self.common_seen, common & seen)):
            where.append((squared_error(frame.color, truth, mask), int(np.count_nonzero(mask))))

    def result(self) -> tuple[float, ...]:
        score = mask_score(np.stack(self.claimed), np.stack(self.truth))
        decibels = [_pooled(e) for e in (self.errors, self.common, self.common_seen)]
        return score.coverage, score.precision, score.recall, score.f1, score.iou, *decibels


def _pooled(errors: list[tuple[float, int]]) -> float:
    used = [(e, n) for e, n in errors if n]
    if not used:
        return float("nan")
    return psnr_of(float(np.average([e for e, _ in used], weights=[n for _, n in used])))


#: Columns of the tier's table: attribute of `Row`, heading, format.
MEASURES = (
    ("coverage", "coverage", ".3f"),
    ("precision", "mask precision", ".3f"),
    ("recall", "mask recall", ".3f"),
    ("f1", "mask F1", ".3f"),
    ("iou", "mask IoU", ".3f"),
    ("psnr_claimed", "PSNR of seen pixels, dB", ".2f"),
    ("psnr_common", "PSNR where all claim, dB", ".2f"),
)

#: Read with the table: what the measures reward.
WHY = (
    "A watertight mesh takes the space behind a silhouette for solid, because nobody saw it: a ray that crosses it counts as "
    "unseen even if it goes on to a surface the source did see (behind poles, legs, leaves). That costs recall, and F1 at small "
    "angles, and buys precision and the colour of what is claimed. Points and unmarked meshes claim such pixels and also claim "
    "the background that shows through things, or curtains that are nowhere."
)


def run_tier(
    seeds: Sequence[int] = SEEDS,
    angles_deg: Sequence[float] = ANGLES_DEG,
    size: int = 256,
    rasterizer: DepthRasterizer | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """The whole tier: every seed (its family takes turns), angle and representation."""
    if rasterizer is None:
        from ex4d.render.make import get_rasterizer

        rasterizer = cast(DepthRasterizer, get_rasterizer("auto"))
    rows: list[Row] = []
    for done, seed in enumerate(seeds):
        shown = representations(rasterizer)
        rows += run_scene(seed, family_of(seed), angles_deg, (size, size), shown, rasterizer)
        if progress is not None:
            progress(done + 1, len(seeds), f"scene {seed}")
    return rows


def tier_table(rows: Sequence[Row]) -> str:
    """Markdown: means with 95 % bootstrap intervals over scenes by angle, then where the default mesh does not win."""
    names = list(dict.fromkeys(r.representation for r in rows))
    lines = [
        "| angle | representation | " + " | ".join(heading for _, heading, _ in MEASURES) + " |",
        "| --- | --- |" + " --- |" * len(MEASURES),
    ]
    for angle in sorted({r.angle_deg for r in rows}):
        for name in names:
            cells = []
            for key, _, form in MEASURES:
                s = summarize(_values(rows, angle, name, key))
                interval = f" ({s.low:{form}} to {s.high:{form}})" if math.isfinite(s.low) else ""
                cells.append(f"{s.mean:{form}}{interval}")
            lines.append(f"| {angle:g} | {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_losses(rows, names), "", WHY]) + "\n"


def _losses(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """One sentence for every measure that the first representation does not win beyond doubt at every angle."""
    lines = []
    for other in names[1:]:
        for key, heading, form in MEASURES[1:]:
            notes = []
            for angle in sorted({r.angle_deg for r in rows}):
                a, b = (_values(rows, angle, name, key) for name in (names[0], other))
                d = paired_difference(a, b)
                if not d.low > 0:
                    notes.append(f"{angle:g} degrees {d.mean:+{form}} ({d.low:+{form}} to {d.high:+{form}})")
            if notes:
                lines.append(f"- {heading}, {names[0]} minus {other}: {'; '.join(notes)}.")
    if not lines:
        return [f"{names[0]} wins every comparison with an interval that excludes 0."]
    return [f"Where {names[0]} does not win with an interval that excludes 0:", "", *lines]


def _values(rows: Sequence[Row], angle: float, name: str, key: str) -> list[float]:
    return [getattr(r, key) for r in rows if r.angle_deg == angle and r.representation == name]
