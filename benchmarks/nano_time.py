"""How long `ex4d run` takes from a cold start to the finished file, and how much memory. Run: python benchmarks/nano_time.py

Every line of the table is a process of its own with an empty numba cache (files are warm in the disk cache). 49 frames of a rendered
scene at 256x256 and, enlarged, at 1280x720; `orbit:40`. Without published weights: `--weights DIR` (a folder that
recipes/nano/publish.py wrote; speed does not depend on training). CPU seconds add up both cores and compilation, which runs on one: on a
machine that does something else too they tell more than the clock. `--warm` keeps the numba cache between lines: a second run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

#: case -> (size, preset, quality, seconds at most on two cores).
CASES: dict[str, tuple[str, str, str | None, float | None]] = {
    "fill 256": ("256", "fill", None, None),
    "draft 256": ("256", "nano", "draft", 25.0),
    "default 256": ("256", "nano", "default", 60.0),
    "best 256": ("256", "nano", "best", None),
    "default 720p": ("720p", "nano", "default", 150.0),
}
MAX_GB = 3.0
FRAMES = 49

#: Runs the command in a fresh process, with other embedded weights where asked for; prints its peak memory at the end.
CHILD = """
import sys
from pathlib import Path
weights, *args = sys.argv[1:]
if weights:
    from ex4d.models import embedded
    embedded.FOLDER = Path(weights)
from ex4d.cli.main import main
code = main(args)
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
print("peak", used.ru_maxrss, used.ru_utime + used.ru_stime)
sys.exit(code)
"""


def make_clips(folder: Path) -> None:
    """256.mkv and 720p.mkv with their depth."""
    import cv2

    from ex4d.io.depth.file import write_depth
    from ex4d.io.video.read import VideoWriter
    from ex4d.scenes.scene import FAMILIES, make_scene
    from ex4d.types import DepthClip, VideoClip

    scene = make_scene(100_001, FAMILIES[0])
    video, depth = scene.source_clip((256, 256), FRAMES)
    z = np.where(np.isfinite(depth.depth), depth.depth, 1000).astype(np.float32)
    for name, hw in (("256", (256, 256)), ("720p", (720, 1280))):
        frames, maps, K = video.frames, z, depth.K.copy()
        if hw != (256, 256):
            frames = np.stack([cv2.resize(f[56:200], hw[::-1], interpolation=cv2.INTER_CUBIC) for f in frames])
            maps = np.stack([cv2.resize(m[56:200], hw[::-1], interpolation=cv2.INTER_NEAREST) for m in maps])
            K[:, 1, 2] -= 56
            K[:, :2] *= hw[0] / 144
        with VideoWriter(folder / f"{name}.mkv", video.fps, lossless=True) as writer:
            writer.write(VideoClip(frames, video.fps).frames)
        write_depth(folder / f"{name}.npz", DepthClip(maps, K, depth.unit), video.fps)


def measure(case: str, clips: Path, weights: str, depth: str, cache: Path, threads: int) -> dict[str, object]:
    """One process: wall seconds, seconds by stage, peak memory."""
    size, preset, quality, limit = CASES[case]
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        chosen = str(clips / f"{size}.npz") if depth == "file" else depth
        args = ["run", str(clips / f"{size}.mkv"), "--depth", chosen, "--preset", preset, "--out", str(out)]
        args += ["--quality", quality] if quality else []
        environment = {
            **os.environ,
            "NUMBA_CACHE_DIR": str(cache),
            "OMP_NUM_THREADS": str(threads),
            "NUMBA_NUM_THREADS": str(threads),
        }
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", CHILD, weights, *args], env=environment, capture_output=True, text=True
        )
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise SystemExit(f"{case}: {done.stderr}")
        unit = 1 if sys.platform == "darwin" else 1024
        peak, cpu = (float(word) for word in done.stdout.split("peak ")[1].split())
        stages = json.loads((out / "manifest.json").read_text())
        inner = stages["generate"].get("seconds", {})
    return {
        "case": case,
        "seconds": seconds,
        "limit": limit,
        **stages["seconds"],
        "start": seconds - sum(stages["seconds"].values()),
        "cpu": cpu,
        "peak_gb": peak * unit / 1e9,
        "inner": {name: round(value, 2) for name, value in inner.items()},
    }


def main() -> None:
    """One table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="", help="a published folder; default the package's own")
    parser.add_argument("--depth", default="file", help="file (exact, computed before), or nano: the embedded network")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm", action="store_true", help="keep the numba cache between lines")
    args = parser.parse_args()
    print(f"depth: {args.depth}; numba cache {'kept' if args.warm else 'empty'}; load {os.getloadavg()[0]:.1f}")
    stages = ("start", "depth", "render", "generate")
    print(f"| case | s | bar | CPU s | {' | '.join(stages)} | peak GB | inside generate |")
    print(f"| --- |{' ---: |' * (len(stages) + 4)} --- |")
    with tempfile.TemporaryDirectory() as name:
        clips = Path(name)
        make_clips(clips)
        for case in args.cases:
            with tempfile.TemporaryDirectory() as empty:
                cache = clips / "numba" if args.warm else Path(empty)
                row = measure(case, clips, args.weights, args.depth, cache, args.threads)
            ok = row["limit"] is None or row["seconds"] <= row["limit"]  # type: ignore[operator]
            bar = "-" if row["limit"] is None else f"{row['limit']:.0f}{'' if ok else ' MISSED'}"
            times = " | ".join(f"{row[stage]:.1f}" for stage in stages)
            memory = f"{row['peak_gb']:.2f}{' MISSED' if row['peak_gb'] > MAX_GB else ''}"  # type: ignore[operator]
            inside = ", ".join(f"{k} {v}" for k, v in row["inner"].items())  # type: ignore[union-attr]
            print(
                f"| {case} | {row['seconds']:.1f} | {bar} | {row['cpu']:.1f} | {times} | {memory} | {inside} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
