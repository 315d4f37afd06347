"""How long, and in how much memory, does each depth estimator take for one frame, at its released size?

    python benchmarks/depth.py --out benchmarks/results/depth.md      # a CUDA GPU, about two minutes
    python benchmarks/depth.py --tiny                                 # tiny networks on the CPU, seconds

Weights are random: speed does not depend on their values. The networks are built from configurations of the released sizes.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ex4d.depth.estimators.crafter_windows import Windows
from ex4d.depth.estimators.depth_crafter import DepthCrafterDepth
from ex4d.depth.estimators.frame_model import FrameModel, kind_of
from ex4d.depth.estimators.preprocess import Preprocess
from ex4d.depth.estimators.video_depth_anything import KEYFRAMES, VideoDepthAnythingDepth, network_size
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.models.depth.depth_crafter import CrafterParts
from ex4d.models.depth.video_depth_anything import WINDOW, VideoDepthAnything, released_config
from ex4d.system.array_store import ArrayStore

#: Constants of OpenAI's CLIP (public).
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
GIB = 2**30


def filled(build: Callable[[], Any], device: str, dtype: torch.dtype) -> Any:
    """A network with random weights, made on the device without a second copy in memory."""
    with torch.device("meta"):
        network = build()
    network = network.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.normal_(0, 0.02, generator=generator)
        for name, tensor in network.named_buffers():
            if tensor.is_floating_point():
                tensor.normal_(0, 0.02, generator=generator)
            elif name.endswith("position_ids"):
                tensor.copy_(torch.arange(tensor.numel(), device=device).view_as(tensor))
            else:
                tensor.zero_()
    return network.eval()


def dinov2(hidden: int, layers: int, heads: int, taps: list[int], **more: Any) -> Any:
    from transformers import Dinov2Config

    defaults = {"image_size": 518, "patch_size": 14, "reshape_hidden_states": False, "apply_layernorm": True}
    return Dinov2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        out_indices=taps,
        **{**defaults, **more},
    )


def dpt(size: int, multiple: int = 14) -> Preprocess:
    return Preprocess("dpt", (size, size), True, multiple, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def depth_anything(size: str) -> tuple[Any, Preprocess]:
    """Small and large differ in the encoder and in the widths of the head."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    return DepthAnythingForDepthEstimation, (
        DepthAnythingConfig(**_dpt_sizes(size)),
        dpt(70 if size == "tiny" else 518),
    )


def prompt_depth_anything(size: str) -> tuple[Any, Any]:
    from transformers import PromptDepthAnythingConfig, PromptDepthAnythingForDepthEstimation

    config = PromptDepthAnythingConfig(**_dpt_sizes(size))
    return PromptDepthAnythingForDepthEstimation, (config, dpt(70 if size == "tiny" else 756))


def _dpt_sizes(size: str) -> dict[str, Any]:
    if size == "tiny":
        back = dinov2(32, 4, 2, [1, 2, 3, 4], image_size=70)
        return _head(back, 32, [8, 8, 16, 16], 16, 8)
    if size == "small":
        return _head(dinov2(384, 12, 6, [3, 6, 9, 12]), 384, [48, 96, 192, 384], 64, 32)
    return _head(dinov2(1024, 24, 16, [5, 12, 18, 24]), 1024, [256, 512, 1024, 1024], 256, 32)


def _head(backbone: Any, hidden: int, neck: list[int], fusion: int, head: int) -> dict[str, Any]:
    return {
        "backbone_config": backbone,
        "reassemble_hidden_size": hidden,
        "neck_hidden_sizes": neck,
        "fusion_hidden_size": fusion,
        "head_hidden_size": head,
    }


