"""The `wan14b` preset: released weights found on this machine, planned for it, and put together when first needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ex4d.errors import InputError, WeightsError
from ex4d.generators.diffusion.generator import WanGenerator, WanSettings
from ex4d.generators.diffusion.memory import STREAMED, MemoryPlan, ModelSize, Work, plan_memory
from ex4d.generators.diffusion.parts import Lazy, WanParts
from ex4d.generators.wan14b.config import Wan14bOptions
from ex4d.generators.wan14b.files import (
    CLIP_FILE,
    T5_FILE,
    TOKENIZER_DIR,
    VAE_FILE,
    Wan14bFiles,
    _file,
    find_files,
    split_weight,
)
from ex4d.models.hub.find import cache_root
from ex4d.models.wan.autoencoder import check_num_frames
from ex4d.models.wan.files.adapter import Adapter, load_adapter, read_torch
from ex4d.models.wan.files.embeddings import cached_embeddings, read_embeddings
from ex4d.models.wan.files.loading import LoadPolicy, build_transformer
from ex4d.models.wan.files.lora_files import read_lora
from ex4d.models.wan.files.original import load_image_encoder, load_text_encoder, load_vae, stream_tensors
from ex4d.models.wan.lora import LoraUpdate
from ex4d.models.wan.sizes import CONFIG_14B
from ex4d.models.wan.text import TextEmbeddings, encode_prompts, stream_encoder
from ex4d.pixels.sizing import plan_size
from ex4d.system.machine import detect_device, parse_bytes, use_growing_segments

#: Wan's VAE: frames of a latent frame, pixels of a latent pixel.
STRIDES = (4, 8)


def settings_of(options: Wan14bOptions) -> WanSettings:
    """What the generator itself needs of the options."""
    return WanSettings(
        steps=options.steps,
        guidance=options.guidance,
        size_hw=options.work_size,
        fit=options.fit,
        window=options.window,
        overlap=options.overlap,
        erosion_px=options.erosion,
        lead_in=options.lead_in,
        observed=options.observed,
        guidance_mode=options.guidance_mode,
        reference=options.reference_rounding,
        state_dir=options.state_dir,
    )


def make(announce: Callable[[str], None] | None = None, **options: Any) -> WanGenerator:
    """The generator: everything that can be refused is refused here or at the first window, before weights are loaded."""
    chosen = Wan14bOptions(**options)
    settings = settings_of(chosen)
    device = _device(chosen)
    files = find_files(chosen)
    adapter = load_adapter(files.adapter)
    update = adapter.update()
    for text in chosen.lora:
        update = update + read_lora(*split_weight(text))
    size = ModelSize.of(files.config)
    if adapter.config.dim != size.dim:
        raise WeightsError(
            f"{files.adapter} was trained for a denoiser {adapter.config.dim} wide",
            f"{size.dim}, the width of {files.base}",
            "--base with the model it was trained on",
        )
    _check_split(chosen)
    say = announce or (lambda line: print(line, file=sys.stderr))
    parts = _parts(chosen, files, adapter, update, device)
    if device.type == "cuda":
        parts = replace(parts, prepare=lambda p, work: _planned(p, work, chosen, files, adapter, update, size, say))
    return WanGenerator(parts, settings)


def preflight(**options: Any) -> None:
    """Refuse what can be refused without reading weights: options, no GPU, missing files, memory for the smallest clip."""
    chosen = Wan14bOptions(**options)
    settings = settings_of(chosen)
    if settings.window is not None:
        check_num_frames(settings.window, STRIDES[0])
    if settings.size_hw is not None:
        plan_size(settings.size_hw, settings.size_hw, "exact", 2 * STRIDES[1])
    budget = parse_bytes(chosen.vram) if chosen.vram else None
    _device(chosen)
    files = find_files(chosen)
    for text in chosen.lora:
        if not split_weight(text)[0].is_file():
            raise InputError(f"no LoRA at {split_weight(text)[0]}", "a .safetensors file", "--lora FILE:WEIGHT")
    if chosen.device != "cpu":
        work = Work(settings.window or 17, settings.size_hw or (256, 256), settings.steps or 25)
        size = ModelSize.of(files.config)
        plan_memory(size, work, budget_bytes=budget, precision=chosen.precision, mode=chosen.memory_mode)


def describe(vram: str | None = None, num_frames: int = 49, size_hw: tuple[int, int] = (512, 512)) -> list[str]:
    """Lines for `ex4d doctor --preset wan14b`: the plan for this machine, without any weights."""
    plan = plan_memory(
        ModelSize.of(CONFIG_14B), Work(num_frames, size_hw), budget_bytes=parse_bytes(vram) if vram else None
    )
    return [f"wan14b, {num_frames} frames of {size_hw[1]}x{size_hw[0]}: {plan}"]


def _device(options: Wan14bOptions) -> torch.device:
    """The GPU, or a ResourceError that says what would work."""
    if options.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        plan_memory(ModelSize.of(CONFIG_14B), Work(49, (512, 512)), detect_device())  # raises: there is no CUDA GPU
    use_growing_segments()
    return torch.device("cuda", torch.cuda.current_device())


def _parts(
    options: Wan14bOptions, files: Wan14bFiles, adapter: Adapter, update: LoraUpdate, device: torch.device
) -> WanParts:
    """Parts in float32 on the CPU, or on the GPU as they are before the memory plan is made."""
    wide = device.type == "cpu"
    dtype = torch.float32 if wide else torch.bfloat16
    return WanParts(
        name="wan14b",
        transformer=Lazy(lambda: _denoiser(files, LoadPolicy(device, device, dtype, None, update))),
        vae=Lazy(lambda: _vae(files).to(device=device, dtype=dtype)),  # type: ignore[call-arg]
        geometry_encoder=Lazy(lambda: adapter.geometry_encoder().to(device, dtype).requires_grad_(False)),
        text=Lazy(lambda: _text(options, files, device)),
        image_encoder=Lazy(lambda: _image_encoder(files)),
        device=device,
        mask_affine=adapter.config.mask_affine,
        manifest={
            "base": str(files.base),
            "adapter": str(files.adapter),
            "in_channels": files.config["in_channels"],
            "lora": list(options.lora),
            "prompt": options.prompt,
            "negative_prompt": options.negative_prompt,
        },
    )


def _planned(
    parts: WanParts,
    work: Work,
    options: Wan14bOptions,
    files: Wan14bFiles,
    adapter: Adapter,
    update: LoraUpdate,
    size: ModelSize,
    say: Callable[[str], None],
) -> WanParts:
    """Choose a memory mode for the actual clip and hang the denoiser up accordingly."""
    budget = parse_bytes(options.vram) if options.vram else None
    plan = plan_memory(size, work, budget_bytes=budget, precision=options.precision, mode=options.memory_mode)
    say(f"wan14b: {plan}")
    if budget is not None:
        total = torch.cuda.get_device_properties(parts.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), parts.device)
    parts.text.get()  # before the denoiser is there
    return replace(
        parts,
        transformer=Lazy(lambda: _placed(files, plan, parts.device, update, options)),
        vae_tiling=plan.vae_tiling,
        batched_guidance=plan.batched_guidance,
        manifest={**parts.manifest, "plan": str(plan), "mode": plan.mode},
    )


def _placed(files: Wan14bFiles, plan: MemoryPlan, device: torch.device, update: LoraUpdate, options: Wan14bOptions):
    from ex4d.models.wan.fast.streaming import compile_blocks, stream_blocks

    model = _denoiser(files, plan.load_policy(device, update))
    if options.compile and options.step_cache == "none":
        compile_blocks(model, fullgraph=plan.mode not in STREAMED)
    if options.step_cache == "first_block":
        from diffusers import FirstBlockCacheConfig  # type: ignore[attr-defined]

        model.enable_cache(FirstBlockCacheConfig(threshold=options.step_cache_threshold))
    if plan.mode in STREAMED:
        stream_blocks(model, device, prefetch=plan.mode != "sequential")
    _use_all_gpus(model, options, files)
    return model


def _denoiser(files: Wan14bFiles, policy: LoadPolicy):
    return build_transformer(files.config, stream_tensors(files.denoiser), policy, source=str(files.base))


def _check_split(options: Wan14bOptions) -> None:
    """Raise unless guidance that is to be split has two or more processes."""
    if options.guidance_mode != "split":
        return
    from ex4d.models.wan.fast.parallel import init_distributed

    _, world = init_distributed()
    if world == 1:
        raise InputError(
            "--guidance-mode split on one process", "two or more GPUs", "torchrun --nproc-per-node 2 -m ex4d run ..."
        )


def _use_all_gpus(model, options: Wan14bOptions, files: Wan14bFiles) -> None:
    if options.guidance_mode != "split":
        return
    import torch.distributed as dist

    from ex4d.models.wan.fast.parallel import ParallelLayout, parallelise

    layout = ParallelLayout.choose(dist.get_world_size(), files.config["num_attention_heads"])
    model.guidance_group = parallelise(model, layout)


def _vae(files: Wan14bFiles):
    if files.diffusers:
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        return AutoencoderKLWan.from_pretrained(str(files.base), subfolder="vae").eval().requires_grad_(False)
    return load_vae(read_torch(_file(files.base, VAE_FILE)), VAE_FILE).requires_grad_(False)


def _image_encoder(files: Wan14bFiles):
    """The image tower in float32 in host memory; it visits the GPU before the denoiser is there and never beside it."""
    if files.config.get("image_dim") is None:
        return None
    if files.diffusers:
        from transformers import CLIPVisionModel

        return CLIPVisionModel.from_pretrained(str(files.base / "image_encoder"), dtype=torch.float32).eval()
    path = _file(files.base, CLIP_FILE)
    heads = _clip_heads_beside(files.base)
    return load_image_encoder(read_torch(path), heads, CLIP_FILE).requires_grad_(False)


def _clip_heads_beside(base: Path) -> int | None:
    """Head count of an unofficial image tower, from `image_num_heads` in config.json."""
    import json

    path = base / "config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("image_num_heads") if path.is_file() else None


def _text(options: Wan14bOptions, files: Wan14bFiles, device: torch.device) -> TextEmbeddings:
    """Embeddings from a file, the cache, or the text encoder streamed through the GPU."""
    if options.text_embeddings is not None:
        return read_embeddings(options.text_embeddings)

    def encode(prompts: Sequence[str]) -> list[Tensor]:
        from transformers import AutoTokenizer

        if files.diffusers:
            from transformers import UMT5EncoderModel

            folder = files.base / "tokenizer"
            encoder = UMT5EncoderModel.from_pretrained(str(files.base / "text_encoder"), dtype=torch.bfloat16).eval()
        else:
            folder = files.base / TOKENIZER_DIR
            dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
            encoder = load_text_encoder(read_torch(_file(files.base, T5_FILE)), T5_FILE, dtype)
        if not folder.is_dir():
            raise WeightsError(f"no tokenizer at {folder}", "Wan's umT5 tokenizer", "ex4d models download wan14b")
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        return encode_prompts(stream_encoder(encoder, device), tokenizer, prompts)

    prompts = (options.prompt, options.negative_prompt)
    return cached_embeddings(prompts, cache_root() / "text", f"{files.base.name}/umt5-xxl", encode)
