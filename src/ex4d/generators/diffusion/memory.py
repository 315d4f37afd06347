"""What fits: precision, where the weights live, the expected peak and time of a run, and why (before anything is loaded)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ex4d.errors import InputError, ResourceError
from ex4d.models.wan.fast.float8 import Kind
from ex4d.models.wan.files.loading import LoadPolicy
from ex4d.models.wan.lora import LoraUpdate
from ex4d.system.machine import FP8_SPEEDUP, GIB, Device, detect_device

Mode = Literal["bf16", "fp8", "fp8_weight", "int8_weight", "offload_bf16", "offload_fp8", "offload_int8", "sequential"]
#: Fastest and most exact first; a plan is the first that fits.
MODES: tuple[Mode, ...] = (
    "bf16",
    "fp8",
    "fp8_weight",
    "int8_weight",
    "offload_bf16",
    "offload_fp8",
    "offload_int8",
    "sequential",
)
QUANTISED: dict[Mode, Kind] = {
    "fp8": "fp8",
    "fp8_weight": "fp8_weight",
    "int8_weight": "int8_weight",
    "offload_fp8": "fp8",
    "offload_int8": "int8_weight",
    "sequential": "fp8_weight",
}
STREAMED: tuple[Mode, ...] = ("offload_bf16", "offload_fp8", "offload_int8", "sequential")
MODE_WORDS: dict[Mode, str] = {
    "bf16": "bfloat16 weights resident on the GPU",
    "fp8": "fp8 linears resident on the GPU",
    "fp8_weight": "fp8 weights, bfloat16 products, resident on the GPU",
    "int8_weight": "int8 weights, bfloat16 products, resident on the GPU",
    "offload_bf16": "bfloat16 weights in host memory, streamed block by block",
    "offload_fp8": "fp8 linears in host memory, streamed block by block",
    "offload_int8": "int8 weights in host memory, streamed block by block",
    "sequential": "fp8 weights in host memory, one block at a time",
}

#: CUDA context, cuBLAS and cuDNN workspaces, fragmentation.
OVERHEAD_BYTES = int(1.0 * GIB)
#: VAE decode of a 512x512 clip on an H100 peaks at 3.5 GiB, whatever its length (it works four frames at a time).
VAE_BYTES_PER_PIXEL = 3.5 * GIB / (512 * 512)
#: Above this many pixels the VAE works in tiles of 256 px, when memory is short.
VAE_TILE_BYTES = int(1.5 * GIB)
#: Host to GPU, bytes a second, where it was not measured: half of a PCIe 4.0 x16 link.
PCIE_BYTES_PER_S = 16e9


@dataclass(frozen=True)
class ModelSize:
    """A Wan denoiser's size, from its config."""

    dim: int
    ffn_dim: int
    num_layers: int
    text_dim: int
    image_dim: int | None
    in_channels: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelSize:
        """From a `WanTransformer3DModel` config."""
        dim = config["num_attention_heads"] * config["attention_head_dim"]
        names = ("ffn_dim", "num_layers", "text_dim", "image_dim", "in_channels")
        return cls(dim, *(config[name] for name in names))

    @property
    def block_parameters(self) -> int:
        """Values in the matrices of one block."""
        matrices = 8 + (2 if self.image_dim else 0)
        return matrices * self.dim**2 + 2 * self.dim * self.ffn_dim

    @property
    def other_parameters(self) -> int:
        """Values outside the blocks, nearly all in the time projection."""
        image = (self.image_dim or 0) * (self.image_dim or 0) + (self.image_dim or 0) * self.dim
        return 6 * self.dim**2 + 2 * self.dim**2 + self.text_dim * self.dim + image

    def weight_bytes(self, mode: Mode) -> int:
        """Weights on the GPU (all of them, or two blocks and the rest when streamed)."""
        block = self.block_bytes(mode)
        blocks = self.num_layers if mode not in STREAMED else 1 if mode == "sequential" else 2
        return blocks * block + 4 * self.other_parameters

    def block_bytes(self, mode: Mode) -> int:
        """Weights of one block."""
        return self.block_parameters * (1 if mode in QUANTISED else 2)

    def host_bytes(self, mode: Mode) -> int:
        """Pinned host memory: nothing when resident."""
        return self.num_layers * self.block_bytes(mode) if mode in STREAMED else 0

    def flops(self, tokens: int) -> tuple[float, float]:
        """(matrix products, self-attention) of one forward."""
        return 2.0 * tokens * self.block_parameters * self.num_layers, 4.0 * tokens**2 * self.dim * self.num_layers

    def activation_bytes(self, tokens: int) -> int:
        """Residual stream in float32 with its update, q, k, v and attention in bfloat16, the feed-forward before and after GELU."""
        return int(1.15 * tokens * (20 * self.dim + 5 * self.ffn_dim))


