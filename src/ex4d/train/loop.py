"""The training loop: one step is a pure function of (weights, optimiser, seed, step), so a killed run resumes bit for bit."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.errors import Cancelled, InputError, ResourceError
from ex4d.train.checkpoints import Checkpoint, load_checkpoint, load_weights_only, save_checkpoint, save_portable
from ex4d.train.config import LoopConfig
from ex4d.train.data.batches import Draw, derived_seed
from ex4d.train.log import RunLog
from ex4d.train.parallel import make_accelerator, wrap
from ex4d.train.task import Task, like, load_trained, trained_parameters, whole, with_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class FitResult:
    """How a call of `fit` ended.

    Attributes:
        step: Steps done since the run began.
        finished: False when the time budget stopped it first.
        skipped: Steps whose gradient was not finite, and which changed nothing.
        losses: (step, mean loss since the last one) at every log point of this call.
    """

    step: int
    finished: bool
    skipped: int
    seconds: float
    losses: list[tuple[int, float]] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)


def learning_rate(config: LoopConfig, step: int, restart_step: int = 0) -> float:
    """Rate of a step: linear warm-up since the start or the last weights-only restart, then constant or cosine."""
    warm = min(1.0, (step - restart_step + 1) / config.warmup) if config.warmup else 1.0
    if config.decay == "cosine":
        progress = min(1.0, step / config.steps)
        return config.lr * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))
    return config.lr * warm


class Trainer:
    """Trains a task; everything it keeps lies in one folder.

    Args:
        task: What is trained.
        config: The loop's settings.
        out: Run folder: log.jsonl, checkpoints/, portable/, samples/, events of TensorBoard.
        identity: Plain values that a resumed run must share (`config.identity_of`).
        restart_from: A checkpoint or portable folder whose weights begin this run when `out` has no checkpoint yet; the
            optimiser starts anew with warm-up, and the step count goes on.
    """

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        out: Path,
        *,
        identity: Mapping[str, Any] | None = None,
        restart_from: Path | None = None,
        cpu: bool = False,
    ) -> None:
        import torch

        self.task, self.config, self.out = task, config, Path(out)
        self.identity = dict(identity or {})
        self.accelerator = make_accelerator(config, cpu=cpu)
        self.device = self.accelerator.device
        self.main = self.accelerator.is_main_process
        self.log = RunLog(self.out, tensorboard=config.tensorboard, enabled=self.main)
        task.module.to(self.device)
        for p in trained_parameters(task.module).values():
            p.data = p.data.float()  # master weights; autocast makes the bf16 copies
        self.module = wrap(task.module, config, self.accelerator)
        self.parameters = trained_parameters(task.module)
        if not self.parameters:
            raise InputError("nothing requires gradients", "a module with trained parameters", "model.train: adapter")
        self.sharded = any(hasattr(p, "device_mesh") for p in self.parameters.values())
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.ema: dict[str, Tensor] = {}
        self.step, self.restart_step, self.restarts = 0, 0, []
        self.skipped = torch.zeros((), device=self.device)
        self.skipped_in_a_row = torch.zeros((), device=self.device)
        self._start(restart_from)

    # Beginning

    def _start(self, restart_from: Path | None) -> None:
        found = load_checkpoint(self.out, self.identity, self.task.fingerprint)
        if found is not None:
            self._restore(found)
            self.restarts = list(found.record.get("restarts", []))
            self.restart_step = int(found.record.get("restart_step", 0))
            self.skipped += found.record.get("skipped", 0)
            self._restore_optimizer(found.optimizer)
            self.log.resume(self.step)
        elif restart_from is not None:
            found = load_weights_only(restart_from)
            self._restore(found)
            self.restart_step = found.step
            self.restarts = [*found.record.get("restarts", []), {"step": found.step, "warmup": self.config.warmup}]
            self.log.event("weights-only restart", step=found.step, source=str(restart_from), warmup=self.config.warmup)
        elif self.config.ema:
            self.ema = {n: p.detach().clone() for n, p in self.parameters.items()}

    def _restore(self, found: Checkpoint) -> None:
        load_trained(self.task.module, found.weights, f"checkpoint of step {found.step}")
        if self.config.ema:
            averaged = found.ema or found.weights
            self.ema = {n: like(averaged[n].float(), p).clone() for n, p in self.parameters.items()}
        self.step = found.step

    def _restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        for name, p in self.parameters.items():
            if f"{name}|step" in tensors:
                fused = self.device.type == "cuda"
                self.optimizer.state[p] = {
                    "step": tensors[f"{name}|step"].to(self.device if fused else "cpu"),
                    "exp_avg": like(tensors[f"{name}|exp_avg"], p),
                    "exp_avg_sq": like(tensors[f"{name}|exp_avg_sq"], p),
                }

    # The loop

    def fit(self, *, minutes: float | None = None, started: float | None = None) -> FitResult:
        """Train up to `config.steps`.

        Args:
            minutes: Wall-clock budget since `started` (time.monotonic(); default now): the run writes a checkpoint, stops in
                time for it, and a second call goes on.

        Raises:
            Cancelled: Ctrl-C or a termination signal; the checkpoint is written first.
        """
        import torch

        begin = time.monotonic() if started is None else started
        config, losses, validation = self.config, [], {}
        total, count, saved_at, save_seconds, slowest = torch.zeros((), device=self.device), 0, self.step, 1.0, 0.0
        with _stop_signals() as stopped, torch.random.fork_rng(devices=_devices(self.device)):
            ticked = time.monotonic()
            while self.step < config.steps:
                loss, scalars, norm = self._one_step()
                total, count = total + loss, count + 1
                self.step += 1
                now = time.monotonic()
                slowest, ticked = max(slowest, now - ticked), now
                reserve = 2 * save_seconds + 2 * slowest + 1
                out_of_time = minutes is not None and now - begin + reserve > 60 * minutes
                out_of_time, interrupted = self._agree(out_of_time, stopped.is_set())
                if self.step % config.log_every == 0 or self.step == config.steps or out_of_time:
                    mean = float(self._mean(total)) / count
                    losses.append((self.step, mean))
                    self._report(mean, scalars, norm, count, begin)
                    total, count = torch.zeros_like(total), 0
                if self.step % config.checkpoint_every == 0 or self.step == config.steps or out_of_time or interrupted:
                    save_begin = time.monotonic()
                    self.save()
                    saved_at, save_seconds = self.step, max(save_seconds, time.monotonic() - save_begin)
                if interrupted:
                    raise Cancelled(f"training stopped at step {self.step}; checkpoint written", fix="the same command")
                if out_of_time:
                    break
                validation = self._look(validation)
                ticked = time.monotonic()
        if saved_at != self.step:
            self.save()
        seconds = time.monotonic() - begin
        finished = self.step >= config.steps
        self.log.event("finished" if finished else "out of time", step=self.step, seconds=round(seconds, 1))
        self.log.flush()
        return FitResult(self.step, finished, int(self.skipped), seconds, losses, validation)

    def _one_step(self) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """One update; returns the mean loss, the last scalars and the gradient norm, all still on the device."""
        import torch

        config, accelerator = self.config, self.accelerator
        torch.manual_seed(derived_seed(config.seed, "global", self.step, accelerator.process_index))
        self.task.module.train()
        loss_sum, scalars = torch.zeros((), device=self.device), {}
        for micro in range(config.accumulate):
            draw = Draw(
                config.seed, self.step, micro, config.accumulate, accelerator.process_index, accelerator.num_processes
            )
            batch = self.task.batch(draw)
            with _syncing(self.module, micro == config.accumulate - 1):
                with accelerator.autocast():
                    loss, scalars = self.task.loss(self.module, batch, draw)
                (loss / config.accumulate).backward()
            loss_sum = loss_sum + loss.detach() / config.accumulate
        norm = self._clip()
        self._update(norm)
        return torch.nan_to_num(loss_sum, nan=0.0, posinf=0.0, neginf=0.0), scalars, norm

    def _clip(self) -> Tensor:
        import torch

        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.clip_norm)
        return whole(norm).detach()

    def _update(self, norm: Tensor) -> None:
        """Step the optimiser and the averages, unless the gradient is not finite."""
        import torch

        finite = torch.isfinite(norm)
        rate = learning_rate(self.config, self.step, self.restart_step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.device.type == "cuda" and not self.sharded:
            # the fused optimiser skips by itself when told so on the device: no wait for the GPU in any step
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif bool(finite):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        bad = (~finite).float()
        self.skipped += bad
        self.skipped_in_a_row = (self.skipped_in_a_row + bad) * bad
        if self.ema:
            done = self.step + 1
            decay = min(self.config.ema, (1 + done) / (10 + done))
            names = list(self.ema)
            with torch.no_grad():
                torch._foreach_lerp_(  # type: ignore[attr-defined]
                    [self.ema[n] for n in names], [self.parameters[n].data for n in names], 1 - decay
                )

    def _mean(self, value: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.accelerator.num_processes == 1:
            return value
        mean: Any = self.accelerator.reduce(value, "mean")
        return mean

    def _agree(self, *flags: bool) -> tuple[bool, ...]:
        """The same answer on every process: true where any says so."""
        if self.accelerator.num_processes == 1:
            return flags
        import torch

        value = torch.tensor([float(f) for f in flags], device=self.device)
        total: Any = self.accelerator.reduce(value, "sum")
        return tuple(bool(v > 0) for v in total)

    # What is shown and kept

    def _report(self, mean: float, scalars: Mapping[str, Tensor], norm: Tensor, count: int, begin: float) -> None:
        if float(self.skipped_in_a_row) >= self.config.max_skipped:
            raise ResourceError(
                f"{self.config.max_skipped} steps in a row had no finite gradient, up to step {self.step}",
                "a run that has not diverged",
                "a lower loop.lr; the checkpoints before it are kept",
            )
        values = {
            "loss": mean,
            "grad_norm": float(norm),
            "lr": learning_rate(self.config, self.step - 1, self.restart_step),
        }
        values |= {name: float(v) for name, v in scalars.items()} | {"skipped": float(self.skipped)}
        self.log.scalars(self.step, values, seconds=time.monotonic() - begin, steps=count)

    def _look(self, last: dict[str, float]) -> dict[str, float]:
        """Validation and sample videos when their step has come, with the averaged weights."""
        import torch

        config = self.config
        validate = config.validate_every and (self.step % config.validate_every == 0 or self.step == config.steps)
        sample = config.sample_every and self.step % config.sample_every == 0
        if not (validate or sample):
            return last
        self.task.module.eval()
        with with_weights(self.parameters, self.ema), torch.no_grad(), self.accelerator.autocast():
            if validate:
                last = self.task.validate(self.module, config.validate_examples)
                self.log.scalars(self.step, {f"held_out/{k}": v for k, v in last.items()})
            if sample:
                self.log.videos(self.step, self.task.sample(self.module, self.step))
        return last

    def checkpoint(self) -> Checkpoint:
        """The state of this moment; every process must ask when the weights are sharded."""
        optimizer = {
            f"{name}|{key}": whole(value)
            for name, p in self.parameters.items()
            for key, value in self.optimizer.state.get(p, {}).items()
        }
        record = {
            "identity": self.identity,
            "fingerprint": self.task.fingerprint,
            "skipped": int(self.skipped),
            "restart_step": self.restart_step,
            "restarts": self.restarts,
            **_versions(),
        }
        weights = {n: whole(p.detach()) for n, p in self.parameters.items()}
        return Checkpoint(self.step, weights, {n: whole(t) for n, t in self.ema.items()}, optimizer, record)

    def save(self) -> None:
        """Write a checkpoint now."""
        self.log.flush()
        state = self.checkpoint()
        if self.main:
            save_checkpoint(self.out, state, keep_last=self.config.keep_last, keep_every=self.config.keep_every)
        self.accelerator.wait_for_everyone()

    def export(self, *, portable: bool = True) -> list[Path]:
        """Write what the package loads (from the averaged weights), and a portable copy to train on elsewhere."""
        state = self.checkpoint()
        if not self.main:
            return []
        files = self.task.export(state.ema or state.weights, self.out)
        return files + (save_portable(self.out / "portable", state) if portable else [])


def _versions() -> dict[str, str]:
    import torch

    import ex4d

    return {"torch": torch.__version__, "ex4d": ex4d.__version__}


def _devices(device: torch.device) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []


@contextmanager
def _syncing(module: torch.nn.Module, last: bool) -> Iterator[None]:
    """Exchange gradients between processes only in the last pass of an accumulation."""
    if hasattr(module, "set_requires_gradient_sync"):
        module.set_requires_gradient_sync(last)  # type: ignore[operator]
        yield
    elif not last and hasattr(module, "no_sync"):
        with module.no_sync():  # type: ignore[operator]
            yield
    else:
        yield


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into a flag that the loop reads between steps; a second one ends the process at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    for s in before:
        signal.signal(s, handle)
    try:
        yield stopped
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
