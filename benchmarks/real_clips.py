"""How well do real clips hold together when they are re-shot, measured without human eyes?

    python benchmarks/real_clips.py CLIPS OUT --out benchmarks/results/real_clips.md     # some minutes a clip on two cores

Every video of the folder CLIPS is re-shot at orbit:20, orbit:40 and dolly:in=30% (49 frames from the start, short side 256, seed 0),
with the options asked for and, since the figures also reward flat depth, with `--depth plane`; a finished run is kept in
OUT/CLIP/PATH and OUT/plane/CLIP/PATH. Figures count only where `range` (90th over 10th percentile of disparity) stays.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from real_run import measure_clip, measure_run, read_outcome, run_clip, sheet

PATHS = ("orbit:20", "orbit:40", "dolly:in=30%")
SUFFIXES = (".mp4", ".mkv", ".webm", ".mov")
COLUMNS = (
    *("hole", "odd", "stripes", "teeth", "stretch", "kept_near", "flick_seen", "sharp", "trip_own", "trip_new"),
    *("pivot", "plate", "ghost", "range"),
)  # fmt: skip
Rows = dict[str, dict[str, float]]


def folder_name(camera: str) -> str:
    """A camera's words as the name of a folder."""
    return "".join(c if c.isalnum() else "_" for c in camera).strip("_")


def mean(rows: Rows) -> dict[str, float]:
    """Of every column, over the clips that have a value."""
    values = {c: [r[c] for r in rows.values() if not math.isnan(r.get(c, math.nan))] for c in COLUMNS}
    return {c: float(np.mean(v)) if v else math.nan for c, v in values.items()}


def table(rows: Rows) -> str:
    """A markdown table of named rows."""

    def cell(v: float) -> str:
        return "-" if math.isnan(v) else f"{v:.3f}" if abs(v) < 10 else f"{v:.1f}"

    lines = ["| clip | " + " | ".join(COLUMNS) + " |", "|" + " --- |" * (len(COLUMNS) + 1)]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(cell(row.get(c, math.nan)) for c in COLUMNS) + " |")
    return "\n".join(lines)


def measured(clips: list[Path], camera: str, root: Path, by_clip: Rows, trip: bool) -> Rows:
    """Clip -> its figures along one path; `by_clip` holds what does not depend on the path and is filled on the way."""
    rows: Rows = {}
    for clip in clips:
        folder = root / clip.stem / folder_name(camera)
        kept = folder / "measured.json"
        if not kept.exists() or kept.stat().st_mtime < (folder / "manifest.json").stat().st_mtime:
            run = read_outcome(clip, folder)
            if clip.stem not in by_clip:
                by_clip[clip.stem] = measure_clip(clip, run.depth, run.source)
            kept.write_text(json.dumps({**measure_run(run, trip), **by_clip[clip.stem]}), encoding="utf-8")
        rows[clip.stem] = json.loads(kept.read_text(encoding="utf-8"))
        print(f"measured {root.name} {clip.stem} {camera}", file=sys.stderr, flush=True)
    return rows


def shoot_all(clips: list[Path], paths: list[str], root: Path, options: tuple[str, ...], workers: int) -> None:
    """All clips along one path first, so that the next paths find the depth."""

    def one(clip: Path, camera: str) -> None:
        run_clip(clip, camera, root / clip.stem / folder_name(camera), options, 1 if workers > 1 else None)
        print(f"ran {root.name} {clip.stem} {camera}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(workers) as pool:
        for camera in paths:
            list(pool.map(one, clips, [camera] * len(clips)))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of videos")
    parser.add_argument("runs", type=Path, help="folder of runs, kept for the next call")
    parser.add_argument("--only", nargs="*", help="names of clips without suffix")
    parser.add_argument("--paths", nargs="*", default=list(PATHS))
    parser.add_argument("--extra", default="", help="more options of `ex4d run`, in one word: --extra='--preset fill'")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, each on one thread where more than one")
    parser.add_argument("--no-trip", action="store_true", help="leave out the trips home (the depth network once more)")
    parser.add_argument("--sheets", action="store_true", help="pictures into RUNS/sheets too")
    parser.add_argument("--out", type=Path, help="markdown file of the tables")
    a = parser.parse_args(argv)
    clips = sorted(c for c in a.clips.iterdir() if c.suffix in SUFFIXES and (not a.only or c.stem in a.only))
    if not clips:
        parser.error(f"no video of {', '.join(SUFFIXES)} in {a.clips}")
    extra, plane = tuple(a.extra.split()), a.runs / "plane"
    for root, options in ((a.runs, extra), (plane, (*extra, "--depth", "plane"))):
        shoot_all(clips, a.paths, root, options, a.workers)
    parts, by_clip, by_clip_plane = [], {}, {}
    for camera in a.paths:
        rows = measured(clips, camera, a.runs, by_clip, not a.no_trip)
        flat = measured(clips, camera, plane, by_clip_plane, not a.no_trip)
        parts.append(f"## {camera}\n\n{table({**rows, 'MEAN': mean(rows), 'MEAN, --depth plane': mean(flat)})}\n")
        print(f"\n{parts[-1]}", flush=True)
        for clip in clips if a.sheets else []:
            folder = a.runs / clip.stem / folder_name(camera)
            sheet(read_outcome(clip, folder), a.runs / "sheets" / f"{clip.stem}_{folder.name}.png")
    if a.out:
        head = f"# Real clips re-shot\n\n`{a.extra or 'default options'}`, {platform.processor() or platform.machine()}\n\n"
        a.out.write_text(head + "\n".join(parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
