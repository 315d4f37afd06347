"""The low-rank half of the adapter: attached with peft for training, or merged into the weights for speed and undone bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from ex4d.models.wan.keys import check_keys

#: EX-4D release: rank and alpha of its LoRA, so its scale is 1.
RANK = 16
ALPHA = 16.0
#: EX-4D release, in diffusers' names: every attention and feed-forward matrix of a block, but not the image keys and values.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
ADAPTER_NAME = "ex4d"


@dataclass(frozen=True)
class LoraPair:
    """weight += scale * up @ down.

    Attributes:
        down: lora_A, [rank, in].
        up: lora_B, [out, rank].
        scale: alpha / rank times the user's weight.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0

    def delta(self, device: torch.device | str | None = None) -> Tensor:
        """The full-size float32 update."""
        return self.scale * (self.up.to(device, torch.float32) @ self.down.to(device, torch.float32))


@dataclass(frozen=True)
class LoraUpdate:
    """What one or more LoRA files change, by diffusers parameter name.

    Attributes:
        pairs: weight name -> low-rank updates, added in order.
        deltas: parameter name -> full-size update (bias and norm differences of distilled LoRAs).
    """

    pairs: Mapping[str, tuple[LoraPair, ...]] = field(default_factory=dict)
    deltas: Mapping[str, Tensor] = field(default_factory=dict)

    def __add__(self, other: LoraUpdate) -> LoraUpdate:
        pairs = {name: self.pairs.get(name, ()) + other.pairs.get(name, ()) for name in {**self.pairs, **other.pairs}}
        deltas = dict(self.deltas)
        for name, delta in other.deltas.items():
            deltas[name] = deltas[name] + delta if name in deltas else delta
        return LoraUpdate(pairs, deltas)

    def names(self) -> set[str]:
        """Every parameter that changes."""
        return set(self.pairs) | set(self.deltas)

    def apply(self, name: str, value: Tensor) -> Tensor:
        """The parameter with its updates: float32, rounded once to the dtype of `value`; untouched ones are returned as they are."""
        if name not in self.pairs and name not in self.deltas:
            return value
        total = value.float()
        for pair in self.pairs.get(name, ()):
            total = total + pair.delta(value.device)
        if name in self.deltas:
            total = total + self.deltas[name].to(value.device, torch.float32)
        return total.to(value.dtype)


def target_modules(transformer: WanTransformer3DModel) -> list[str]:
    """Names of the linear layers that the release adapts, e.g. `blocks.0.attn1.to_q`."""
    names = (f"{name}." for name, _ in transformer.named_modules() if name.startswith("blocks."))
    plain = {n[:-1].replace(".base_layer", "") for n in names if ".lora_" not in n}
    return sorted(n for n in plain if n.endswith(TARGETS))


def attach_lora(
    transformer: WanTransformer3DModel, rank: int = RANK, alpha: float = ALPHA, adapter_name: str = ADAPTER_NAME
) -> dict[str, torch.nn.Parameter]:
    """Freeze the base, inject peft LoRA layers that start as the identity, and return the new float32 trainable parameters."""
    from peft import LoraConfig

    transformer.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights=True, target_modules=list(TARGETS))  # type: ignore[arg-type]
    transformer.add_adapter(config, adapter_name=adapter_name)
    parameters = lora_parameters(transformer, adapter_name)
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return parameters


def lora_parameters(
    transformer: WanTransformer3DModel, adapter_name: str = ADAPTER_NAME
) -> dict[str, torch.nn.Parameter]:
    """The attached LoRA parameters by portable name: `blocks.0.attn1.to_q.lora_A.weight`."""
    mark = f".{adapter_name}.weight"
    return {
        name.replace(mark, ".weight"): parameter
        for name, parameter in transformer.named_parameters()
        if ".lora_" in name and name.endswith(mark)
    }


def lora_keys(transformer: WanTransformer3DModel) -> list[str]:
    """Portable names of every LoRA tensor that the release would have for this model."""
    return [f"{module}.lora_{half}.weight" for module in target_modules(transformer) for half in "AB"]


@torch.no_grad()
def load_lora(
    transformer: WanTransformer3DModel, state: Mapping[str, Tensor], adapter_name: str = ADAPTER_NAME
) -> None:
    """Copy LoRA tensors by portable name into an attached adapter; every key must match."""
    parameters = lora_parameters(transformer, adapter_name)
    check_keys(state, parameters, "LoRA", "the adapter that was trained for this model")
    for name, parameter in parameters.items():
        parameter.copy_(state[name])


def update_from_state(state: Mapping[str, Tensor], scale: float) -> LoraUpdate:
    """A LoraUpdate from portable names; `scale` is alpha / rank."""
    modules = sorted(key.removesuffix(".lora_A.weight") for key in state if key.endswith(".lora_A.weight"))
    pairs = {
        f"{module}.weight": (LoraPair(state[f"{module}.lora_A.weight"], state[f"{module}.lora_B.weight"], scale),)
        for module in modules
    }
    return LoraUpdate(pairs)


@dataclass
class MergedLora:
    """Undo record of a merge: the original tensors, kept in host memory.

    Attributes:
        originals: parameter name -> its value before the merge.
    """

    originals: dict[str, Tensor]

    @torch.no_grad()
    def unmerge(self, transformer: torch.nn.Module) -> None:
        """Put the originals back, bit for bit."""
        parameters = dict(transformer.named_parameters())
        for name, original in self.originals.items():
            parameters[name].data.copy_(original)
        self.originals = {}


@torch.no_grad()
def merge_lora(transformer: torch.nn.Module, updates: LoraUpdate | Iterable[LoraUpdate]) -> MergedLora:
    """Add updates to the weights in place (float32 sum, one rounding) and return what undoes it."""
    total = updates if isinstance(updates, LoraUpdate) else sum(updates, LoraUpdate())
    parameters = dict(transformer.named_parameters())
    unknown = total.names() - parameters.keys()
    check_keys(
        total.names() - unknown, total.names(), "LoRA", "a LoRA made for this model, on weights that are not quantised"
    )
    originals = {}
    for name in sorted(total.names()):
        parameter = parameters[name]
        originals[name] = parameter.detach().to("cpu", copy=True)
        parameter.data.copy_(total.apply(name, parameter.data))
    return MergedLora(originals)
