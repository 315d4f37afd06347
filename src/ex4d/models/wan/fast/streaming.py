"""Group offload with streams: a denoiser's blocks live in pinned host memory and pass through two buffers on the GPU.

While block i computes, block i + 1 is copied in one transfer on its own stream, so a forward costs the longer of computing and
copying. Diffusers' own group offload works on the same model; this one needs two blocks of memory exactly, one copy a block
instead of one a tensor, and no wait of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

#: Tensors start at multiples of this inside a buffer, as the allocator and the matrix kernels like them.
ALIGNMENT_BYTES = 256


class BlockStream:
    """Wraps the forward of every block so that its parameters are on the device just while it runs.

    On a CPU device nothing is copied and only the bookkeeping runs, which is what the tests see.

    Args:
        blocks: The blocks in the order they run.
        device: Where they compute.
        prefetch: Copy the next block while this one computes; False is the sequential mode: one buffer, half the memory.
    """

    def __init__(self, blocks: list[nn.Module], device: torch.device | str, prefetch: bool = True) -> None:
        self.device = torch.device(device)
        self.blocks = blocks
        self.prefetch = prefetch and len(blocks) > 1
        self._tensors = [_tensors_of(block) for block in blocks]
        self._layout = [_offsets(tensors) for tensors in self._tensors]
        self.bytes_per_block = [size for _, size in self._layout]
        self._host = [self._to_host(i) for i in range(len(blocks))]
        cuda = self.device.type == "cuda"
        slots = 2 if self.prefetch else 1
        size = max(self.bytes_per_block)
        self._slots = [torch.empty(size, dtype=torch.uint8, device=self.device) for _ in range(slots)]
        self._holds: list[int | None] = [None] * slots
        self._copy_stream = torch.cuda.Stream(self.device) if cuda else None
        self._ready = [torch.cuda.Event() for _ in range(slots)] if cuda else []
        self._free = [torch.cuda.Event() for _ in range(slots)] if cuda else []
        self.copied_bytes = 0
        for i, block in enumerate(blocks):
            block.forward = self._wrapped(i, block.forward)

    def _to_host(self, i: int) -> list[Tensor]:
        """Move a block's tensors into one pinned buffer and return its views."""
        offsets, size = self._layout[i]
        host = torch.empty(size, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        views = _views(host, self._tensors[i], offsets)
        for tensor, view in zip(self._tensors[i], views, strict=True):
            view.copy_(tensor.data)
            tensor.data = view
        return [host, *views]

    def _load(self, i: int, slot: int) -> None:
        self.copied_bytes += self.bytes_per_block[i]
        self._holds[slot] = i
        host = self._host[i][0]
        if self._copy_stream is None:
            self._slots[slot][: len(host)].copy_(host)
            return
        self._copy_stream.wait_event(self._free[slot])
        with torch.cuda.stream(self._copy_stream):
            self._slots[slot][: len(host)].copy_(host, non_blocking=True)
            self._ready[slot].record(self._copy_stream)

    def _wrapped(self, i: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            slot = self._enter(i)
            try:
                return forward(*args, **kwargs)
            finally:
                self._leave(i, slot)

        return run

    def _enter(self, i: int) -> int:
        if i not in self._holds:
            self._load(i, 0)
        slot = self._holds.index(i)
        if self._copy_stream is not None:
            torch.cuda.current_stream(self.device).wait_event(self._ready[slot])
        offsets, _ = self._layout[i]
        for tensor, view in zip(self._tensors[i], _views(self._slots[slot], self._tensors[i], offsets), strict=True):
            tensor.data = view
        if self.prefetch:
            following = (i + 1) % len(self.blocks)
            if following not in self._holds:
                self._load(following, 1 - slot)
        return slot

    def _leave(self, i: int, slot: int) -> None:
        if self._copy_stream is not None:
            self._free[slot].record(torch.cuda.current_stream(self.device))
        if not self.prefetch:
            self._holds[slot] = None
        for tensor, view in zip(self._tensors[i], self._host[i][1:], strict=True):
            tensor.data = view


def _tensors_of(block: nn.Module) -> list[Any]:
    return [*block.parameters(), *block.buffers()]


def _offsets(tensors: list[Tensor]) -> tuple[list[int], int]:
    offsets, total = [], 0
    for tensor in tensors:
        offsets.append(total)
        size = tensor.numel() * tensor.element_size()
        total += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return offsets, total


def _views(buffer: Tensor, tensors: list[Tensor], offsets: list[int]) -> list[Tensor]:
    out = []
    for tensor, offset in zip(tensors, offsets, strict=True):
        size = tensor.numel() * tensor.element_size()
        out.append(buffer[offset : offset + size].view(tensor.dtype).view(tensor.shape))
    return out


def stream_blocks(transformer: nn.Module, device: torch.device | str, prefetch: bool = True) -> BlockStream:
    """Keep the blocks in host memory and everything else on the device.

    Build the model on the CPU first. Compile before streaming (`compile_blocks`): the wrapping stays outside the graph.
    """
    blocks: list[nn.Module] = list(transformer.blocks)  # type: ignore[arg-type]
    stream = BlockStream(blocks, device, prefetch)
    inside = {id(t) for block in blocks for t in _tensors_of(block)}
    for module in transformer.modules():
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            if id(tensor) not in inside:
                tensor.data = tensor.data.to(device)
    transformer.block_stream = stream  # type: ignore[assignment]
    return stream


def compile_blocks(transformer: nn.Module, fullgraph: bool = True, **options: Any) -> None:
    """Compile the forward of each block (one graph serves them all), leaving hooks and streaming outside of it.

    The same as diffusers' `compile_repeated_blocks`, which compiles the call including hooks and so cannot have any.
    """
    for block in transformer.blocks:  # type: ignore[union-attr]
        block.forward = torch.compile(block.forward, fullgraph=fullgraph, **{"dynamic": False, **options})
