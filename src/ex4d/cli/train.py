"""`ex4d train prepare | run | cost | masks | export`: from a folder of videos to an adapter."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

#: name -> (function, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "prepare": ("ex4d.cli.train:prepare", "cache latents, conditions and text of a folder of videos"),
    "masks": ("ex4d.cli.train:masks", "statistics and pictures of the simulated masks of prepared data"),
    "cost": ("ex4d.cli.train:cost", "memory, time and floating-point work of a run, before it starts"),
    "run": ("ex4d.cli.train:run", "train the adapter or a whole small model; the same command resumes"),
    "export": ("ex4d.cli.train:export", "write the adapter of a run's newest checkpoint"),
}


def run(
    config: Positional[Path],
    /,
    out: Path = Path("runs/adapter"),
    minutes: float | None = None,
    restart_from: Path | None = None,
    cpu: bool = False,
) -> None:
    """Train by a configuration file.

    Args:
        config: YAML file; recipes/ has examples.
        out: Run folder: checkpoints, log.jsonl, TensorBoard events, and the adapter at the end.
        minutes: Wall-clock budget: write a checkpoint, stop in time, and let the same command go on later.
        restart_from: A checkpoint or portable folder whose weights start this run, on any machine; the optimiser starts anew
            with warm-up.
        cpu: Train on the CPU even where there is a GPU.
    """
    started = time.monotonic()
    from ex4d.train.config import load_config
    from ex4d.train.cost import describe, estimate
    from ex4d.train.train import train

    settings = load_config(config)
    print(describe(estimate(settings)), flush=True)
    result = train(settings, out, minutes=minutes, restart_from=restart_from, cpu=cpu, started=started)
    state = "finished" if result.finished else "time is up; the same command goes on"
    print(f"step {result.step} of {settings.loop.steps}, {result.seconds:.0f} s, {result.skipped} skipped: {state}")


def export(run_folder: Positional[Path], /, cpu: bool = True) -> None:
    """Write what `generate` loads, from a run's newest checkpoint and its averaged weights.

    Args:
        run_folder: The `--out` of `ex4d train run`.
    """
    from ex4d.train.config import load_config
    from ex4d.train.train import make_trainer

    trainer = make_trainer(load_config(run_folder / "config.yaml"), run_folder, cpu=cpu)
    for path in trainer.export():
        print(path)


def cost(config: Positional[Path], /, gpu_tflops: Annotated[float, "bf16 matmul rate of one GPU"] = 775.0) -> None:
    """Print what a run will need: GPU memory by part, work and time a step, days in all.

    Args:
        config: YAML file.
    """
    from ex4d.train.config import load_config
    from ex4d.train.cost import describe, estimate

    print(describe(estimate(load_config(config), gpu_tflops=gpu_tflops)))


def prepare(
    videos: Positional[Path],
    /,
    model: Path,
    out: Path = Path("data"),
    frames: int = 49,
    size: tuple[int, int] = (512, 512),
    depth: str = "none",
    captions: Path | None = None,
    clips_per_video: int = 4,
    variants: int = 2,
    min_sharpness: float = 15.0,
    min_motion: float = 0.05,
    tracker: str = "dense-flow",
    tracker_checkout: str = "",
    tracker_checkpoint: str = "",
    seed: int = 0,
    device: str = "auto",
    workers: int = 1,
    ray_address: str | None = None,
) -> None:
    """Cache what training reads; an interrupted call goes on where it stopped.

    Args:
        videos: Folder of videos, searched with its subfolders.
        model: Folder with vae/, and where the model has them text_encoder/, tokenizer/, image_encoder/ (diffusers' layout).
        out: Folder for the shards.
        frames: Frames a clip, 4k + 1.
        size: Height and width, multiples of 16.
        depth: Depth model, a folder of NAME.npz files, "plane", or "none": then no rendering masks.
        captions: CSV, JSON or JSON lines of file names and captions.
        clips_per_video: Most clips from one video.
        variants: Masks of each kind per clip.
        min_sharpness: Least variance of the Laplacian.
        min_motion: Least mean motion, pixels at 256 wide.
        tracker: dense-flow, lucas-kanade, or cotracker3 (CC-BY-NC 4.0, from local files).
        tracker_checkout: Folder of the co-tracker repository.
        tracker_checkpoint: Its scaled_offline.pth.
        seed: Of everything random.
        device: cpu, cuda, or auto.
        workers: Videos worked on at once, on this machine.
        ray_address: A Ray cluster's address, or "local".
    """
    import torch

    from ex4d.train.masks.make import MaskRule
    from ex4d.train.prepare.clips import ClipFilter
    from ex4d.train.prepare.prepare import PrepareConfig, shard_summary
    from ex4d.train.prepare.prepare import prepare as prepare_all

    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    config = PrepareConfig(
        str(model),
        frames,
        size,
        clips_per_video,
        depth,
        tracker,
        tracker_checkout,
        tracker_checkpoint,
        MaskRule(variants),
        ClipFilter(min_sharpness, min_motion=min_motion),
        seed,
        device,
    )
    prepare_all(videos, out, config, captions=captions, workers=workers, ray_address=ray_address)
    print(shard_summary(out))


def masks(
    data: Positional[Path],
    /,
    out: Path = Path("mask_report"),
    videos: Path | None = None,
    depth: str = "plane",
    frames: int = 49,
    size: tuple[int, int] = (256, 256),
) -> None:
    """Coverage of each kind of mask in prepared data, as a table and plots; with VIDEOS also beside real renders.

    Args:
        data: Folder of shards.
        out: Where the table and pictures go.
        videos: Clips to simulate masks for and to render along real test paths, for the comparison.
        depth: Their depth: a model, a folder of NAME.npz files, or "plane".
        frames: Frames a clip.
        size: Height and width.
    """
    from ex4d.train.prepare.mask_statistics import compare_with_renders, report_data

    print(report_data(data, out))
    if videos is not None:
        print(compare_with_renders(videos, out, depth=depth, frames=frames, size_hw=size))