def depth_pro(size: str) -> tuple[Any, Any]:
    from transformers import DepthProConfig, DepthProForDepthEstimation

    tiny = size == "tiny"
    side = 32 if tiny else 384

    def encoder() -> Any:
        from transformers import Dinov2Config

        if tiny:
            return Dinov2Config(
                image_size=32,
                patch_size=8,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                use_mask_token=False,
            )
        return Dinov2Config(
            image_size=384,
            patch_size=16,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            use_mask_token=False,
        )

    widths = (
        {"fusion_hidden_size": 16, "intermediate_hook_ids": [1, 0], "intermediate_feature_dims": [16, 8]}
        if tiny
        else {}
    )
    if tiny:
        widths |= {"scaled_images_feature_dims": [16, 16, 8], "merge_padding_value": 1}
    config = DepthProConfig(
        patch_size=side,
        use_fov_model=True,
        patch_model_config=encoder(),
        image_model_config=encoder(),
        fov_model_config=encoder(),
        **widths,
    )
    pixels = 128 if tiny else 1536
    half = (0.5, 0.5, 0.5)
    return DepthProForDepthEstimation, (
        config,
        Preprocess("depth_pro", (pixels, pixels), False, 1, "bilinear", half, half),
    )


def zoedepth(size: str) -> tuple[Any, Any]:
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation

    tiny = size == "tiny"
    back = BeitConfig(
        image_size=64 if tiny else 384,
        hidden_size=32 if tiny else 1024,
        num_hidden_layers=4 if tiny else 24,
        num_attention_heads=2 if tiny else 16,
        intermediate_size=64 if tiny else 4096,
        use_relative_position_bias=True,
        reshape_hidden_states=False,
        out_indices=[1, 2, 3, 4] if tiny else [6, 12, 18, 24],
    )
    bins = [
        {"n_bins": 8 if tiny else 64, "min_depth": 0.001, "max_depth": top, "name": name}
        for name, top in (("nyu", 10.0), ("kitti", 80.0))
    ]
    more = (
        {
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 16,
            "bottleneck_features": 16,
            "num_relative_features": 8,
            "bin_embedding_dim": 16,
            "patch_transformer_hidden_size": 128,
            "patch_transformer_intermediate_size": 32,
            "patch_transformer_num_attention_heads": 2,
            "num_patch_transformer_layers": 4,
        }
        if tiny
        else {
            "neck_hidden_sizes": [256, 512, 1024, 1024],
            "fusion_hidden_size": 256,
            "num_patch_transformer_layers": 4,
            "patch_transformer_hidden_size": 128,
            "patch_transformer_intermediate_size": 1024,
            "patch_transformer_num_attention_heads": 4,
        }
    )
    config = ZoeDepthConfig(backbone_config=back, bin_configurations=bins, **more)
    half = (0.5, 0.5, 0.5)
    size_hw = (64, 64) if tiny else (384, 512)
    return ZoeDepthForDepthEstimation, (config, Preprocess("zoedepth", size_hw, True, 32, "bilinear", half, half))


PER_FRAME: list[tuple[str, str, Callable[[str], Any], list[str]]] = [
    ("Depth Anything V2", "depth_anything", depth_anything, ["small", "large"]),
    ("Prompt Depth Anything", "prompt_depth_anything", prompt_depth_anything, ["small", "large"]),
    ("ZoeDepth", "zoedepth", zoedepth, ["released"]),
    ("Depth Pro", "depth_pro", depth_pro, ["released"]),
]


def crafter_parts(tiny: bool, device: str, dtype: torch.dtype) -> CrafterParts:
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    cross = 16 if tiny else 1024
    unet = (
        {
            "block_out_channels": (32, 32),
            "layers_per_block": 1,
            "cross_attention_dim": cross,
            "num_attention_heads": (2, 4),
            "addition_time_embed_dim": 16,
            "projection_class_embeddings_input_dim": 48,
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        }
        if tiny
        else {"num_attention_heads": (5, 10, 20, 20)}
    )
    widths = (32, 32, 32, 32) if tiny else (128, 256, 512, 512)
    clip = (
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 32}
        if tiny
        else {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
        }
    )
    config = CLIPVisionConfig(image_size=224, projection_dim=cross, hidden_act="gelu", **clip)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_type="continuous",
        timestep_spacing="leading",
        steps_offset=1,
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    vae = {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "layers_per_block": 1 if tiny else 2,
        "latent_channels": 4,
        "force_upcast": True,
    }
    return CrafterParts(
        filled(lambda: UNetSpatioTemporalConditionModel(in_channels=8, out_channels=4, **unet), device, dtype),
        filled(lambda: AutoencoderKLTemporalDecoder(**vae), device, dtype),
        filled(lambda: CLIPVisionModelWithProjection(config), device, dtype),
        scheduler,
        CLIP_MEAN,
        CLIP_STD,
    )


