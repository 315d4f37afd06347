"""Quality, steadiness and time of the embedded depth network.

    python benchmarks/nano_depth.py --out benchmarks/results/nano_depth.md
    python benchmarks/nano_depth.py --weights FOLDER --scenes 6     # unpublished weights: FOLDER/depth/ or FOLDER itself

Rendered test scenes, families in turn, and the RGB-D window `../shared/videos/seven_scenes` where it is there. One scale and one
shift of 1/z for the whole clip (`evaluate/metrics/depth.py`). Rivals: a vertical ramp, and the same network run on each frame alone.
Prints which bars are met; writes Markdown and, beside it, JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ex4d.depth.estimators.nano import NanoDepth, load_nano
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.depth.maps.align import FlickerMeter
from ex4d.depth.source_cameras.odometry import sample_depth
from ex4d.evaluate.metrics.depth import fitted, ramp, score, unsteadiness
from ex4d.models.embedded import load as embedded
from ex4d.pixels.tracks import PointTracker, to_gray
from ex4d.scenes.scene import FAMILIES, FIRST_TEST_SEED, make_scene
from ex4d.types import VideoClip

SEVEN_SCENES = Path(__file__).resolve().parents[1].parent / "shared" / "videos" / "seven_scenes"

#: (largest AbsRel, least delta1) on rendered scenes and on the real clip; flicker against the per-frame baseline; seconds.
RENDERED_BAR, REAL_BAR, FLICKER_BAR, SECONDS_BAR = (0.10, 0.90), (0.15, 0.75), 3.0, 8.0


class Case(NamedTuple):
    """A clip with its truth. cam_from_world is None before a camera that stands still."""

    name: str
    frames: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    cam_from_world: np.ndarray | None
    real: bool = False


def rendered(seed: int, px: int, frames: int) -> Case:
    """A scene of the seed's family."""
    family = FAMILIES[seed % len(FAMILIES)]
    video, depth = make_scene(seed, family).source_clip((px, px), frames)
    return Case(f"{family} {seed}", video.frames, depth.depth, depth.K[0], depth.cam_from_world)


def seven_scenes(folder: Path) -> Case:
    """The real RGB-D window, where the sensor saw something."""
    stems = [str(path).removesuffix(".color.jpg") for path in sorted(folder.glob("*.color.jpg"))]
    frames = np.stack([cv2.imread(f"{stem}.color.jpg")[..., ::-1] for stem in stems])  # type: ignore[index]
    raw = np.stack([cv2.imread(f"{stem}.depth.png", cv2.IMREAD_UNCHANGED) for stem in stems])  # type: ignore[arg-type]
    depth = np.where((raw > 0) & (raw < 65535), raw / 1000, np.inf).astype(np.float32)
    world_from_cam = np.stack([np.loadtxt(f"{stem}.pose.txt") for stem in stems])
    K = np.loadtxt(folder / "camera-intrinsics.txt").astype(np.float32)
    return Case("7-Scenes (real)", frames, depth, K, np.linalg.inv(world_from_cam) @ world_from_cam[0], real=True)


def estimate(network: Any, case: Case, **options: Any) -> tuple[np.ndarray, float]:
    """(depth of every frame, seconds)."""
    estimator = NanoDepth(network, choose_intrinsics(case.frames.shape[1:3]), **options)
    begin = time.perf_counter()
    chunks = [VideoClip(case.frames[t : t + 16], Fraction(25)) for t in range(0, len(case.frames), 16)]
    return np.concatenate([clip.depth for clip in estimator.estimate(chunks)]), time.perf_counter() - begin


def track_flicker(frames: np.ndarray, depths: dict[str, np.ndarray]) -> dict[str, float]:
    """The package's own measure: median second difference of log depth along tracked points; needs no true cameras."""
    tracker, meters = PointTracker(), {name: FlickerMeter() for name in depths}
    for t, frame in enumerate(frames):
        tracker.step(to_gray(frame))
        tracker.top_up()
        for name, meter in meters.items():
            z, trusted = sample_depth(depths[name][t].astype(np.float32), tracker.xy)
            meter.step(tracker.ids[trusted], z[trusted])
    return {name: meter.flicker for name, meter in meters.items()}


