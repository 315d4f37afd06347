"""What a user can choose for `--preset wan14b`; imports no torch, so that `--help` stays instant."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from ex4d.errors import InputError
from ex4d.generators.wan14b.prompts import DEFAULT_NEGATIVE_PROMPT, DEFAULT_PROMPT

ModeName = Literal[
    "bf16", "fp8", "fp8_weight", "int8_weight", "offload_bf16", "offload_fp8", "offload_int8", "sequential"
]


@dataclass(frozen=True)
class Wan14bOptions:
    """Choices of `--preset wan14b`.

    Attributes:
        models: Folder with the weights, looked at before $EX4D_MODELS and the Hugging Face cache.
        base: The base model's own folder, in Wan's original or diffusers' layout.
        adapter: `ex4d.ckpt` or a trained adapter `.safetensors`.
        lora: Extra LoRAs as FILE or FILE:WEIGHT.
        prompt: What the video should be.
        negative_prompt: What it should not be.
        text_embeddings: Precomputed embeddings (.safetensors with positive and negative) instead of prompts.
        precision: auto, bf16, fp8 or int8.
        memory_mode: Force one memory mode.
        vram: Use no more GPU memory than this, such as 12GB.
        device: auto or cpu (float32; only sensible for tiny models).
        compile: Compile the blocks.
        step_cache: Skip most of a step when its first block says that little changed (first_block); approximate.
        step_cache_threshold: Relative change below which a step is skipped.
        steps: Denoising steps; 25 as released.
        guidance: Guidance scale; 5 as released, 1 with distilled LoRAs.
        guidance_mode: sequential, batched or split over GPUs.
        work_size: Size (height, width) that the denoiser works at; default the render's own, cut to sides divisible by 16.
        fit: What to do when the render has another size: crop, pad, fit or exact.
        window: Longest pass in frames, 4k + 1.
        overlap: Frames that windows of a longer clip share.
        erosion: Fixed mask erosion in pixels.
        lead_in: Frames at the start that only lead from the source camera to the path.
        observed: generated, or paste to put seen pixels back.
        reference_rounding: Round and truncate exactly as the release.
        state_dir: Folder where a stopped run keeps its latents.
    """

    models: Path | None = None
    base: Path | None = None
    adapter: Path | None = None
    lora: tuple[str, ...] = ()
    prompt: str = DEFAULT_PROMPT
    negative_prompt: str = DEFAULT_NEGATIVE_PROMPT
    text_embeddings: Path | None = None
    precision: Literal["auto", "bf16", "fp8", "int8"] = "auto"
    memory_mode: ModeName | None = None
    vram: str | None = None
    device: Literal["auto", "cpu"] = "auto"
    compile: bool = True
    step_cache: Literal["none", "first_block"] = "none"
    step_cache_threshold: float = 0.05
    steps: int | None = None
    guidance: float | None = None
    guidance_mode: Literal["sequential", "batched", "split"] = "sequential"
    work_size: tuple[int, int] | None = None
    fit: Literal["exact", "fit", "crop", "pad"] = "crop"
    window: int | None = None
    overlap: int = 17
    erosion: int | None = None
    lead_in: int = 0
    observed: Literal["generated", "paste"] = "generated"
    reference_rounding: bool = False
    state_dir: Path | None = None


def changed_options(options: Wan14bOptions) -> dict[str, object]:
    """What differs from the defaults, by name."""
    return {f.name: value for f in fields(options) if (value := getattr(options, f.name)) != f.default}


def preset_options(preset: str, options: Wan14bOptions, **more: object) -> dict[str, object]:
    """Options for `make_generator`; InputError when they belong to another preset."""
    chosen = changed_options(options)
    if preset == "wan14b":
        return {**more, **chosen}
    if chosen:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise InputError(f"{names} with --preset {preset}", "--preset wan14b for these", "leave them out")
    return {}
