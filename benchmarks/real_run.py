"""One re-shot real clip on disk: `ex4d run`, what it left, and every measure of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import real_measures
from jaxtyping import Bool, Float32, UInt8
from real_trip import trip_home

from ex4d import CameraPath, DepthClip, VideoClip
from ex4d.cameras.subject import find_subject
from ex4d.io.cameras import read_cameras
from ex4d.io.depth.file import read_depth
from ex4d.io.video.read import open_video, read_video
from ex4d.render.plate import background_layers, key_indices

#: Frames, short side in pixels and seed of every run.
FRAMES, SHORT_PX, SEED = 49, 256, 0

#: Levels off the whole video's median from which a plate's pixel shows something else; the median's own spread where it is
#: trusted; and the levels off it from which a frame shows a mover.
GHOST, STEADY, MOVING = 25, 12, 40


@dataclass(frozen=True)
class Outcome:
    """What a run left in its folder.

    Attributes:
        source: The frames that were re-shot, at the depth's size.
        color: The render; undefined where `mask` is False.
        out: The completed video.
        mask: True where the source camera saw the surface.
        z: Depth of the render in the new camera; +inf where nothing was hit.
        path: The new cameras.
        depth: Depth of the source frames.
    """

    source: UInt8[np.ndarray, "time height width 3"]
    color: UInt8[np.ndarray, "time out_h out_w 3"]
    out: UInt8[np.ndarray, "time out_h out_w 3"]
    mask: Bool[np.ndarray, "time out_h out_w"]
    z: Float32[np.ndarray, "time out_h out_w"]
    path: CameraPath
    depth: DepthClip


def size_of(clip: Path) -> tuple[int, int]:
    """(width, height) of a run: even, short side `SHORT_PX`."""
    h, w = open_video(clip).source_hw
    k = SHORT_PX / min(w, h)
    return 2 * round(w * k / 2), 2 * round(h * k / 2)


def run_clip(clip: Path, camera: str, out: Path, options: tuple[str, ...] = (), threads: int | None = None) -> None:
    """`ex4d run` into `out`, unless it is done. The depth of another path of the same clip is taken over by ex4d's own resume:
    a copy of that folder without its result is where this run goes on.

    Raises:
        RuntimeError: The run failed; the message is its last line, and run.log has all of it.
    """
    if (out / "manifest.json").exists():
        return
    done = sorted(other for other in out.parent.glob("*") if other != out and (other / "manifest.json").exists())
    if done and not out.exists():
        shutil.copytree(
            done[0], out, ignore=shutil.ignore_patterns("output.*", "manifest.json", "run.log", "measured.json")
        )
    out.mkdir(parents=True, exist_ok=True)
    w, h = size_of(clip)
    words = ["run", str(clip), "--camera", camera, "--frames", str(FRAMES), "--size", f"{w}x{h}"]
    words += ["--seed", str(SEED), "--out", str(out), *options]
    limit = {} if threads is None else dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    run = subprocess.run(
        [sys.executable, "-m", "ex4d", *words], capture_output=True, text=True, env={**os.environ, **limit}
    )
    (out / "run.log").write_text(run.stdout + run.stderr, encoding="utf-8")
    if run.returncode:
        raise RuntimeError(f"{clip.name} {camera}: {run.stderr.strip().splitlines()[-1:]}; see {out / 'run.log'}")


def read_outcome(clip: Path, folder: Path) -> Outcome:
    """Everything that the measures look at."""
    path, _ = read_cameras(folder / "cameras.json")
    depth = read_depth(folder / "depth.npz")
    mask = read_video(folder / "mask.mkv").frames[..., 0] > 127
    with np.load(folder / "render_depth.npz") as stored:
        z = stored["depth"].astype(np.float32)
    return Outcome(
        source=read_video(clip, frames=FRAMES, size_hw=depth.size_hw).frames,
        color=read_video(folder / "color.mkv").frames,
        out=read_video(folder / "output.mp4").frames[:, : mask.shape[1], : mask.shape[2]],
        mask=mask,
        z=z,
        path=path,
        depth=depth,
    )


def pivot(depth: DepthClip) -> float:
    """Depth that orbits turn around over that of the nearest tenth of the first frame; over 1.3 turns around the background."""
    return find_subject(depth).distance / float(np.percentile(depth.depth[0], 10))


def ghosts(
    source: UInt8[np.ndarray, "time height width 3"], depth: DepthClip, whole: UInt8[np.ndarray, "all height width 3"]
) -> tuple[float, float]:
    """(1 where a still background was found, share of its pixels under movers that are off the median of the whole video).

    The second is NaN where there is no background or hardly a mover.
    """
    keys = key_indices(len(source))
    layers, _ = background_layers(
        VideoClip(source[keys], Fraction(30)), DepthClip(depth.depth[keys], depth.K[keys], depth.unit)
    )
    if not layers:
        return 0.0, float("nan")
    truth = np.median(whole, axis=0)
    known = np.percentile(np.abs(whole.astype(np.float32) - truth).mean(-1), 60, axis=0) < STEADY
    moving = np.abs(source[keys].astype(np.float32) - truth).mean(-1).max(0) > MOVING
    plate = layers[0].video.frames[0].astype(np.float32)
    ask = known & moving & layers[0].valid
    bad = np.abs(plate - truth).mean(-1) > GHOST
    return 1.0, float(bad[ask].mean()) if ask.sum() > 50 else float("nan")


def measure_clip(clip: Path, depth: DepthClip, source: UInt8[np.ndarray, "time height width 3"]) -> dict[str, float]:
    """What does not depend on the path."""
    whole = read_video(clip, size_hw=depth.size_hw).frames
    plate, ghost = ghosts(source, depth, whole[:: max(len(whole) // 60, 1)])
    return {"pivot": pivot(depth), "plate": plate, "ghost": ghost, "range": real_measures.disparity_range(depth)}


def measure_run(run: Outcome, trip: bool = True) -> dict[str, float]:
    """What depends on the path; `trip` runs the embedded depth network on the output."""
    odd, stripes, teeth = real_measures.mask_faults(run.mask[len(run.mask) // 4 :: 3])
    own, new = trip_home(run.source, run.out, run.mask, run.z, run.path, run.depth) if trip else (float("nan"),) * 2
    return {
        "hole": float(1 - run.mask.mean()),
        "odd": odd,
        "stripes": stripes,
        "teeth": teeth,
        "stretch": real_measures.stretch(run.mask, run.z, run.path, run.depth.K[0]),
        "kept_near": real_measures.kept_near(run.mask, run.z, run.path, run.depth),
        "flick_seen": real_measures.flicker_of_seen(run.out, run.mask),
        "sharp": real_measures.sharpness(run.out, run.mask),
        "trip_own": own,
        "trip_new": new,
    }


def sheet(run: Outcome, to: Path) -> None:
    """Source, render (pink where it is open) and output at five moments, as PNG."""
    t = np.linspace(0, len(run.source) - 1, 5).round().astype(int)
    shown = np.where(run.mask[t][..., None], run.color[t], np.array([255, 0, 255], np.uint8))
    rows = [np.concatenate(list(row), axis=1) for row in (run.source[t], shown, run.out[t])]
    picture = np.concatenate(rows, axis=0)
    k = 2000 / picture.shape[1]
    if k < 1:
        picture = cv2.resize(picture, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
    to.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(to), picture[..., ::-1])
