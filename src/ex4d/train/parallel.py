"""One GPU, several (DDP, FSDP2) or the CPU: accelerate finds the processes, and this module wraps what is trained."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ex4d.errors import ResourceError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from ex4d.train.config import LoopConfig


def make_accelerator(config: LoopConfig, *, cpu: bool = False) -> Accelerator:
    """The process group and device of this run (`accelerate launch` or torchrun set them), in the precision asked for."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    if AcceleratorState._shared_state or (PartialState._shared_state and cpu):
        # an earlier run in this process: its settings must not decide this one's
        if not torch.distributed.is_initialized():
            AcceleratorState._reset_state(reset_partial_state=True)
    precision = "bf16" if config.precision == "bf16" else "no"
    return Accelerator(
        mixed_precision=precision, cpu=cpu or not torch.cuda.is_available(), step_scheduler_with_optimizer=False
    )


def wrap(module: nn.Module, config: LoopConfig, accelerator: Accelerator) -> nn.Module:
    """Compile the repeated blocks if asked, then wrap for the devices there are.

    FSDP2 shards in place, block by block (every process holds 1/n of the weights and gathers one block at a time); DDP holds
    all of them everywhere and exchanges the trained parameters' gradients.
    """
    if config.compile and accelerator.device.type == "cuda":
        for block in repeated_blocks(module):
            block.compile()
    if accelerator.num_processes == 1:
        return module
    if config.parallel == "fsdp2":
        return _fsdp2(module, accelerator)
    from torch.nn.parallel import DistributedDataParallel

    devices = [accelerator.local_process_index] if accelerator.device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # `broadcast_buffers` has another name from torch 2.13 on
        return DistributedDataParallel(
            module, device_ids=devices, gradient_as_bucket_view=True, broadcast_buffers=False
        )


def _fsdp2(module: nn.Module, accelerator: Accelerator) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    blocks = repeated_blocks(module)
    if not blocks:
        raise ResourceError(
            "fsdp2 found no repeated blocks to shard", "a transformer with `blocks`", "loop.parallel: ddp"
        )
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, reshard_after_forward=False)
    return module


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """Modules of the classes that a diffusers model names in `_repeated_blocks`."""
    names = {name for m in module.modules() for name in (getattr(m, "_repeated_blocks", None) or [])}
    return [m for m in module.modules() if type(m).__name__ in names]
