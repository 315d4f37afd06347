"""What the loop needs from the thing that is trained, and the two small pieces every such thing uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ex4d.errors import WeightsError
from ex4d.train.data.batches import Draw

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn


class Task(Protocol):
    """Something to train: an adapter on a frozen base, a whole denoiser, an autoencoder, a depth network.

    Attributes:
        module: Its trained parameters are those that require gradients; `loss` calls it through the wrapper it is given.
        fingerprint: Names the training data; a resumed run must show the same one.
    """

    @property
    def module(self) -> nn.Module: ...

    @property
    def fingerprint(self) -> str: ...

    def batch(self, draw: Draw) -> Any:
        """The inputs of one forward pass, on the device; a function of `draw` alone."""
        ...

    def loss(self, module: nn.Module, batch: Any, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (a float32 scalar) and scalars to log, detached; runs under autocast.

        Args:
            module: `self.module`, or the wrapper that trains it on several devices: call this one.
        """
        ...

    def validate(self, module: nn.Module, examples: int) -> dict[str, float]:
        """Scores on held-out data, without gradients; {} when there is none."""
        ...

    def sample(self, module: nn.Module, step: int) -> dict[str, np.ndarray]:
        """Videos to look at, uint8 [T, H, W, 3] each; {} when there is nothing to show."""
        ...

    def export(self, weights: Mapping[str, Tensor], out: Path) -> list[Path]:
        """Write what the rest of the package loads, from trained tensors by name; returns the files."""
        ...


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that require gradients, by their names in `module`."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def load_trained(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy trained tensors by name; WeightsError unless names and shapes are exactly the module's own."""
    import torch

    own = trained_parameters(module)
    if wrong := sorted(own.keys() ^ weights.keys()):
        where = "is missing from" if wrong[0] in own else "is no trained tensor of this model but stands in"
        raise WeightsError(
            f"{wrong[0]} {where} {source} ({len(wrong)} names differ)", "weights of this configuration", ""
        )
    with torch.no_grad():
        for name, p in own.items():
            if p.shape != weights[name].shape:
                raise WeightsError(f"{source}: {name} is {list(weights[name].shape)}", f"{list(p.shape)}", "")
            p.copy_(like(weights[name], p))


def like(tensor: Tensor, p: Tensor) -> Tensor:
    """A whole tensor laid out as `p` is: on its device, in its type, and sharded when `p` is."""
    tensor = tensor.to(p.device, p.dtype)
    if hasattr(p, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor, p.device_mesh, p.placements)  # type: ignore[attr-defined]
    return tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of a sharded one (every process must ask)."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[operator]


@contextmanager
def with_weights(parameters: Mapping[str, torch.nn.Parameter], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Use other weights (the averaged ones) for the length of the block; nothing happens when `weights` is empty."""
    import torch

    if not weights:
        yield
        return
    names = list(parameters)
    own = [parameters[n].data for n in names]
    with torch.no_grad():
        kept = [t.clone() for t in own]
        torch._foreach_copy_(own, [weights[n] for n in names])  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch._foreach_copy_(own, kept)  # type: ignore[attr-defined]
