"""Weights into a denoiser one tensor at a time: converted, merged with LoRAs, cast or quantised, and never twice in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ex4d.errors import WeightsError
from ex4d.models.wan.fast.float8 import QuantLinear, quantises
from ex4d.models.wan.files.adapter import DOWNLOAD
from ex4d.models.wan.keys import check_keys, diffusers_key
from ex4d.models.wan.lora import LoraUpdate
from ex4d.models.wan.transformer import Ex4dTransformer


@dataclass(frozen=True)
class LoadPolicy:
    """How each tensor lands.

    Attributes:
        device: Where the finished parameters live.
        work_device: Where merging and quantising happen (the GPU, even when the result goes back to host memory).
        dtype: Of everything that is neither quantised nor kept in float32.
        quantise: Linear precision of the blocks: None, "fp8", "fp8_weight" or "int8_weight".
        lora: Updates merged on the way.
    """

    device: torch.device | str = "cpu"
    work_device: torch.device | str | None = None
    dtype: torch.dtype = torch.float32
    quantise: str | None = None
    lora: LoraUpdate = field(default_factory=LoraUpdate)


def build_transformer(
    config: dict[str, Any],
    tensors: Iterable[tuple[str, Tensor]],
    policy: LoadPolicy = LoadPolicy(),
    *,
    source: str = "denoiser",
    progress: Callable[[int, int, str], None] | None = None,
) -> Ex4dTransformer:
    """A denoiser from a stream of (original or diffusers name, tensor); strict about names and shapes.

    At any time one full tensor and its merged copy exist beside the finished parameters.
    """
    with torch.device("meta"):
        model = Ex4dTransformer(**config)
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    check_keys(policy.lora.names() & expected.keys(), policy.lora.names(), "LoRA", "a LoRA made for this base model")
    seen: set[str] = set()
    unexpected: list[str] = []
    for key, value in tensors:
        name = key if key in expected else diffusers_key(key)
        if name is None or name not in expected:
            unexpected.append(key)
            continue
        if tuple(value.shape) != expected[name]:
            raise WeightsError(f"{source}: {key} has shape {tuple(value.shape)}", f"{expected[name]}", DOWNLOAD)
        place_parameter(model, name, value, policy)
        seen.add(name)
        if progress is not None:
            progress(len(seen), len(expected), "loading weights")
    check_keys(seen | set(unexpected), expected, source, DOWNLOAD)
    rebuild_rope(model, policy.device)
    if torch.device(policy.work_device or policy.device).type == "cuda":
        model.fuse_kernels_()
    return model.eval().requires_grad_(False)


@torch.no_grad()
def place_parameter(model: Ex4dTransformer, name: str, value: Tensor, policy: LoadPolicy) -> None:
    """Merge, cast or quantise one tensor and put it into the model."""
    work = policy.work_device or policy.device
    if name in policy.lora.pairs or name in policy.lora.deltas:
        value = policy.lora.apply(name, value.to(work, torch.float32))
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    if leaf == "weight" and isinstance(owner, torch.nn.Linear) and quantises(policy.quantise, name, value):
        linear = QuantLinear.from_weight(value.to(work), policy.quantise, policy.device)  # type: ignore[arg-type]
        linear.bias = owner.bias
        model.set_submodule(owner_name, linear)
        return
    dtype = torch.float32 if model.is_kept_float32(name) else policy.dtype
    if policy.dtype.itemsize > 4:
        dtype = policy.dtype
    tensor = value.to(work).to(dtype).to(policy.device)
    if tensor.data_ptr() == value.data_ptr():
        tensor = tensor.clone()  # the source may be a memory-mapped file
    setattr(owner, leaf, torch.nn.Parameter(tensor, requires_grad=False))


def rebuild_rope(model: Ex4dTransformer, device: torch.device | str) -> None:
    """Recompute the rotary tables, which no checkpoint stores and a meta model lacks."""
    from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

    config = model.config
    model.rope = WanRotaryPosEmbed(
        config["attention_head_dim"], tuple(config["patch_size"]), config["rope_max_seq_len"]
    ).to(device)
