"""A training run from its configuration: data, model, loop and export in their order."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.errors import InputError
from ex4d.train.config import TrainConfig, identity_of

if TYPE_CHECKING:
    from ex4d.train.loop import FitResult, Trainer


def make_trainer(config: TrainConfig, out: Path, *, restart_from: Path | None = None, cpu: bool = False) -> Trainer:
    """Read the shards, build the model and restore the newest checkpoint of `out`, if there is one."""
    import torch

    from ex4d.train.data.shards import read_shards
    from ex4d.train.flow import FlowTask
    from ex4d.train.loop import Trainer
    from ex4d.train.models import build_flow_module, checkpoint_activations
    from ex4d.train.parallel import make_accelerator

    samples = read_shards(Path(config.data.path))
    device = make_accelerator(config.loop, cpu=cpu).device
    module = build_flow_module(config.model, seed=config.loop.seed, device=device, precision=config.loop.precision)
    if config.loop.activation_checkpointing:
        checkpoint_activations(module)
    decoder = _decoder(config.model.vae, device) if config.model.vae else None
    task = FlowTask(module, samples, config, torch.device(device), decoder)
    _write_config(config, out)
    return Trainer(task, config.loop, out, identity=identity_of(config), restart_from=restart_from, cpu=cpu)


def train(
    config: TrainConfig,
    out: Path,
    *,
    minutes: float | None = None,
    restart_from: Path | None = None,
    cpu: bool = False,
    started: float | None = None,
) -> FitResult:
    """Train to the last step or to the end of the time budget, and export; a second call goes on where this one stopped."""
    started = time.monotonic() if started is None else started
    trainer = make_trainer(config, Path(out), restart_from=restart_from, cpu=cpu)
    result = trainer.fit(minutes=minutes, started=started)
    if not trainer.sharded:
        trainer.export()
    return result


def _write_config(config: TrainConfig, out: Path) -> None:
    import yaml

    from ex4d.system.atomic import ensure_dir, written_whole

    ensure_dir(Path(out))
    with written_whole(Path(out) / "config.yaml") as temporary:
        text = yaml.safe_dump(_plain(asdict(config)), sort_keys=False)
        temporary.write_text(text, encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _decoder(folder: str, device: Any):
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    if not (Path(folder) / "config.json").is_file():
        raise InputError(f"model.vae {folder} has no config.json", "a folder of an AutoencoderKLWan", "vae: FOLDER")
    vae = AutoencoderKLWan.from_pretrained(folder).to(device).eval().requires_grad_(False)  # type: ignore[attr-defined]
    channels = torch.tensor(vae.config["latents_mean"], device=device).view(1, -1, 1, 1, 1)
    spread = torch.tensor(vae.config["latents_std"], device=device).view(1, -1, 1, 1, 1)
    return lambda z: vae.decode(z * spread + channels, return_dict=False)[0]