@dataclass(frozen=True)
class Work:
    """What one pass through the denoiser sees."""

    num_frames: int
    size_hw: tuple[int, int]
    steps: int = 25
    guided: bool = True
    stride_frames: int = 4
    stride_px: int = 16

    @property
    def tokens(self) -> int:
        """Tokens of one forward."""
        h, w = self.size_hw
        return ((self.num_frames - 1) // self.stride_frames + 1) * (h // self.stride_px) * (w // self.stride_px)


@dataclass(frozen=True)
class MemoryPlan:
    """How a run will use the machine.

    Attributes:
        mode: Precision and place of the weights.
        peak_bytes: Expected peak of GPU memory.
        host_bytes: Pinned host memory.
        seconds: Expected time of the denoising, or None where the card is not known.
        vae_tiling: Whether the VAE works in tiles.
        batched_guidance: Both guidance passes in one forward, so that streamed weights are copied once.
        why: One line.
    """

    mode: Mode
    peak_bytes: int
    host_bytes: int
    seconds: float | None
    vae_tiling: bool
    batched_guidance: bool
    why: str

    def __str__(self) -> str:
        time = "time not known for this card" if self.seconds is None else f"about {self.seconds:.0f} s of denoising"
        return f"{MODE_WORDS[self.mode]}; expected peak {self.peak_bytes / GIB:.1f} GiB, {time}; {self.why}"

    def load_policy(self, device: torch.device | str, lora: LoraUpdate | None = None) -> LoadPolicy:
        """How weights are loaded for this plan."""
        home = "cpu" if self.mode in STREAMED else device
        return LoadPolicy(home, device, torch.bfloat16, QUANTISED.get(self.mode), lora or LoraUpdate())


def estimate(model: ModelSize, work: Work, device: Device, mode: Mode, *, tile_vae: bool = False) -> MemoryPlan:
    """Expected peak and time of one mode on one machine."""
    streamed = mode in STREAMED
    batched = streamed and work.guided
    tokens = work.tokens
    weights = model.weight_bytes(mode)
    denoising = weights + model.activation_bytes(tokens) * (2 if batched else 1)
    vae = VAE_TILE_BYTES if tile_vae else int(VAE_BYTES_PER_PIXEL * work.size_hw[0] * work.size_hw[1])
    peak = max(denoising, weights + vae) + OVERHEAD_BYTES
    return MemoryPlan(mode, peak, model.host_bytes(mode), _seconds(model, work, device, mode), tile_vae, batched, "")


def _seconds(model: ModelSize, work: Work, device: Device, mode: Mode) -> float | None:
    rate = device.flops_per_s
    if rate is None:
        return None
    linear, attention = model.flops(work.tokens)
    forward = linear / rate / (FP8_SPEEDUP if QUANTISED.get(mode) == "fp8" else 1.0) + attention / rate
    passes = 2 if work.guided else 1
    step = passes * forward
    if mode in STREAMED:
        copying = model.num_layers * model.block_bytes(mode) / PCIE_BYTES_PER_S
        step = step + copying if mode == "sequential" else max(step, copying)
    return work.steps * step


def candidate_modes(device: Device, precision: str) -> list[Mode]:
    """Modes that this machine can run at the wanted precision ("auto", "bf16", "fp8" or "int8"), best first."""
    if precision not in ("auto", "bf16", "fp8", "int8"):
        raise InputError(f"precision {precision!r}", "auto, bf16, fp8 or int8", "--precision auto")
    if precision == "fp8" and not device.fp8:
        raise ResourceError(
            f"{device.name} has no fp8 products (compute capability {device.capability[0]}.{device.capability[1]})",
            "8.9 or newer (Ada, Hopper, Blackwell)",
            "--precision int8, or --precision auto",
        )
    wanted = {
        "auto": MODES,
        "bf16": ("bf16", "offload_bf16"),
        "fp8": ("fp8", "offload_fp8"),
        "int8": ("int8_weight", "offload_int8"),
    }[precision]
    return [m for m in wanted if device.fp8 or QUANTISED.get(m) != "fp8"]  # type: ignore[return-value]


def plan_memory(
    model: ModelSize,
    work: Work,
    device: Device | None = None,
    *,
    budget_bytes: int | None = None,
    precision: str = "auto",
    mode: Mode | None = None,
) -> MemoryPlan:
    """The first mode that fits, or a ResourceError that names the plan that would.

    Args:
        model: The denoiser.
        work: One pass.
        device: The machine; detected when left out.
        budget_bytes: Use no more GPU memory than this (`--vram`).
        precision: "auto", "bf16", "fp8" or "int8".
        mode: Force one mode.
    """
    device = device or detect_device()
    if device.kind != "cuda":
        raise ResourceError(
            f"no CUDA GPU here ({device.name})",
            f"one with about {smallest(model, work) / GIB:.0f} GiB or more for this clip",
            "--preset nano or --preset fill, which need none",
        )
    limit = min(budget_bytes or device.free_bytes, device.free_bytes)
    modes: list[Mode] = [mode] if mode else candidate_modes(device, precision)
    best: MemoryPlan | None = None
    for candidate in modes:
        for tile in (False, True):
            plan = estimate(model, work, device, candidate, tile_vae=tile)
            best = plan if best is None or plan.peak_bytes < best.peak_bytes else best
            if plan.peak_bytes <= limit and plan.host_bytes <= max(device.host_bytes, 1):
                return replace(plan, why=_why(plan, limit, modes, budget_bytes is not None))
    assert best is not None
    short = "host memory" if best.peak_bytes <= limit else "GPU memory"
    have = device.host_bytes if best.peak_bytes <= limit else limit
    required = best.host_bytes if best.peak_bytes <= limit else best.peak_bytes
    raise ResourceError(
        f"{have / GIB:.1f} GiB of {short} on {device.name}",
        f"{required / GIB:.1f} GiB for {MODE_WORDS[best.mode]}",
        _smaller(model, work, device, limit),
    )


def smallest(model: ModelSize, work: Work) -> int:
    """GPU memory that the leanest mode needs for this work."""
    nowhere = Device("", "cuda", 0, 0, (8, 9))
    return min(estimate(model, work, nowhere, mode, tile_vae=True).peak_bytes for mode in MODES)


def _why(plan: MemoryPlan, limit: int, modes: list[Mode], budgeted: bool) -> str:
    room = f"{limit / GIB:.1f} GiB {'allowed' if budgeted else 'free'}"
    skipped = modes[: modes.index(plan.mode)]
    if plan.mode == "bf16":
        return f"{room}, and this is the most exact (--precision fp8 is about 1.5 times as fast)"
    if not skipped:
        return f"{room}, as asked"
    return f"{room}, too little for {MODE_WORDS[skipped[-1]]}"


def _smaller(model: ModelSize, work: Work, device: Device, limit: int) -> str:
    """The largest common size and length that would fit, as something to type."""
    host = max(device.host_bytes, 1)
    for frames in (work.num_frames, 49, 33, 17):
        for side in (max(work.size_hw), 768, 640, 512, 384, 256):
            scale = side / max(work.size_hw)
            if frames > work.num_frames or scale > 1:
                continue
            h, w = (max(16, round(s * scale / 16) * 16) for s in work.size_hw)
            small = replace(work, num_frames=frames, size_hw=(h, w))
            for mode in candidate_modes(device, "auto"):
                plan = estimate(model, small, device, mode, tile_vae=True)
                if plan.peak_bytes <= limit and plan.host_bytes <= host:
                    need = plan.peak_bytes / GIB
                    return f"--work-size {w}x{h} --window {frames} with {mode} (about {need:.1f} GiB), or --preset fill"
    return "--preset nano or --preset fill"
