"""One denoising step over several GPUs under `torchrun`: guidance split in two, tokens split with diffusers' Ulysses attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ex4d.errors import InputError


@dataclass(frozen=True)
class ParallelLayout:
    """How a world of GPUs is used: guidance x tokens.

    Attributes:
        guidance: 2 when the two guidance passes run side by side, else 1.
        tokens: GPUs that share one forward.
    """

    guidance: int
    tokens: int

    @classmethod
    def choose(cls, world_size: int, heads: int, guided: bool = True, split_guidance: bool = True) -> ParallelLayout:
        """Guidance first (nothing is exchanged within a forward), then tokens; heads must divide."""
        guidance = 2 if guided and split_guidance and world_size % 2 == 0 else 1
        tokens = world_size // guidance
        if heads % tokens:
            raise InputError(
                f"{world_size} GPUs: {tokens} share one forward but {heads} heads do not divide by that",
                "1, 2, 4, 8 or another divisor",
                f"torchrun --nproc-per-node {2 * guidance if guidance > 1 else 2}",
            )
        return cls(guidance, tokens)


class SplitGuidance:
    """Positive pass on the first half of the GPUs, negative on the second; both exchange the small predictions."""

    def __init__(self, index: int, group: dist.ProcessGroup) -> None:
        self.index = index
        self._group = group

    def gather(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """(positive, negative): the same bytes on every GPU."""
        both = [torch.empty_like(own) for _ in range(2)]
        dist.all_gather(both, own.contiguous(), group=self._group)
        return both[0], both[1]


def parallelise(transformer, layout: ParallelLayout, device_type: str = "cuda") -> SplitGuidance | None:
    """Split a denoiser over the initialised process group; returns the guidance group where guidance is split.

    Compile first (`compile_blocks`): diffusers' hooks stay outside the graph. Every rank must hold the same weights and inputs.
    """
    from torch.distributed.device_mesh import init_device_mesh

    shape = (layout.guidance, 1, layout.tokens)
    mesh = init_device_mesh(device_type, shape, mesh_dim_names=("guidance", "ring", "ulysses"))
    if layout.tokens > 1:
        from diffusers.models._modeling_parallel import ContextParallelConfig

        transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=layout.tokens, mesh=mesh))
        # Diffusers splits and gathers the tokens, and exchanges q, k, v and the result in four calls with eight copies. Blocks with
        # fused kernels do it in two calls with one copy: rows are written where the exchange wants them and read where it left them.
        for block in transformer.blocks:
            block.exchange = (mesh["ulysses"].get_group().group_name, layout.tokens)
    if layout.guidance == 1:
        return None
    return SplitGuidance(mesh["guidance"].get_local_rank(), mesh["guidance"].get_group())


def init_distributed() -> tuple[int, int]:
    """(rank, world size) of a `torchrun` job, with this process's GPU chosen; (0, 1) outside of one."""
    import os

    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return dist.get_rank(), dist.get_world_size()
