"""`ex4d train prepare`: a folder of videos becomes shards of cached latents, conditions and text.

One shard a video, named by the hash of its bytes and of every setting, so an interrupted run goes on where it stopped and a
changed setting never mixes with old data. A broken video is one line of the report.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.errors import Ex4dError, InputError, ResourceError
from ex4d.io.video.read import crop_for_aspect
from ex4d.system.atomic import ensure_dir, written_whole
from ex4d.system.manifest import content_key, plain
from ex4d.train.data.batches import derived_seed
from ex4d.train.data.shards import ShardWriter
from ex4d.train.masks.make import MaskRule, simulate_masks
from ex4d.train.masks.tracking import get_tracker
from ex4d.train.prepare.clips import ClipFilter, find_videos, measure, open_at, windows
from ex4d.types import DepthClip, VideoClip

#: Changes when a shard's fields or meaning change.
FORMAT = 1


@dataclass(frozen=True)
class PrepareConfig:
    """Everything that decides what a shard holds.

    Attributes:
        model: Folder of the frozen encoders (vae/, text_encoder/, tokenizer/, image_encoder/) in diffusers' layout.
        frames: Frames a clip, 4k + 1.
        size_hw: Training (height, width), multiples of 16; videos are cropped in the middle and resized.
        clips_per_video: Most windows taken from one video.
        depth: Model name of `ex4d depth`; "plane"; a folder of NAME.npz files; or "none": then no rendering masks.
        tracker, tracker_checkout, tracker_checkpoint: "dense-flow", "lucas-kanade", or "cotracker3" from local files.
        masks: Which masks are cached.
        filter: Which windows are kept.
        seed: Of everything random.
    """

    model: str
    frames: int = 49
    size_hw: tuple[int, int] = (512, 512)
    clips_per_video: int = 4
    depth: str = "none"
    tracker: str = "dense-flow"
    tracker_checkout: str = ""
    tracker_checkpoint: str = ""
    masks: MaskRule = field(default_factory=MaskRule)
    filter: ClipFilter = field(default_factory=ClipFilter)
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.frames < 5 or (self.frames - 1) % 4:
            low = max(5, (self.frames - 1) // 4 * 4 + 1)
            raise InputError(
                f"clips of {self.frames} frames", "4k + 1, at least 5", f"--frames {low} or --frames {low + 4}"
            )
        if any(s < 16 or s % 16 for s in self.size_hw):
            raise InputError(f"size {self.size_hw[0]}x{self.size_hw[1]}", "multiples of 16", "--size 512 512")
        if self.clips_per_video < 1:
            raise InputError(f"{self.clips_per_video} clips per video", "at least 1", "--clips-per-video 4")

    def settings(self) -> dict[str, Any]:
        """What decides the data; folders and devices may move."""
        record = {
            k: v
            for k, v in plain(asdict(self)).items()
            if k not in ("model", "device", "tracker_checkout", "tracker_checkpoint")
        }  # type: ignore[union-attr]
        return {**record, "depth": Path(self.depth).name, "format": FORMAT}


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        video: File name.
        shard: Shard written or found, "" when the video could not be used.
        clips: Samples in it.
        note: What was left out and why, or the error.
    """

    video: str
    shard: str
    clips: int
    note: str


def prepare(
    videos: Path,
    out: Path,
    config: PrepareConfig,
    *,
    captions: Path | None = None,
    workers: int = 1,
    ray_address: str | None = None,
) -> list[Row]:
    """Cache every video of a folder; returns the report, which is also OUT/report.json.

    Args:
        captions: CSV (file,caption), JSON (mapping) or JSON lines; videos it does not name get the released prompt.
        workers: Videos worked on at once.
        ray_address: A Ray cluster, or "local" to start Ray here; None uses processes of this machine.

    Raises:
        InputError: No videos, unusable captions, a folder prepared with other settings, or no video that could be used.
        ResourceError: A full disk.
    """
    from ex4d.generators.wan14b.prompts import DEFAULT_PROMPT

    paths = find_videos(videos)
    named = read_captions(captions, paths) if captions else {}
    _claim(ensure_dir(Path(out)), config)
    jobs = [(str(p), str(out), config, named.get(p.name, named.get(p.stem, DEFAULT_PROMPT))) for p in paths]
    rows = []
    for row in _run(jobs, workers, ray_address):
        print(f"{row.video}: {row.clips} clips{'; ' + row.note if row.note else ''}", flush=True)
        rows.append(row)
    with written_whole(Path(out) / "report.json") as temporary:
        temporary.write_text(json.dumps([asdict(r) for r in rows], indent=1), encoding="utf-8")
    if not any(r.clips for r in rows):
        raise InputError(
            f"none of {len(rows)} videos could be used; the first: {rows[0].video}: {rows[0].note}",
            f"shots of {config.frames} frames that pass the filter",
            "look into report.json; --frames, --filter.min-motion 0",
        )
    return rows


