"""Tiny parts for the trainer's tests: random cached clips and a two-layer denoiser."""

from pathlib import Path

import numpy as np

from ex4d.train.config import DataConfig, LoopConfig, ModelConfig, TrainConfig
from ex4d.train.data.shards import ShardWriter
from ex4d.train.mixture import MixtureConfig
from ex4d.train.objective import ObjectiveConfig

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


def write_encoders(folder: Path) -> Path:
    """A Wan VAE of random weights small enough for a test, with the text width of SIZES."""
    import json

    import torch
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    vae.save_pretrained(folder / "vae")
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps({"text_dim": 16}))
    return folder


def write_video(path: Path, frames: int = 12, size=(48, 64), seed: int = 0, step: int = 2) -> Path:
    """A textured picture sliding by."""
    import cv2

    from ex4d.io.video.read import VideoWriter

    noise = np.random.default_rng(seed).integers(0, 255, (size[0], size[1] + step * frames, 3)).astype(np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 1.5)
    with VideoWriter(path, 10, lossless=True) as writer:
        for t in range(frames):
            writer.write(np.ascontiguousarray(picture[:, step * t : step * t + size[1]]))
    return path