def measure(network: Any, case: Case) -> dict[str, Any]:
    """All numbers of one clip."""
    valid = np.isfinite(case.depth) & (case.depth > 0)
    ours, seconds = estimate(network, case)
    raw = {
        "nano": ours,
        "without averaging": estimate(network, case, decay=0.0)[0],
        "each frame alone": estimate(network, case, window=1, overlap=0, decay=0.0)[0],
        "ramp": ramp(case.depth.shape),
    }
    row: dict[str, Any] = {"clip": case.name, "real": case.real, "moving": case.cam_from_world is not None}
    row["seconds"], aligned = seconds, {}
    for name, depth in raw.items():
        try:
            z = fitted(depth, case.depth, valid)
        except ValueError:  # a ramp that runs the wrong way
            z = np.full(depth.shape, float(np.median(case.depth[valid])))
        aligned[name] = z
        found = {**score(z, case.depth, valid)._asdict()}
        if name != "ramp":
            found |= unsteadiness(depth, case.depth, valid, case.K, case.cam_from_world)._asdict()
        row[name] = found
    along = track_flicker(case.frames, {name: raw[name] for name in raw if name != "ramp"})
    for name, value in along.items():
        row[name]["track_flicker"] = value
    moved = _movers(case, valid)
    if moved.any():
        row["movers"] = {
            name: score(aligned[name], case.depth, moved)._asdict() for name in ("nano", "without averaging")
        }
    return row


def _movers(case: Case, valid: np.ndarray) -> np.ndarray:
    """Before a camera that stands still: pixels whose true depth changes by more than 1 % to the next frame."""
    moved = np.zeros_like(valid)
    if case.cam_from_world is None:
        both = valid[1:] & valid[:-1]
        with np.errstate(invalid="ignore"):
            moved[1:] = both & (np.abs(case.depth[1:] - case.depth[:-1]) > 0.01 * case.depth[:-1])
    return moved


_TIMED = """
import sys, time
begin = time.perf_counter()
import resource
import numpy as np
from fractions import Fraction
from pathlib import Path
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.depth.estimators.nano import load_nano
from ex4d.types import VideoClip
frames = np.load(sys.argv[2])
estimator = load_nano(choose_intrinsics(frames.shape[1:3]), folder=Path(sys.argv[1]))
for _ in estimator.estimate([VideoClip(frames[t : t + 16], Fraction(25)) for t in range(0, len(frames), 16)]):
    pass
print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def cold_start(folder: Path, frames: np.ndarray, repeats: int = 3) -> tuple[float, float]:
    """(least seconds, peak GiB) of a fresh process: imports, weights, 49 frames."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "frames.npy"
        np.save(path, frames)
        runs = []
        for _ in range(repeats):
            done = subprocess.run(
                [sys.executable, "-c", _TIMED, str(folder), str(path)], check=True, capture_output=True, text=True
            )
            runs.append([float(word) for word in done.stdout.split()[-2:]])
    return min(run[0] for run in runs), max(run[1] for run in runs)


def weights_folder(given: Path | None, place: Path) -> Path:
    """A folder laid out as the package's: as it is, or made around unpublished weights."""
    if given is None or (given / embedded.HASHES).is_file():
        return given or embedded.FOLDER
    import hashlib
    import shutil

    inner = given / "depth" if (given / "depth").is_dir() else given
    shutil.copytree(inner, place / "depth")
    name = f"depth/{embedded.WEIGHTS}"
    found = {name: hashlib.sha256((place / name).read_bytes()).hexdigest()}
    (place / embedded.HASHES).write_text(json.dumps(found), encoding="utf-8")
    return place


def bars(rows: list[dict[str, Any]], seconds: float) -> list[tuple[str, str, bool]]:
    """(bar, what was found, met)."""
    out = []
    for what, real, (most, least) in (("rendered", False, RENDERED_BAR), ("real RGB-D", True, REAL_BAR)):
        chosen = [row for row in rows if row["real"] == real]
        if chosen:
            error, share = (float(np.mean([row["nano"][key] for row in chosen])) for key in ("abs_rel", "delta1"))
            out.append((f"{what}: AbsRel at most {most:g}", f"{error:.3f}", error <= most))
            out.append((f"{what}: delta1 at least {least:g}", f"{share:.3f}", share >= least))
    for what, moving, real, key in (
        ("rendered, still camera", False, False, "flicker"),
        ("rendered, moving camera", True, False, "flicker"),
        ("real, moving camera", True, True, "flicker"),
    ):
        chosen = [row for row in rows if row["moving"] == moving and row["real"] == real]
        if chosen:
            base, ours = (float(np.mean([row[name][key] for row in chosen])) for name in ("each frame alone", "nano"))
            ratio = base / max(ours, 1e-12)
            out.append(
                (f"{what}: flicker {FLICKER_BAR:g}x below each frame alone", f"{ratio:.1f}x", ratio >= FLICKER_BAR)
            )
    out.append((f"49 frames of 256 px in {SECONDS_BAR:g} s with loading", f"{seconds:.1f} s", seconds <= SECONDS_BAR))
    return out


