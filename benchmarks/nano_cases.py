"""What nano.py scores on, staged once: renders of scenes with the true view, and held-out real clips under the same masks."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
for _folder in (ROOT / "src", ROOT / "recipes" / "nano"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from ex4d.errors import InputError  # noqa: E402
from ex4d.evaluate.metrics.holes import Motion  # noqa: E402
from ex4d.types import CameraPath, RenderClip, VideoClip  # noqa: E402

#: Raised when the same seed would be staged differently.
VERSION = 1
FPS = Fraction(24)
#: Kinds of real cases: the fill knows each frame by itself, or also what other times show, as the line finds it for a clip
#: from a camera that stands still.
REAL = ("real", "still")


@dataclass(frozen=True)
class Plan:
    """What to stage: sizes, angles, and whether the plain mesh is rendered too (the ablation)."""

    cache: Path
    angles: tuple[int, ...]
    px: int = 256
    frames: int = 49
    plain: bool = False

    def path(self, kind: str, seed: int, angle: int) -> Path:
        """Where a case lies; `kind` is scene, plain, real or still (real with a temporal background)."""
        return self.cache / f"v{VERSION}_{self.px}_{self.frames}" / f"{kind}_{seed:07d}_{angle:02d}.npz"


@dataclass(frozen=True)
class Case:
    """One clip to complete.

    Attributes:
        name, group, seed: "scene_0100500_30", "30", "real 30" or "still 30", 100500.
        color, filled, truth: uint8 [T, H, W, 3]; `filled` is the classical fill.
        holes: Not seen by the source camera at that time.
        invented: Holes that no other time of the clip shows either: what a model has to make up.
        motion: Of the truth.
    """

    name: str
    group: str
    seed: int
    color: np.ndarray
    filled: np.ndarray
    truth: np.ndarray
    holes: np.ndarray
    invented: np.ndarray
    motion: Motion

    def render(self) -> RenderClip:
        """As the line hands it to a generator; depth and cameras matter to the fill only, which is made already."""
        n, h, w = self.holes.shape
        K = np.array([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1]], np.float32)
        path = CameraPath(np.tile(np.eye(4), (n, 1, 1)), np.tile(K, (n, 1, 1)), (h, w), np.arange(n, dtype=np.float64))
        depth = np.broadcast_to(np.float32(1), self.holes.shape)
        video = VideoClip(self.color, FPS)
        return RenderClip(
            self.color, ~self.holes, depth, path, video, FPS, None, self.filled, self.holes & ~self.invented
        )


def load(path: Path) -> Case:
    """Read a staged case."""
    with np.load(path) as data:
        masks = {k: np.unpackbits(data[k], axis=-1).astype(bool) for k in ("holes", "invented", "visible")}
        kind, seed, angle = path.stem.split("_")
        group = f"{kind} {int(angle)}" if kind in REAL else str(int(angle))
        motion = Motion(data["flow"], masks["visible"])
        arrays = data["color"], data["filled"], data["truth"]
    return Case(path.stem, group, int(seed), *arrays, masks["holes"], masks["invented"], motion)


def stage(plan: Plan, seeds: range, clips: Path | None, workers: int) -> tuple[list[Path], list[Path]]:
    """Stage what is missing, one process a scene; returns the paths of rendered and of real cases."""
    from ex4d.scenes.scene import TRAIN_SEEDS

    if not len(seeds) or (set(seeds) & set(TRAIN_SEEDS)):
        raise InputError(
            f"seeds {seeds.start}:{seeds.stop}", f"seeds of {TRAIN_SEEDS.stop} and above", "--seeds 100500:100506"
        )
    plan.path("scene", 0, 0).parent.mkdir(parents=True, exist_ok=True)
    kinds = ("scene", "plain") if plan.plain else ("scene",)
    todo = [s for s in seeds if any(not plan.path(k, s, a).exists() for k in kinds for a in plan.angles)]
    if todo:
        _parallel(_stage_scene, [(plan, seed) for seed in todo], workers)
    scenes = [plan.path("scene", s, a) for a in plan.angles for s in seeds]
    if clips is None:
        return scenes, []
    real = [plan.path(kind, s, a) for kind in REAL for a in plan.angles for s in seeds]
    missing = [s for s in seeds if any(not plan.path(k, s, a).exists() for k in REAL for a in plan.angles)]
    if missing:
        _parallel(_stage_real, [(plan, s, clips) for s in missing], workers)
    return scenes, real


def _parallel(work: Callable[[tuple], str], jobs: list[tuple], workers: int) -> None:
    begin = time.time()

    def tell(done: Iterable[str]) -> None:
        for number, name in enumerate(done, 1):
            print(f"staged {name}, {number}/{len(jobs)} after {time.time() - begin:.0f} s", flush=True)

    if workers == 0:
        tell(map(work, jobs))
        return
    with single_threaded(), multiprocessing.get_context("spawn").Pool(min(workers, len(jobs))) as pool:
        tell(pool.imap_unordered(work, jobs))


@contextmanager
def single_threaded() -> Iterator[None]:
    """Processes started meanwhile use one core each."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _stage_scene(job: tuple[Plan, int]) -> str:
    """All angles of one scene: they share its source video."""
    plan, seed = job
    from ex4d.evaluate.rendered.geometry import family_of
    from ex4d.mesh.rule import MeshRule
    from ex4d.pipeline.config import RenderOptions
    from ex4d.pipeline.line import generate, reconstruct
    from ex4d.scenes.scene import make_scene
    from ex4d.types import DepthClip

    size = (plan.px, plan.px)
    scene = make_scene(seed, family_of(seed), plan.frames)
    video, depth = scene.source_clip(size)
    finite = np.isfinite(depth.depth)
    z = np.where(finite, depth.depth, 1.5 * depth.depth[finite].max()).astype(np.float32)
    depth = DepthClip(z, depth.K, depth.unit, depth.cam_from_world)
    for angle in plan.angles:
        path = scene.orbit(angle if seed % 2 == 0 else -angle, size)
        truth: np.ndarray | None = None
        for kind, rule in (("scene", MeshRule()), ("plain", MeshRule(keep_hidden=False))):
            if plan.path(kind, seed, angle).exists() or (kind == "plain" and not plan.plain):
                continue
            if truth is None:
                frames = [scene.render(t, path.cam_from_world[t], path.K[t], size).color for t in range(plan.frames)]
                truth = np.stack(frames)
            render = reconstruct(video, depth, path, RenderOptions(rule, rasterizer="cpu"))
            filled = generate(render, "fill").frames
            holes = ~render.mask
            known = np.zeros_like(holes) if render.plate_mask is None else render.plate_mask
            color = np.where(holes[..., None], 0, render.color).astype(np.uint8)
            _store(plan.path(kind, seed, angle), color, filled, truth, holes, holes & ~known)
    return f"scene {seed}"


