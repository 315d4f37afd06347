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
    from ex4d.train.run import train

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
    from ex4d.train.run import make_trainer

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
