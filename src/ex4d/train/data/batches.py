"""From cached samples to batches on the device: which sample at which step, and how it gets there without waiting."""

from __future__ import annotations

import hashlib
import queue
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ex4d.errors import InputError
from ex4d.train.data.shards import Sample

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: "auto" keeps the data in the accelerator's memory when it fills at most this share of it.
RESIDENT_SHARE = 1 / 3


def derived_seed(*parts: object) -> int:
    """A seed in 0..2^63-1 from any values: independent streams for (seed, step, rank, ...), with nothing to save or restore."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def derived_generator(device: torch.device | str, *parts: object) -> torch.Generator:
    """A generator on `device` at the start of the stream named by `parts`."""
    import torch

    return torch.Generator(device).manual_seed(derived_seed(*parts))


@dataclass(frozen=True)
class Draw:
    """Which batch: everything random of a training step is a function of this value."""

    seed: int
    step: int
    micro: int = 0
    accumulate: int = 1
    rank: int = 0
    world: int = 1

    def generator(self, device: torch.device | str, what: str) -> torch.Generator:
        """The stream `what` of this batch."""
        return derived_generator(device, self.seed, what, self.step, self.micro, self.rank)


def indices(draw: Draw, count: int, batch: int) -> np.ndarray:
    """Sample numbers of a batch, [batch] int64: epochs are permutations by seed, and ranks take neighbouring slices."""
    first = ((draw.step * draw.accumulate + draw.micro) * draw.world + draw.rank) * batch
    position = np.arange(first, first + batch)
    epoch = position // count
    return np.array([_order(draw.seed, int(e), count)[p % count] for e, p in zip(epoch, position, strict=True)])


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(derived_seed(seed, "order", epoch))).permutation(count)


class Batches:
    """Batches of equal-shaped samples on a device.

    Resident: every field is one tensor on the device and a batch is one gather a field. Streaming: a thread stacks the next
    batches from the memory-mapped shards into pinned memory and copies them without blocking.

    Args:
        samples: All with the fields named, of one shape each; InputError names the first that differs.
        fields: Fields to deliver.
        resident: "auto", "device" or "stream".
    """

    def __init__(
        self,
        samples: list[Sample],
        fields: list[str],
        device: torch.device,
        *,
        resident: str = "auto",
        prefetch: int = 4,
    ) -> None:
        self.samples, self.fields, self.device, self.prefetch = samples, fields, device, prefetch
        _check(samples, fields)
        total = sum(samples[0].arrays[f].nbytes for f in fields) * len(samples)
        self.resident = resident == "device" or (resident == "auto" and total <= RESIDENT_SHARE * _memory(device))
        self._tensors: dict[str, Tensor] = {}
        if self.resident:
            for f in fields:
                self._tensors[f] = _stacked(samples, f, device)
        self._queue: queue.Queue[tuple[Draw, dict[str, Tensor]]] | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, index: np.ndarray) -> dict[str, Tensor]:
        """The samples of these numbers, on the device."""
        import torch

        if self.resident:
            where = torch.from_numpy(index).to(self.device, non_blocking=True)
            return {f: t.index_select(0, where) for f, t in self._tensors.items()}
        return {f: t.to(self.device, non_blocking=True) for f, t in self._host(index).items()}

    def at(self, draw: Draw, batch: int) -> dict[str, Tensor]:
        """The batch of a draw; when streaming, draws are expected in order and the next ones are already on their way."""
        if self.resident or self.device.type == "cpu":
            return self.take(indices(draw, len(self), batch))
        if self._queue is None:
            self._start(draw, batch)
        assert self._queue is not None
        ready_for, host = self._queue.get()
        if isinstance(host, BaseException):
            raise host
        if ready_for != draw:  # somebody jumped: begin again from here
            self.close()
            return self.at(draw, batch)
        return {f: t.to(self.device, non_blocking=True) for f, t in host.items()}

    def close(self) -> None:
        """Stop the thread."""
        if self._thread is not None and self._queue is not None:
            self._stop.set()
            while self._thread.is_alive():
                try:
                    self._queue.get(timeout=0.05)
                except queue.Empty:
                    pass
        self._queue = self._thread = None

    def _host(self, index: np.ndarray) -> dict[str, Tensor]:
        import torch

        out = {}
        for f in self.fields:
            tensor = torch.from_numpy(np.stack([self.samples[i].arrays[f] for i in index]))
            out[f] = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return out

    def _start(self, first: Draw, batch: int) -> None:
        from dataclasses import replace

        self._stop = threading.Event()
        target: queue.Queue[Any] = queue.Queue(self.prefetch)
        stop = self._stop

        def work() -> None:
            draw = first
            while not stop.is_set():
                try:
                    item: Any = (draw, self._host(indices(draw, len(self), batch)))
                except Exception as error:  # handed to the consumer, who raises it
                    item = (draw, error)
                while not stop.is_set():
                    try:
                        target.put(item, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                micro = draw.micro + 1
                draw = replace(draw, micro=micro % draw.accumulate, step=draw.step + micro // draw.accumulate)

        self._queue = target
        self._thread = threading.Thread(target=work, daemon=True, name="ex4d-batches")
        self._thread.start()


def _check(samples: list[Sample], fields: list[str]) -> None:
    if not samples:
        raise InputError("no training clips", "at least one sample", "ex4d train prepare VIDEOS --out DATA")
    for sample in samples:
        for f in fields:
            if f not in sample.arrays:
                raise InputError(
                    f"sample {sample.key} has no field {f!r}", f"fields {', '.join(fields)}", "run prepare again"
                )
            first, here = samples[0].arrays[f], sample.arrays[f]
            if here.shape != first.shape or here.dtype != first.dtype:
                raise InputError(
                    f"sample {sample.key}: {f} is {here.dtype}{list(here.shape)}, the first sample's {first.dtype}{list(first.shape)}",
                    "one size and length in a data folder",
                    "prepare other sizes into other folders",
                )


def _stacked(samples: list[Sample], name: str, device: torch.device) -> Tensor:
    import torch

    first = torch.from_numpy(np.array(samples[0].arrays[name]))
    out = torch.empty((len(samples), *first.shape), dtype=first.dtype, device=device)
    for i, sample in enumerate(samples):
        out[i] = torch.from_numpy(np.array(sample.arrays[name]))
    return out


def _memory(device: torch.device) -> float:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return 4 * 2**30  # on the CPU: up to 1.3 GB of data is held, more is mapped