class Meter:
    """Seconds and peak bytes of a piece of work."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __call__(self, work: Callable[[], Any], repeats: int) -> tuple[float, float]:
        """(least seconds of `repeats` runs after one to warm up, or of that one for 0; peak GiB above nothing)."""
        times = []
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        for _ in range(repeats + 1):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() / GIB if self.device == "cuda" else float("nan")
        return min(times[1:] or times), peak

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def parameters(*networks: torch.nn.Module) -> str:
    return f"{sum(p.numel() for n in networks for p in n.parameters()) / 1e6:.0f} M"


def time_per_frame(device: str, dtype: torch.dtype, tiny: bool, size_hw: tuple[int, int]) -> list[list[str]]:
    """Rows for the models that see one frame at a time; times include resizing in and out and the copies to the host."""
    meter, rows = Meter(device), []
    rng = np.random.default_rng(0)
    for title, family, make, sizes in PER_FRAME:
        for size in ["tiny"] if tiny else sizes:
            try:
                cls, (config, preprocess) = make(size)
            except ImportError as error:  # another transformers than ours: say so, go on with the rest
                print(f"{title} {size}: not timed ({error})", flush=True)
                continue
            try:
                network = filled(lambda cls=cls, config=config: cls(config), device, dtype)
            except (
                NotImplementedError,
                RuntimeError,
            ):  # a constructor that computes with values cannot run on the meta device
                network = cls(config).to(device, dtype).eval()
            model = FrameModel(network, preprocess, family, kind_of(config, family))  # type: ignore[arg-type]
            for batch in (1,) if tiny or family == "depth_pro" else (1, 8):
                frames = rng.integers(0, 255, (batch, *size_hw, 3), dtype=np.uint8)
                prompt = rng.uniform(1, 5, (batch, 192, 256)).astype(np.float32) if "prompt" in family else None
                seconds, peak = meter(lambda m=model, f=frames, p=prompt: m(f, p), 1 if tiny else 5)
                net = preprocess.network_size(size_hw)
                rows.append(
                    [
                        f"{title} {size}",
                        parameters(network),
                        f"{size_hw[1]}x{size_hw[0]} (network {net[1]}x{net[0]})",
                        str(batch),
                        f"{seconds / batch * 1e3:.1f}",
                        f"{peak:.2f}",
                    ]
                )
                print("  ".join(rows[-1]), flush=True)
            del network, model
    return rows


def time_depthcrafter(device: str, dtype: torch.dtype, tiny: bool) -> list[list[str]]:
    """Rows for whole windows of DepthCrafter: 5 steps, or fewer steps and the rest reckoned from them."""
    parts, meter, rows = crafter_parts(tiny, device, dtype), Meter(device), []
    jobs = [((64, 64), 5, 2)] if tiny else [((512, 512), 49, 5), ((576, 1024), 110, 1)]
    for memory in ("fast",) if tiny else ("fast", "low", "lowest"):
        for size_hw, num_frames, steps in jobs:
            if memory != "fast" and num_frames > 49:
                continue
            run = DepthCrafterDepth(
                parts, choose_intrinsics(size_hw), Windows(), steps, device=device, memory=memory, reference=True
            )  # type: ignore[arg-type]
            frames = np.random.default_rng(0).integers(0, 255, (num_frames, *size_hw, 3), dtype=np.uint8)
            marks: dict[str, float] = {}

            def mark(done: int, total: int | None, what: str, marks: dict[str, float] = marks) -> None:
                meter.wait()
                marks[what.split()[-1]] = time.perf_counter()

            def work(run: Any = run, frames: Any = frames, mark: Any = mark, marks: Any = marks) -> None:
                marks["start"] = time.perf_counter()
                for _ in run.decoded([frames], 42, mark):
                    pass

            seconds, peak = meter(work, 1 if num_frames <= 49 else 0)
            denoise = (marks["denoising"] - marks["encoding"]) / steps * 5
            total = (marks["encoding"] - marks["start"]) + denoise + (marks["decoding"] - marks["denoising"])
            rows.append(
                [
                    f"DepthCrafter, memory {memory}",
                    parameters(parts.unet, parts.vae, parts.image_encoder),
                    f"{size_hw[1]}x{size_hw[0]}",
                    f"window of {num_frames}",
                    f"{total / num_frames * 1e3:.0f} (encode {(marks['encoding'] - marks['start']) / num_frames * 1e3:.0f}, "
                    f"5 steps {denoise / num_frames * 1e3:.0f}, decode {(marks['decoding'] - marks['denoising']) / num_frames * 1e3:.0f})",
                    f"{peak:.2f}",
                ]
            )
            print("  ".join(rows[-1]), f"({seconds:.1f} s measured)", flush=True)
    return rows


def time_video_depth_anything(device: str, dtype: torch.dtype, size_hw: tuple[int, int]) -> list[list[str]]:
    """Rows for whole windows of 32 frames."""
    from transformers import DepthAnythingForDepthEstimation

    meter, rows = Meter(device), []
    for size, width in (("small", 384), ("large", 1024)):
        network = filled(
            lambda width=width: VideoDepthAnything(DepthAnythingForDepthEstimation(released_config(width))),
            device,
            dtype,
        )
        run = VideoDepthAnythingDepth(network, choose_intrinsics(size_hw))
        frames = np.random.default_rng(0).integers(0, 255, (WINDOW, *size_hw, 3), dtype=np.uint8)
        with ArrayStore() as store:
            seconds, peak = meter(lambda r=run, f=frames, s=store: r._window(f, s), 3)
        net = network_size(size_hw)
        new_frames = WINDOW - len(KEYFRAMES)
        rows.append(
            [
                f"Video Depth Anything {size}",
                parameters(network),
                f"{size_hw[1]}x{size_hw[0]} (network {net[1]}x{net[0]})",
                f"window of {WINDOW}, {new_frames} new",
                f"{seconds / new_frames * 1e3:.1f}",
                f"{peak:.2f}",
            ]
        )
        print("  ".join(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try the script on a CPU")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() and not args.tiny else "cpu"
    if device == "cpu" and not args.tiny:
        raise SystemExit("no CUDA device; try: python benchmarks/depth.py --tiny")
    dtype = torch.float16 if device == "cuda" else torch.float32
    start = time.perf_counter()
    head = ["estimator", "parameters", "frames", "frames at once", "ms a frame", "peak GiB"]
    rows = time_per_frame(device, dtype, args.tiny, (90, 140) if args.tiny else (512, 512))
    if not args.tiny:
        rows += time_video_depth_anything(device, dtype, (512, 512))
    rows += time_depthcrafter(device, dtype, args.tiny)
    machine = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()}-core CPU"
    lines = [
        "# Depth estimators: time and memory a frame",
        "",
        f"{machine}, torch {torch.__version__}, {str(dtype).removeprefix('torch.')}, random weights of the "
        f"{'tiny' if args.tiny else 'released'} sizes; least of five runs (DepthCrafter: one, after one to warm up); "
        "resizing and copies to and from the host included. Peak: all memory that torch holds on the device, weights too.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        f"Made by `python benchmarks/depth.py` in {time.perf_counter() - start:.0f} s.",
        "",
    ]
    print("\n".join(lines))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
