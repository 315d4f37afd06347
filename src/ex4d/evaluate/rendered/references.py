"""References of the `rendered` protocol and the geometry tier's report: files for tools to work on, and ours beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.evaluate.metrics.statistics import summarize
from ex4d.evaluate.rendered import geometry
from ex4d.evaluate.report.report import Clip, side_by_side
from ex4d.geometry.frames import invert_rigid
from ex4d.io.cameras import write_cameras
from ex4d.io.depth.file import write_depth
from ex4d.io.video.read import VideoWriter
from ex4d.mesh.rule import DepthRange
from ex4d.render.base import DepthRasterizer
from ex4d.scenes.scene import Scene, make_scene
from ex4d.system.atomic import ensure_dir
from ex4d.system.manifest import content_key, versions
from ex4d.system.records import is_done, mark_done
from ex4d.types import CameraPath, Progress

#: Files of one reference folder.
FILES = ("input.mkv", "depth.npz", "cameras.json", "target.mkv", "visible.mkv")


def make_references(
    out: Path,
    seeds: Sequence[int],
    angles_deg: Sequence[float],
    size_hw: tuple[int, int],
    num_frames: int,
    rasterizer: DepthRasterizer,
    progress: Progress | None = None,
) -> list[Path]:
    """Write input video, exact depth, cameras, true target and true visibility for every seed and angle: `out/SCENE_ANGLE`.

    Finished folders are kept, so that a second call goes on where the first stopped.
    """
    made = []
    total = len(seeds) * len(angles_deg)
    for seed in seeds:
        scene = make_scene(seed, geometry.family_of(seed), num_frames)
        for angle in angles_deg:
            folder = ensure_dir(Path(out) / f"scene{seed}_{angle:g}")
            key = content_key({}, {"seed": seed, "angle": angle, "size": list(size_hw), "frames": num_frames})
            if not is_done(folder, "reference", key):
                _write_reference(folder, scene, angle if seed % 2 == 0 else -angle, size_hw, rasterizer)
                mark_done(folder, "reference", key, FILES)
            made.append(folder)
            if progress is not None:
                progress(len(made), total, "rendering")
    return made


def _write_reference(
    folder: Path, scene: Scene, angle: float, size_hw: tuple[int, int], rasterizer: DepthRasterizer
) -> None:
    video, depth = scene.source_clip(size_hw, rasterizer=rasterizer)
    path = scene.orbit(angle, size_hw)
    with VideoWriter(folder / "input.mkv", scene.fps, lossless=True) as writer:
        writer.write(video.frames)
    write_depth(folder / "depth.npz", depth, scene.fps)
    write_cameras(folder / "cameras.json", path, scene.fps)
    with (
        VideoWriter(folder / "target.mkv", scene.fps, lossless=True) as target,
        VideoWriter(folder / "visible.mkv", scene.fps, lossless=True) as visible,
    ):
        for t in range(len(path)):
            frame, seen = true_view(scene, t, path, size_hw, rasterizer)
            target.write(frame[None])
            visible.write(seen[None])


def true_view(
    scene: Scene, t: int, path: CameraPath, size_hw: tuple[int, int], rasterizer: DepthRasterizer
) -> tuple[np.ndarray, np.ndarray]:
    """Colour uint8 [H, W, 3] and true visibility bool [H, W] of frame t of a path."""
    camera, K = path.cam_from_world[t], path.K[t]
    frame = scene.render(t, camera, K, size_hw, rasterizer)
    return frame.color, scene.visible_from_source(t, camera, K, frame.depth, rasterizer=rasterizer)


def geometry_report(rows: Sequence[geometry.Row], size: int) -> dict[str, Any]:
    """The tier as a report: representations are the systems, angles the groups."""
    names = list(dict.fromkeys(r.representation for r in rows))
    angles = sorted({r.angle_deg for r in rows})
    metrics = {
        "coverage": "coverage",
        "precision": "mask_precision",
        "recall": "mask_recall",
        "f1": "mask_f1",
        "iou": "mask_iou",
        "psnr_claimed": "psnr_claimed",
        "psnr_common": "psnr_common",
    }
    summary = []
    for name in names:
        for angle in [*angles, None]:
            chosen = [r for r in rows if r.representation == name and angle in (None, r.angle_deg)]
            for key, metric in metrics.items():
                s = summarize([getattr(r, key) for r in chosen], [r.seed for r in chosen])
                summary.append(
                    {
                        "system": name,
                        "group": "all" if angle is None else f"{angle:g}",
                        "metric": metric,
                        **{k: getattr(s, k) for k in ("mean", "low", "high", "sd", "n", "skipped")},
                        "resolution": f"{size}x{size}",
                        "seed_sd": None,
                    }
                )
    seeds = list(dict.fromkeys((r.seed, r.family) for r in rows))
    return {
        "protocol": "geometry",
        "title": "Geometry tier: what each representation shows of rendered scenes, no model",
        "systems": [{"name": n} for n in names],
        "groups": {f"{a:g}": {"angle_deg": a} for a in angles},
        "settings": {"scenes": ", ".join(f"{s} ({f})" for s, f in seeds), "moments per scene": 5},
        "items": [r._asdict() for r in rows],
        "summary": summary,
        "failures": [],
        "cautions": ["n counts rows (scene and angle); intervals resample scenes.", geometry.WHY],
        "published": {},
        "versions": versions(),
    }


def geometry_clips(rows: Sequence[geometry.Row], size: int, rasterizer: DepthRasterizer, count: int = 3) -> list[Clip]:
    """Worst scenes of the first representation by mask F1: input, each representation and the truth along the orbit."""
    first = rows[0].representation
    worst = sorted((r for r in rows if r.representation == first), key=lambda r: r.f1)[:count]
    shown = geometry.representations(rasterizer)
    clips = []
    for row in worst:
        scene = make_scene(row.seed, row.family)
        path = scene.orbit(row.angle_deg if row.seed % 2 == 0 else -row.angle_deg, (size, size))
        times = range(0, scene.num_frames, 3)
        sources = {t: scene.source(t, (size, size), rasterizer) for t in times}
        clip = DepthRange.of(np.stack([s.depth for s in sources.values()]))
        K = scene.intrinsics((size, size))
        columns: list[list[np.ndarray]] = [[] for _ in range(len(shown) + 2)]
        for t in times:
            from_source = path.cam_from_world[t] @ invert_rigid(scene.source_camera(t))
            view = geometry.View(sources[t].color, sources[t].depth, K, clip, from_source, K, (size, size))
            pictures = [
                sources[t].color,
                *(draw(view).color for draw in shown.values()),
                true_view(scene, t, path, (size, size), rasterizer)[0],
            ]
            for column, picture in zip(columns, pictures, strict=True):
                column.append(picture)
        caption = f"scene {row.seed} ({row.family}), {row.angle_deg:g} degrees, F1 {row.f1:.3f}: input | {' | '.join(shown)} | truth"
        clips.append(Clip(caption, side_by_side([np.stack(c) for c in columns], 160), Fraction(8)))
    return clips
