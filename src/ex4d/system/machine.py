"""What the machine has: its accelerator, memory and speed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import torch

from ex4d.errors import InputError

GIB = 2**30


#: Denser than any card reaches: share of the peak rate that this model's forwards sustained on an H100 (626 of 989 TFLOP/s).
EFFICIENCY = 0.63


#: Rowwise fp8 linears ran 1.9 times as fast as bfloat16 ones on an H100.
FP8_SPEEDUP = 1.9


#: Dense bfloat16 TFLOP/s of common cards, from their makers' data sheets; first match wins.
PEAK_TFLOPS = {
    "H100": 989.0,
    "H200": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "RTX 6000 Ada": 364.0,
    "5090": 210.0,
    "5080": 113.0,
    "4090": 165.0,
    "4080": 98.0,
    "3090": 71.0,
    "A6000": 155.0,
    "A10": 125.0,
    "L4": 121.0,
    "T4": 65.0,
}


@dataclass(frozen=True)
class Device:
    """What a plan needs to know of a machine.

    Attributes:
        name: As the driver says.
        kind: "cuda", "mps" or "cpu".
        total_bytes: Memory of the GPU.
        free_bytes: What is free now.
        capability: CUDA compute capability.
        host_bytes: Host memory available now.
    """

    name: str
    kind: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int] = (0, 0)
    host_bytes: int = 0

    @property
    def fp8(self) -> bool:
        """Whether fp8 products run on it."""
        return self.kind == "cuda" and self.capability >= (8, 9)

    @property
    def flops_per_s(self) -> float | None:
        """Sustained bfloat16 rate, or None for a card that is not in the table."""
        peak = next((tflops for word, tflops in PEAK_TFLOPS.items() if word in self.name), None)
        return None if peak is None else peak * 1e12 * EFFICIENCY


def detect_device() -> Device:
    """The machine's first GPU, or its CPU."""
    import psutil

    host = psutil.virtual_memory().available
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info(0)
        return Device(properties.name, "cuda", total, free, (properties.major, properties.minor), host)
    if torch.backends.mps.is_available():
        total = torch.mps.recommended_max_memory()
        return Device("Apple GPU", "mps", total, min(total, host), host_bytes=host)
    return Device("CPU", "cpu", 0, 0, host_bytes=host)


def use_growing_segments() -> None:
    """Let the CUDA allocator grow its segments instead of keeping one for each size that ever was.

    Autoencoder, loading and denoiser leave segments of different sizes behind: an fp8 run reserved 22.3 GiB on an H100 where
    weights and activations add up to 18.4. Call it before the first allocation; a user's own PYTORCH_CUDA_ALLOC_CONF stays.
    """
    if os.name == "nt" or any(name in os.environ for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")):
        return
    setter = getattr(torch._C, "_accelerator_setAllocatorSettings", None) or torch.cuda.memory._set_allocator_settings
    setter("expandable_segments:True")


def parse_bytes(text: str) -> int:
    """`12GB`, `11.5GiB`, `800MB`, or plain bytes."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise InputError(f"memory size {text!r}", "a number and a unit", "--vram 12GB")
    power = " KMGT".index(match[2].upper() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