def report(rows: list[dict[str, Any]], seconds: float, peak: float, machine: str) -> str:
    """Markdown."""
    names = ("nano", "without averaging", "each frame alone", "ramp")
    lines = ["# Depth of the embedded network", "", f"{machine}. One scale and shift of 1/z for each whole clip.", ""]
    lines += ["| clip | " + " | ".join(f"{name}: AbsRel, delta1" for name in names) + " |", "| --- " * 5 + "|"]
    for row in rows:
        cells = [f"{row[name]['abs_rel']:.3f}, {row[name]['delta1']:.3f}" for name in names]
        lines.append(f"| {row['clip']} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Flicker / drift / flicker along tracked points, 1e-3: second and first differences over time of log depth of still points, no fit:",
        "",
    ]
    lines += ["| clip | camera | " + " | ".join(names[:3]) + " | ratio |", "| --- " * 6 + "|"]
    for row in rows:
        keys = ("flicker", "drift", "track_flicker")
        cells = [" / ".join(f"{1e3 * row[name][key]:.2f}" for key in keys) for name in names[:3]]
        ratios = " / ".join(f"{row['each frame alone'][k] / max(row['nano'][k], 1e-12):.1f}" for k in keys)
        lines.append(
            f"| {row['clip']} | {'moves' if row['moving'] else 'still'} | " + " | ".join(cells) + f" | {ratios} |"
        )
    moved = [row["movers"] for row in rows if "movers" in row]
    if moved:
        told = [float(np.mean([m[name]["abs_rel"] for m in moved])) for name in ("without averaging", "nano")]
        lines += ["", f"AbsRel on moving objects without and with averaging over time: {told[0]:.3f}, {told[1]:.3f}."]
    lines += [
        "",
        f"A fresh process, imports and weights included, 49 frames of 256 px: {seconds:.1f} s, peak {peak:.2f} GiB.",
        "",
    ]
    lines += ["| bar | found | |", "| --- | --- | --- |"]
    lines += [f"| {bar} | {found} | {'met' if met else '**missed**'} |" for bar, found, met in bars(rows, seconds)]
    lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="folder of unpublished weights; default the package's")
    parser.add_argument("--scenes", type=int, default=12, help="rendered scenes, families in turn")
    parser.add_argument("--first-seed", type=int, default=FIRST_TEST_SEED)
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--real", type=Path, default=SEVEN_SCENES, help="folder of the RGB-D window")
    parser.add_argument("--machine", default="two-core x86-64 CPU")
    parser.add_argument("--out", type=Path, help="Markdown file; JSON goes beside it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = weights_folder(args.weights, Path(place))
        network = load_nano(choose_intrinsics((args.px, args.px)), folder=folder).network
        rows: list[dict[str, Any]] = []
        seeds = range(args.first_seed, args.first_seed + args.scenes)
        cases: list[Callable[[], Case]] = [partial(rendered, seed, args.px, args.frames) for seed in seeds]
        if args.real.is_dir():
            cases.append(partial(seven_scenes, args.real))
        timed: np.ndarray | None = None
        for make in cases:
            case = make()
            timed = case.frames if timed is None else timed
            rows.append(measure(network, case))
            ours = rows[-1]["nano"]
            print(f"{case.name}: AbsRel {ours['abs_rel']:.3f} delta1 {ours['delta1']:.3f}", flush=True)
        if timed is None:
            raise SystemExit("nothing to measure; need --scenes 1 or the RGB-D window")
        small = np.stack([cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA) for frame in timed[:49]])
        seconds, peak = cold_start(folder, np.concatenate([small] * -(-49 // len(small)))[:49])
    text = report(rows, seconds, peak, args.machine)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")
        found = {"rows": rows, "seconds": seconds, "peak_gib": peak, "bars": bars(rows, seconds)}
        args.out.with_suffix(".json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
