"""From a rasteriser's name to the rasteriser."""

from __future__ import annotations

from ex4d.errors import InputError
from ex4d.render.base import Rasterizer

NAMES = ("auto", "cpu", "cuda", "reference", "nvdiffrast")


def get_rasterizer(name: str = "auto") -> Rasterizer:
    """The rasteriser of this name; "auto" takes the GPU when there is one and the CPU otherwise.

    Raises:
        InputError: An unknown name.
        ResourceError: The machine lacks what the rasteriser needs.
    """
    if name == "auto":
        import torch

        from ex4d.render.cuda import rasterizer as cuda

        return get_rasterizer("cuda" if torch.cuda.is_available() and cuda.available()[0] else "cpu")
    if name == "cpu":
        from ex4d.render.cpu.rasterizer import CpuRasterizer

        return CpuRasterizer()
    if name == "cuda":
        from ex4d.render.cuda.rasterizer import CudaRasterizer

        return CudaRasterizer()
    if name == "reference":
        from ex4d.render.plain import ReferenceRasterizer

        return ReferenceRasterizer()
    if name == "nvdiffrast":
        from ex4d.render.nvdiffrast import NvdiffrastRasterizer

        return NvdiffrastRasterizer()
    raise InputError(f"rasteriser {name!r}", f"one of {', '.join(NAMES)}", "--rasterizer cpu")
