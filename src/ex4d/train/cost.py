"""Memory, work and time of a run, from sizes alone: printed before anything is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ex4d.train.config import TrainConfig

#: Share of the bf16 matmul rate that a step reaches (benchmarks/results/train.md); compiled blocks reach more.
EFFICIENCY = 0.55
#: One H100's measured bf16 matmul rate, TFLOP/s.
H100_TFLOPS = 775.0
GIB = 2**30

#: Wan2.1-I2V-14B (METHOD 6.8), for random-weight runs.
WAN_14B = {
    "in_channels": 36,
    "out_channels": 16,
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "ffn_dim": 13824,
    "num_layers": 40,
    "text_dim": 4096,
    "image_dim": 1280,
    "added_kv_proj_dim": 5120,
    "cross_attn_norm": True,
    "eps": 1e-6,
}


@dataclass(frozen=True)
class BlockWork:
    """Floating-point operations of one forward pass over one example, by what the backward pass does with them.

    Attributes:
        linear: Matrix products with frozen or trained weights.
        attention: Products of activations with activations.
    """

    linear: float
    attention: float

    def step(self, *, checkpointing: bool, trained: bool) -> float:
        """Executed operations of a training step: forward, recomputation, gradients.

        A frozen matrix needs only the gradient of its input (as much as the forward pass), a trained one also its own. Fused
        attention recomputes the scores in its backward pass: five products to the forward pass's two.
        """
        again = 2 if checkpointing else 1
        return again * (self.linear + self.attention) + self.linear * (2 if trained else 1) + 2.5 * self.attention


@dataclass(frozen=True)
class Cost:
    """Estimates for one device.

    Attributes:
        parameters: Weights of the model, and of them the trained ones.
        memory_gib: Part -> GiB.
        step_flop: Executed operations of one step on one device.
        step_seconds: At EFFICIENCY of the matmul rate.
        total_hours: All steps.
    """

    parameters: tuple[int, int]
    memory_gib: dict[str, float]
    step_flop: float
    step_seconds: float
    total_hours: float
    tokens: int


def model_sizes(config: TrainConfig) -> dict[str, Any]:
    """Arguments of the denoiser, from the base's config.json or from the configuration."""
    sizes: dict[str, Any] = dict(config.model.sizes)
    path = Path(config.model.base) / "config.json" if config.model.base else None
    if path and path.is_file():
        sizes = json.loads(path.read_text(encoding="utf-8"))
    elif not sizes:
        sizes = WAN_14B  # nothing to look at yet: the released base
    defaults = {
        "num_attention_heads": 40,
        "attention_head_dim": 128,
        "ffn_dim": 13824,
        "num_layers": 40,
        "text_dim": 4096,
    }
    return {**defaults, "in_channels": 16, "out_channels": 16, "image_dim": None, "added_kv_proj_dim": None, **sizes}


def forward_work(sizes: dict[str, Any], tokens: int, context: int) -> BlockWork:
    """All blocks of one example: `tokens` video tokens that attend to themselves and to `context` text and image tokens."""
    d = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    layers, ffn = sizes["num_layers"], sizes["ffn_dim"]
    linear = 2 * tokens * (6 * d * d + 2 * d * ffn) + 2 * context * 2 * d * d
    attention = 4 * tokens * (tokens + context) * d
    return BlockWork(layers * linear, layers * attention)


def count_parameters(config: TrainConfig, sizes: dict[str, Any]) -> tuple[int, int, int]:
    """(denoiser, LoRA, geometry encoder) weights."""
    d = sizes["num_attention_heads"] * sizes["attention_head_dim"]
    layers, ffn, image = sizes["num_layers"], sizes["ffn_dim"], sizes["image_dim"] is not None
    attention = 4 * (d * d + d) + 2 * d
    cross = attention + (2 * (d * d + d) + d if image else 0)
    block = attention + cross + 2 * d * ffn + ffn + d + 2 * d + 6 * d
    embedders = 256 * d + d * d + 2 * d + 6 * d * d + 6 * d + sizes["text_dim"] * d + d * d + 2 * d
    if image:
        embedders += sizes["image_dim"] * (sizes["image_dim"] + d + 3) + 3 * d
    patches = 4 * d * (sizes["in_channels"] + sizes["out_channels"]) + 3 * d + 4 * sizes["out_channels"]
    rank, hidden = config.model.lora_rank, config.model.geometry_hidden
    lora = layers * rank * (8 * 2 * d + 2 * (d + ffn)) if config.model.train == "adapter" else 0
    encoder = 33 * hidden + 2 * hidden * (hidden + 1) + d * (4 * hidden + 1)
    return layers * block + embedders + patches, lora, 0 if config.model.train == "base" else encoder


def estimate(config: TrainConfig, *, gpu_tflops: float = H100_TFLOPS, processes: int = 1) -> Cost:
    """Sizes from the data's first sample where there is data, else the release's 49 frames of 512x512."""
    sizes = model_sizes(config)
    t, h, w = _latent_size(config)
    tokens, context = t * (h // 2) * (w // 2), 512 + (257 if sizes["image_dim"] is not None else 0)
    d, loop = sizes["num_attention_heads"] * sizes["attention_head_dim"], config.loop
    adapter = config.model.train == "adapter"
    base, lora, encoder = count_parameters(config, sizes)
    trained = lora + encoder if adapter else base + encoder
    work = forward_work(sizes, tokens, context)
    flop = loop.batch * loop.accumulate * work.step(checkpointing=loop.activation_checkpointing, trained=not adapter)
    shard = processes if loop.parallel == "fsdp2" else 1
    # residual stream in float32 per block; inside one block (or all, without recomputation) about 16 bf16 vectors a token
    kept = 4 * tokens * d * (sizes["num_layers"] if loop.activation_checkpointing else 0)
    inside = (2 * (14 * d + 2 * sizes["ffn_dim"]) + 16 * d) * tokens
    inside *= 1 if loop.activation_checkpointing else sizes["num_layers"]
    memory = {
        "frozen weights": (2 * base / shard if adapter else 0) / GIB,
        "trained weights, gradients, AdamW, average": trained * 4 * (5 if loop.ema else 4) / shard / GIB,
        "activations": loop.batch * (kept + inside) / GIB,
    }
    seconds = flop / (EFFICIENCY * gpu_tflops * 1e12)
    return Cost((base + lora + encoder, trained), memory, flop, seconds, seconds * loop.steps / 3600, tokens)


def describe(cost: Cost) -> str:
    """A few lines for the terminal."""
    lines = [
        f"parameters  {cost.parameters[0]:,}, trained {cost.parameters[1]:,}",
        f"tokens      {cost.tokens:,} per example",
        f"memory      {sum(cost.memory_gib.values()):.1f} GiB a GPU: "
        + ", ".join(f"{name} {gib:.1f}" for name, gib in cost.memory_gib.items()),
        f"a step      {cost.step_flop / 1e12:,.1f} TFLOP executed, {cost.step_seconds:.2f} s on an H100 at {EFFICIENCY:.0%}",
        f"the run     {cost.total_hours:,.1f} GPU hours",
    ]
    return "\n".join(lines)


def _latent_size(config: TrainConfig) -> tuple[int, int, int]:
    from ex4d.train.data.shards import read_shard

    for shard in sorted(Path(config.data.path).glob("*.tar"))[:1]:
        for sample in read_shard(shard)[:1]:
            if "latents" in sample.arrays:
                t, h, w = sample.arrays["latents"].shape[1:]
                return t, h, w
    return 13, 64, 64