def prepare_one(video: str, out: str, config: PrepareConfig, prompt: str) -> Row:
    """Cache one video; everything that is wrong with it becomes the row's note. Only a full disk is raised."""
    path = Path(video)
    try:
        key = content_key({"video": path}, [config.settings(), prompt])[:16]
        shard = Path(out) / f"{key}.tar"
        if shard.exists():
            from ex4d.train.data.shards import read_shard

            return Row(path.name, shard.name, len(read_shard(shard)), "already there")
        return _write(path, shard, key, config, prompt)
    except ResourceError:
        raise
    except Ex4dError as error:
        return Row(path.name, "", 0, str(error))
    except Exception as error:  # a decoder's own complaint must not cost the run
        return Row(path.name, "", 0, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _write(path: Path, shard: Path, key: str, config: PrepareConfig, prompt: str) -> Row:
    from ex4d.train.prepare.encoders import load_encoders
    from ex4d.train.prepare.samples import make_sample

    encoders = load_encoders(config.model, config.device)
    tracker = get_tracker(
        config.tracker,
        Path(config.tracker_checkout) if config.tracker_checkout else None,
        Path(config.tracker_checkpoint) if config.tracker_checkpoint else None,
    )
    refused, kept = [], 0
    source = open_at(path, config.size_hw)
    clips = list(_accepted(windows(source, config.frames, config.clips_per_video), config, refused))
    if not clips:
        return Row(path.name, "", 0, "; ".join(refused))
    with ShardWriter(shard) as writer:
        for first, clip in clips:
            depth = clip_depth(path, first, clip, source.source_hw, config)
            seed = derived_seed(config.seed, key, first)
            masks = simulate_masks(clip.frames, depth, config.masks, seed, tracker=tracker)
            arrays = make_sample(clip.frames, masks, prompt, encoders)
            record = {
                "source": key,
                "video": path.name,
                "first_frame": first,
                "prompt": prompt,
                "masks": [m.note for m in masks],
            }
            writer.write(f"{key}-{first:06d}", arrays, record)
            kept += 1
    return Row(path.name, shard.name, kept, "; ".join(refused))


def _accepted(clips, config: PrepareConfig, refused: list[str]) -> Iterator[tuple[int, VideoClip]]:
    for first, clip in clips:
        if why := measure(clip.frames).refusal(config.filter):
            refused.append(f"frame {first}: {why}")
        else:
            yield first, clip


def clip_depth(
    path: Path, first: int, clip: VideoClip, source_hw: tuple[int, int], config: PrepareConfig
) -> DepthClip | None:
    """Depth of a window: from a file of the whole video, cropped and resized as its frames were, or from a model."""
    if config.depth == "none":
        return None
    from ex4d.depth.make import depth_way, make_depth

    way, folder = depth_way(config.depth), Path(config.depth)
    if way == "brought" and folder.is_dir():
        from ex4d.io.depth.file import read_depth

        stored = folder / f"{path.stem}.npz"
        if not stored.is_file():
            raise InputError(f"no depth {stored.name} in {folder}", "one NAME.npz per video", "--depth MODEL")
        return fitted(read_depth(stored), first, len(clip), config.size_hw)
    options = {"device": config.device} if way == "model" else {}
    estimator = make_depth(config.depth, size_hw=clip.size_hw, num_frames=len(clip), **options)  # type: ignore[arg-type]
    (depth,) = list(estimator.estimate([clip], seed=config.seed))
    return depth


def fitted(depth: DepthClip, first: int, count: int, size_hw: tuple[int, int]) -> DepthClip:
    """`count` frames from `first`, cropped in the middle to the aspect of `size_hw` and resized (nearest: no mixed depths)."""
    import cv2

    if len(depth) < first + count:
        raise InputError(f"{len(depth)} depth maps", f"at least {first + count}", "estimate depth of the whole video")
    top, left, h, w = crop_for_aspect(depth.size_hw, size_hw)
    cut = depth.depth[first : first + count, top : top + h, left : left + w]
    small = np.stack([cv2.resize(d, size_hw[::-1], interpolation=cv2.INTER_NEAREST) for d in cut])
    K = depth.K[first : first + count].copy()
    K[:, :2, 2] -= (left, top)
    K[:, :2] *= np.array([size_hw[1] / w, size_hw[0] / h], np.float32)[:, None]
    poses = None if depth.cam_from_world is None else depth.cam_from_world[first : first + count]
    return DepthClip(small, K, depth.unit, poses)


def read_captions(path: Path, videos: list[Path]) -> Mapping[str, str]:
    """File name (with or without suffix) to caption; InputError unless it is such a file and names one of the videos."""
    path = Path(path)
    wrong = InputError(
        f"captions {path}", "CSV with columns file,caption, a JSON mapping, or JSON lines of both", "--captions FILE"
    )
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            found = {row["file"]: row["caption"] for row in csv.DictReader(text.splitlines())}
        elif path.suffix == ".jsonl":
            found = {r["file"]: r["caption"] for r in map(json.loads, filter(str.strip, text.splitlines()))}
        else:
            found = json.loads(text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise wrong from error
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise wrong
    names = {n for v in videos for n in (v.name, v.stem)}
    if not names & found.keys():
        first = next(iter(found), "nothing")
        raise InputError(
            f"captions {path} name {first!r} but none of the {len(videos)} videos", f"names like {videos[0].name}", ""
        )
    return found


def _claim(out: Path, config: PrepareConfig) -> None:
    """Refuse a folder whose shards were made with other settings."""
    file, settings = out / "prepare.json", config.settings()
    if file.exists():
        there = json.loads(file.read_text(encoding="utf-8"))
        for key in settings:
            if there.get(key) != settings[key]:
                raise InputError(
                    f"{out} was prepared with {key} = {there.get(key)!r}, now {settings[key]!r}",
                    "one setting a folder",
                    "--out NEW",
                )
        return
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _run(jobs: list[tuple], workers: int, ray_address: str | None) -> Iterator[Row]:
    if ray_address is not None:
        yield from _on_ray(jobs, ray_address)
    elif workers <= 1 or len(jobs) == 1:
        for job in jobs:
            yield prepare_one(*job)
    else:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield from pool.map(prepare_one, *zip(*jobs, strict=True))


def _on_ray(jobs: list[tuple], address: str) -> Iterator[Row]:
    try:
        import ray
        from ray.exceptions import RayTaskError
    except ImportError as error:
        raise ResourceError(
            "Ray is not installed", "the package ray[default]", "pip install 'ex4d[train]', or --workers N"
        ) from error
    started = not ray.is_initialized()
    if started:
        ray.init(address=None if address == "local" else address, include_dashboard=False, log_to_driver=False)
    try:
        gpus = 1 if jobs[0][2].device.startswith("cuda") else 0
        work = ray.remote(num_gpus=gpus, num_cpus=1)(prepare_one)
        for result in [work.remote(*job) for job in jobs]:
            try:
                yield ray.get(result)
            except RayTaskError as error:
                raise error.cause if isinstance(error.cause, Ex4dError) else error from error
    finally:
        if started:
            ray.shutdown()


def shard_summary(folder: Path) -> str:
    """A line about prepared data: clips, conditions, bytes, fingerprint."""
    from ex4d.train.data.shards import fingerprint, read_shards

    samples = read_shards(folder)
    size = sum(p.stat().st_size for p in Path(folder).glob("*.tar"))
    kinds = len(samples[0].arrays.get("kind", ()))
    digest = hashlib.sha256(fingerprint(samples).encode()).hexdigest()[:8]
    return f"{len(samples)} clips with {kinds} conditions each, {size / 1e6:.1f} MB, fingerprint {digest}"