def _stage_real(job: tuple[Plan, int, Path]) -> str:
    """A window of a held-out clip, middle square, under the masks of one scene; cameras stand still, depth is flat."""
    plan, seed, clips = job
    import cv2
    from clips import read_clips
    from make_pairs import fill_under

    shots = [s for s in read_clips(clips, "cpu", held_out=True) if len(s.frames) >= plan.frames]
    if not shots:
        raise InputError(f"no held-out clip of {plan.frames} frames in {clips}", "clips named in recipes/nano/clips.py")
    shot = shots[seed % len(shots)]
    n, _, h, w = shot.frames.shape
    first = int(np.random.default_rng((20261122, seed)).integers(0, n - plan.frames + 1))
    side = min(h, w)
    y, x = (h - side) // 2, (w - side) // 2
    window = shot.frames[first : first + plan.frames, :, y : y + side, x : x + side].permute(0, 2, 3, 1).numpy()
    truth = np.stack([cv2.resize(f, (plan.px, plan.px), interpolation=cv2.INTER_AREA) for f in window])
    for angle in plan.angles:
        holes = load(plan.path("scene", seed, angle)).holes
        color = np.where(holes[..., None], 0, truth).astype(np.uint8)
        _store(plan.path("real", seed, angle), color, fill_under(truth, ~holes), truth, holes, holes)
        plate, steady = still_background(truth, holes)
        copied = np.where((holes & steady)[..., None], plate, truth)
        _store(
            plan.path("still", seed, angle), color, fill_under(copied, ~holes | steady), truth, holes, holes & ~steady
        )
    return f"real {seed} ({shot.name})"


def still_background(frames: np.ndarray, holes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the seen times of a clip agree on at each pixel, and where; nowhere when the camera moves.

    The line's temporal background (`render.plate`) for flat depth, from the frames' seen pixels only.

    Returns:
        uint8 [H, W, 3] and bool [H, W].
    """
    from ex4d.render.plate import MIN_SUPPORT, SAME_COLOR, STILL_SHARE, key_indices

    keys = key_indices(len(frames))
    known, color = ~holes[keys], frames[keys].astype(np.float32)
    often = known.sum(0) >= MIN_SUPPORT
    picked = np.where((known & often)[..., None], color, np.nan)
    picked[:, ~often] = 0  # medians of nothing
    plate = np.nanmedian(picked, axis=0)
    steady = often & (np.nanmean(np.abs(picked - plate), axis=(0, 3)) < SAME_COLOR)
    still = steady.sum() >= STILL_SHARE * max(int(often.sum()), 1)
    return np.rint(plate).astype(np.uint8), steady & still


def _store(path: Path, color, filled, truth, holes, invented) -> None:
    from ex4d.system.atomic import written_whole

    motion = Motion.of(truth)
    packed = {"holes": holes, "invented": invented, "visible": motion.visible}
    arrays = {name: np.packbits(mask, axis=-1) for name, mask in packed.items()}
    arrays |= {"color": color, "filled": filled, "truth": truth, "flow": motion.flow.astype(np.float16)}
    with written_whole(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
