"""Building what is trained: the base, its adapter, and which weights require gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ex4d.errors import InputError
from ex4d.models.wan.geometry_encoder import GeometryEncoder
from ex4d.models.wan.lora import attach_lora
from ex4d.models.wan.transformer import Ex4dTransformer
from ex4d.train.config import ModelConfig
from ex4d.train.cost import WAN_14B
from ex4d.train.flow import FlowModule

__all__ = ["WAN_14B", "build_flow_module", "checkpoint_activations", "load_base", "seeded"]


def build_flow_module(
    config: ModelConfig, *, seed: int, device: torch.device | str = "cpu", precision: str = "bf16"
) -> FlowModule:
    """The module of a training run, with gradients required exactly where it is trained.

    Everything trained is float32. The frozen base of an adapter is bfloat16 with float32 where the release keeps it (METHOD
    6.7), or float32 throughout when `precision` is "fp32", which uses no autocast.
    """
    with seeded(seed):
        transformer = load_base(config, device, precision)
        if precision == "bf16":
            keep_float32_parts(transformer)
        if config.train == "base":
            return FlowModule(transformer.float(), None)
        encoder = _encoder(transformer, config, device)
        if config.train == "whole":
            return FlowModule(transformer.float(), encoder)
        transformer.requires_grad_(False)
        transformer.cast_compute_(torch.bfloat16 if precision == "bf16" else torch.float32)
        attach_lora(transformer, config.lora_rank, config.lora_alpha)
        if precision == "bf16":
            keep_activations_narrow(transformer)
        return FlowModule(transformer, encoder)


def load_base(config: ModelConfig, device: torch.device | str, precision: str = "bf16") -> Ex4dTransformer:
    """The denoiser from a folder, or with random weights of given sizes."""
    if config.base:
        path = Path(config.base)
        if not (path / "config.json").is_file():
            raise InputError(
                f"model.base {path} has no config.json", "a folder of a WanTransformer3DModel", "ex4d models list"
            )
        dtype = torch.bfloat16 if config.train == "adapter" and precision == "bf16" else torch.float32
        return Ex4dTransformer.from_pretrained(path, torch_dtype=dtype).to(device)  # type: ignore[return-value]
    if not config.sizes:
        raise InputError("model.base and model.sizes are both empty", "one of them", "base: FOLDER")
    narrow = config.train == "adapter" and precision == "bf16"  # 16 billion float32 values would not fit one GPU
    try:
        with torch.device(device), default_dtype(torch.bfloat16 if narrow else torch.float32):
            return Ex4dTransformer(**config.sizes)
    except TypeError as error:
        raise InputError(
            f"model.sizes: {error}", "arguments of WanTransformer3DModel", "num_layers, ffn_dim, ..."
        ) from error


def keep_activations_narrow(transformer: nn.Module) -> None:
    """Let LoRA layers read bfloat16 inputs as they are; autocast narrows the small matrices instead of widening the input."""
    for layer in transformer.modules():
        if hasattr(layer, "cast_input_dtype_enabled"):
            layer.cast_input_dtype_enabled = False  # type: ignore[assignment]


#: Parts that the release computes in float32 (METHOD 6.7), as generation does.
FLOAT32_PARTS = ("condition_embedder.time_embedder", "condition_embedder.time_proj", "patch_embedding", "proj_out")


def keep_float32_parts(transformer: nn.Module) -> None:
    """Run the patch embedding, time embedding and head outside autocast, as they run in generation."""
    for name in FLOAT32_PARTS:
        part = transformer.get_submodule(name)
        part.forward = _outside_autocast(part.forward)


def _outside_autocast(inner: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return inner(x.float())

    return forward


def checkpoint_activations(module: FlowModule) -> None:
    """Recompute each block in the backward pass (non-reentrant)."""
    module.transformer.enable_gradient_checkpointing()  # type: ignore[operator]


def _encoder(transformer: Ex4dTransformer, config: ModelConfig, device: torch.device | str) -> nn.Module:
    sizes = transformer.config
    with torch.device(device):
        return GeometryEncoder(
            transformer.dim,
            hidden_channels=config.geometry_hidden,
            latent_channels=int(sizes["out_channels"]),
            patch_size=tuple(sizes["patch_size"]),
        )


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Build floating parameters in this type for the length of the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initialise weights from a seed without touching the caller's random state."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
