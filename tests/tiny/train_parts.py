"""Tiny parts for the trainer's tests: random cached clips and a two-layer denoiser."""

from pathlib import Path

import numpy as np

from ex4d.train.config import DataConfig, LoopConfig, ModelConfig, TrainConfig
from ex4d.train.mixture import MixtureConfig
from ex4d.train.objective import ObjectiveConfig
from ex4d.train.shards import ShardWriter

SIZES = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 96,
    "num_layers": 2,
    "image_dim": 20,
    "added_kv_proj_dim": 48,
}


def write_clips(folder: Path, count: int = 4, variants: int = 2, seed: int = 0, size=(2, 4, 4)) -> Path:
    """A shard of random clips with `variants` cached conditions each."""
    random = np.random.default_rng(seed)
    t, h, w = size

    def latents(*shape):
        return random.standard_normal(shape).astype(np.float16)

    with ShardWriter(folder / f"clips-{seed}.tar") as shard:
        for i in range(count):
            hole = random.integers(0, 2, (variants, t, h, w)).astype(np.uint8) * 255
            hole[:, 0] = 0
            arrays = {
                "latents": latents(16, t, h, w),
                "image_latents": latents(16, t, h, w),
                "text": latents(5, 16),
                "image_tokens": latents(257, 20),
                "color_latents": latents(variants, 16, t, h, w),
                "mask_latents": latents(variants, 16, t, h, w),
                "hole": hole,
                "kind": np.arange(variants).astype(np.uint8) % 3,
                "coverage": np.full(variants, 0.5, np.float32),
            }
            shard.write(f"clip{seed}{i}", arrays, {"source": f"video{seed}{i}"})
    return folder


def tiny_config(data: Path, train: str = "adapter", **loop) -> TrainConfig:
    """Float32, four steps, no validation unless asked for."""
    settings = {"steps": 4, "batch": 2, "precision": "fp32", "warmup": 2, "validate_every": 0, "log_every": 1} | loop
    settings.setdefault("activation_checkpointing", False)
    settings.setdefault("tensorboard", False)
    return TrainConfig(
        DataConfig(str(data), held_out=0.0),
        ModelConfig(train=train, sizes=SIZES, lora_rank=4, lora_alpha=4.0, geometry_hidden=24),  # type: ignore[arg-type]
        ObjectiveConfig(),
        MixtureConfig(),
        LoopConfig(**settings),
    )
