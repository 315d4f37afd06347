"""An encoder in host memory that computes on the GPU once, and is gone from there afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def encoder_device(device: torch.device, home: torch.device, denoiser_there: bool) -> torch.device:
    """Where an encoder may compute: the GPU as long as no denoiser is on it, else its home."""
    return device if device.type == "cuda" and not denoiser_there else home


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """The module's tensors on `device` inside the block; afterwards they are the same host tensors as before, not copied back."""
    tensors = [*module.parameters(), *module.buffers()]
    home = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(device)
        yield module
    finally:
        for tensor, data in zip(tensors, home, strict=True):
            tensor.data = data
        if device.type == "cuda":
            torch.cuda.empty_cache()
