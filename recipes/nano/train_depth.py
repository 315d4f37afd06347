"""Train the embedded depth network on rendered scenes (files that another process makes meanwhile) and endless ray cast rooms.

    python recipes/nano/depth_scenes.py --out runs/scenes --workers 28 --minutes 12 &
    python recipes/nano/train_depth.py --scenes runs/scenes --clips CLIPS --minutes 12 --out runs/depth

Several GPUs: `torchrun --nproc-per-node 2 recipes/nano/train_depth.py ...`; the batch is per GPU. Runs in slices: a second call with the
same --out goes on (--total-minutes says how long the learning rate's curve is); on another machine start with --init FOLDER.
Writes depth/ (the EMA weights, bf16, of the best report so far), state.pt and log.jsonl. Training starts on rooms alone and takes scenes
as they come. It begins with a self-check of the device and of every part on it, and ends there with one line when something is wrong.

What to look for in log.jsonl: `spread` (of the guess over that of the truth; 0 is a collapse, `flat` says so), `drift` (of a clip's scale
from metres, in log; should stay small), `norm` (of the gradient before it is clipped at 1), `skipped` (steps that were not finite).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from depth_check import self_check
from depth_data import Ring, SceneFiles, changed, cropped
from depth_held_out import Best, HeldOut
from depth_loss import depth_loss
from depth_rooms import RoomRenderer, TextureBank, layouts, make_textures
from muon import Muon, divided
from torch import Tensor, nn

from ex4d.models.depth.nano import ClipDepthNetwork

#: Seed of the held-out rooms; training uses others.
HELD_OUT_ROOMS = 900_001
#: AdamW's learning rate over Muon's.
ADAM_SHARE = 0.33


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="folder that depth_scenes.py fills; without it: rooms only")
    parser.add_argument("--clips", type=Path, help="folder of permissive clips whose crops become textures")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="weights folder to start from (the optimiser starts anew)")
    parser.add_argument("--minutes", type=float, default=9.0, help="wall time of this call, start-up included")
    parser.add_argument("--total-minutes", type=float, help="of all slices, for the learning rate; as long as this one")
    parser.add_argument("--batch", type=int, default=40, help="clips per GPU")
    parser.add_argument("--frames", type=int, default=3, help="of a clip; more clips teach more than more frames")
    parser.add_argument("--scene-px", type=int, default=224)
    parser.add_argument("--room-size", default="192x256")
    parser.add_argument("--train-sizes", default="224x224,192x256", help="HxW, in turn")
    parser.add_argument("--scene-share", type=float, default=0.5)
    parser.add_argument("--rooms-at-once", type=int, default=12)
    parser.add_argument("--rooms-every", type=int, default=5, help="steps between two renderings of rooms")
    parser.add_argument("--room-limit", type=int, default=3000)
    parser.add_argument("--scene-limit", type=int, default=36000, help="clips kept, 0.75 MB each; over all GPUs")
    parser.add_argument("--held-out", type=int, default=48)
    parser.add_argument("--textures", type=int, default=640)
    parser.add_argument("--workers", type=int, default=5, help="processes per GPU that lay rooms out")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=400)
    parser.add_argument("--report-seconds", type=float, default=45)
    parser.add_argument("--max-steps", type=int, default=10**9)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", help="JSON of other network settings, for tests")
    return parser.parse_args()


def pair(text: str) -> tuple[int, int]:
    """HxW as numbers."""
    h, w = (int(x) for x in text.split("x"))
    return h, w


class Clips:
    """The two rings and what fills them; `batch` makes augmented clips on the device."""

    def __init__(
        self, args: argparse.Namespace, device: str, source: Iterator[dict[str, Tensor]], rank: int, world: int
    ):
        self.args, self.device, self.source = args, device, source
        hw = (args.scene_px, args.scene_px)
        self.render = RoomRenderer(
            TextureBank(make_textures(args.textures, args.clips, args.seed), device), pair(args.room_size)
        )
        self.rooms = Ring(max(args.room_limit // world, 2 * args.batch), args.frames, pair(args.room_size), device)
        self.scenes = Ring(max(args.scene_limit // world, 2 * args.batch), args.frames, hw, device)
        self.files = SceneFiles(args.scenes, args.frames, hw, (rank, world)) if args.scenes else None
        self.sizes = [pair(x) for x in args.train_sizes.split(",")]
        self.rooms_every, self.room_seconds = args.rooms_every, 0.0

    def drawn(self, layout: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Colour and depth of a batch of layouts."""
        return self.render({k: torch.as_tensor(v).to(self.device, non_blocking=True) for k, v in layout.items()})

    def start(self) -> None:
        """Enough rooms for the first batches; new ones then take at most 15 ms a step."""
        for _ in range(max(2 * self.args.batch // self.args.rooms_at_once, 2)):
            begin = time.time()
            self.rooms.add(*self.drawn(next(self.source)))
            if self.device == "cuda":
                torch.cuda.synchronize()
                self.room_seconds = time.time() - begin
        self.rooms_every = max(self.rooms_every, math.ceil(self.room_seconds / 0.015))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Video [B, 3, T, h, w] in [-1, 1] and depth [B, T, h, w]; takes in what is new."""
        args = self.args
        if step % self.rooms_every == 0:
            self.rooms.add(*self.drawn(next(self.source)))
        if self.files is not None:
            self.files.take(self.scenes, 3)
        # fewer scenes while there are few of them
        share = args.scene_share * min(len(self.scenes) / max(20 * args.batch, 1), 1.0)
        many = int(np.random.default_rng((args.seed, step)).binomial(args.batch, share))
        size = self.sizes[step % len(self.sizes)]
        chosen = ((self.scenes, many), (self.rooms, args.batch - many))
        parts = [cropped(*ring.sample(n), size) for ring, n in chosen if n]
        video, depth = (torch.cat(x) for x in zip(*parts, strict=True))
        return changed(video).transpose(1, 2) * 2 - 1, depth


class Learner:
    """Network, its average, optimiser; one process's part of a step."""

    def __init__(self, args: argparse.Namespace, device: str, world: int) -> None:
        self.args, self.device, self.world = args, device, world
        torch.manual_seed(args.seed)
        if args.init:
            model = ClipDepthNetwork.from_pretrained(args.init)
        else:
            model = ClipDepthNetwork(**(json.loads(args.network) if args.network else {}))
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.parameters, self.averages = list(self.model.parameters()), list(self.ema.parameters())
        inner, outer = divided(self.model)
        self.opts = [
            Muon(inner, args.lr, weight_decay=0.03),
            torch.optim.AdamW(outer, args.lr * ADAM_SHARE, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        ]
        self.rates = [opt.param_groups[0]["lr"] for opt in self.opts]
        self.step, self.spent, self.best = 0, 0.0, None
        if (args.out / "state.pt").exists():
            state = torch.load(args.out / "state.pt", map_location=device, weights_only=True)
            self.model.load_state_dict(state["model"]), self.ema.load_state_dict(state["ema"])
            for opt, kept in zip(self.opts, state["opts"], strict=True):
                opt.load_state_dict(kept)
            self.step, self.spent, self.best = state["step"], state["spent"], state.get("best")
        self.run = torch.compile(self.model.log_disparity, dynamic=False) if args.compile else self.model.log_disparity
        self.skipped = torch.zeros((), device=device)
        self._sums: dict[str, Tensor] = {}
        self._summed = 0

    def _backward(self, video: Tensor, depth: Tensor) -> dict[str, Tensor]:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            guess = self.run(video)
        loss, terms = depth_loss(guess, depth)
        for opt in self.opts:
            opt.zero_grad(set_to_none=True)
        loss.backward()
        return {"loss": loss.detach()} | terms

    def learn(self, video: Tensor, depth: Tensor, progress: float) -> None:
        """One step. One that is not finite on any GPU is skipped on all of them, without waiting for the device."""
        curve = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
        for opt, rate in zip(self.opts, self.rates, strict=True):
            opt.param_groups[0]["lr"] = rate * min(1, (self.step + 1) / self.args.warmup) * curve
        try:
            terms = self._backward(video, depth)
        except Exception as error:
            if self.run == self.model.log_disparity:
                raise
            print(f"compile failed, going on without it: {type(error).__name__}: {error}"[:400], flush=True)
            self.run = self.model.log_disparity
            terms = self._backward(video, depth)
        if self.world > 1:
            flat = torch.cat([p.grad.flatten() for p in self.parameters])
            dist.all_reduce(flat)
            flat /= self.world
            for p, part in zip(self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True):
                p.grad.copy_(part.view_as(p))
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        bad = (~torch.isfinite(norm)).float()
        for opt in self.opts:
            opt.found_inf = bad  # what the fused optimiser takes from a gradient scaler: leave everything as it is
            opt.step()
        self.skipped += bad
        with torch.no_grad():
            # the first weights, of the warm-up, are not worth remembering
            k = self.step - self.args.warmup
            torch._foreach_lerp_(self.averages, self.parameters, 1 - (min(0.999, (k + 1) / (k + 10)) if k > 0 else 0))
        self._summed += 1
        for name, value in (terms | {"norm": norm}).items():
            self._sums[name] = self._sums.get(name, 0) + torch.where(bad > 0, 0.0, value)
        self.step += 1

    def means(self) -> dict[str, float]:
        """Of the terms of the loss since the last call, and how many steps were skipped in all."""
        out = {k: round(float(v) / self._summed, 4) for k, v in self._sums.items()}
        self._sums, self._summed = {}, 0
        return out | {"skipped": int(self.skipped)} if out else {}

    def state(self) -> dict:
        opts = [opt.state_dict() for opt in self.opts]
        return {"model": self.model.state_dict(), "ema": self.ema.state_dict(), "opts": opts, "step": self.step}


class Clock:
    """One time for all processes, asked for every tenth step."""

    def __init__(self, begin: float, device: str, world: int) -> None:
        self.begin, self.device, self.world = begin, device, world

    def elapsed(self) -> float:
        at = torch.tensor(time.time() - self.begin, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.broadcast(at, 0)
        return float(at)


def timed_step(clips: Clips, learner: Learner, progress: float) -> dict[str, float]:
    """One step of the training, timed: where would faster be won, in the batch or in the network?"""

    def now() -> float:
        if learner.device == "cuda":
            torch.cuda.synchronize()
        return 1000 * time.time()

    begin = now()
    video, depth = clips.batch(learner.step)
    middle = now()
    learner.learn(video, depth, progress)
    return {"batch_ms": round(middle - begin, 1), "learn_ms": round(now() - middle, 1)}


class Journal:
    """log.jsonl, weights and state, by the first process only."""

    def __init__(self, args: argparse.Namespace, learner: Learner, clips: Clips, held_out: HeldOut) -> None:
        self.args, self.learner, self.clips, self.held_out = args, learner, clips, held_out
        self.best = Best(args.out / "depth", learner.best)
        self.log = (args.out / "log.jsonl").open("a")
        self.next_report, self.next_save = 0.0, 60.0
        self.last = (learner.step, time.time())
        self.milliseconds: dict[str, float] = {}

    def note(self, record: dict) -> None:
        print(json.dumps(record), flush=True)
        self.log.write(json.dumps(record) + "\n")
        self.log.flush()

    def start(self, begin: float, world: int, checked: dict) -> None:
        args, learner, clips = self.args, self.learner, self.clips
        self.note({
            "event": "start", "step": learner.step, "spent": round(learner.spent, 1), "gpus": world,
            "parameters": sum(p.numel() for p in learner.parameters), "init": args.init.name if args.init else None,
            "batch": args.batch * world,
            "device": torch.cuda.get_device_name() if learner.device == "cuda" else "cpu",
            "startup_seconds": round(time.time() - begin, 1), "room_seconds": round(clips.room_seconds, 3),
            "rooms_every": clips.rooms_every, **checked,
        })  # fmt: skip

    def report(self, elapsed: float, families: bool = False) -> dict:
        """Held-out scores and what was learned since the last report; exports the weights when they are the best so far."""
        rate = (self.learner.step - self.last[0]) / max(time.time() - self.last[1], 1e-9)
        record = {
            "step": self.learner.step, "seconds": round(self.learner.spent + elapsed, 1),
            "scenes": self.clips.scenes.added, "rooms": self.clips.rooms.added, "steps_per_second": round(rate, 1),
        }  # fmt: skip
        record |= self.milliseconds | self.learner.means() | self.held_out.report(self.learner.ema, families)
        exported = self.best.offer(self.learner.ema, record, self.learner.step)
        self.last = (self.learner.step, time.time())
        return record | {"exported": exported, "best": self.best.state["score"], "best_step": self.best.state["step"]}

    def look(self, elapsed: float) -> bool:
        """Report and save when it is time; whether it was."""
        if elapsed < self.next_report:
            return False
        self.next_report = elapsed + self.args.report_seconds
        record = self.report(elapsed)
        self.note(record)
        if record.get("flat") and self.learner.step > self.args.warmup:
            print("WARNING: the guess is flat; the best weights so far stay exported", flush=True)
        if elapsed >= self.next_save:
            self.next_save = elapsed + 120
            self.save(elapsed)
        return True

    def save(self, elapsed: float) -> None:
        """What a second call goes on from, written beside and renamed."""
        state = self.learner.state() | {"spent": self.learner.spent + elapsed, "best": self.best.state}
        torch.save(state, self.args.out / "state.pt.tmp")
        (self.args.out / "state.pt.tmp").replace(self.args.out / "state.pt")


def main() -> None:
    args = options()
    begin = time.time()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    started = int(begin) if (args.out / "state.pt").exists() else 0  # a new slice sees new rooms
    # forks: before anything touches the GPU
    source = layouts(args.seed * 1000 + rank + started, args.textures, args.frames, args.rooms_at_once, args.workers)
    next(source)
    held = layouts(HELD_OUT_ROOMS, args.textures, args.frames, min(args.rooms_at_once, 8), 0)
    held_layouts = [next(held) for _ in range(3)] if rank == 0 else []

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = False  # rays need all their bits
    if world > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    args.out.mkdir(parents=True, exist_ok=True)
    learner = Learner(args, device, world)
    checked = {"self_check": self_check(next(held), learner.model, device)}
    print(json.dumps(checked | {"rank": rank, "startup_seconds": round(time.time() - begin, 1)}), flush=True)
    clips = Clips(args, device, source, rank, world)
    torch.manual_seed(HELD_OUT_ROOMS)
    held_rooms = [clip for layout in held_layouts for clip in zip(*clips.drawn(layout), strict=True)]
    torch.manual_seed(args.seed * 7919 + learner.step * 64 + rank)
    total = 60 * (args.total_minutes or args.minutes + learner.spent / 60)
    journal = None
    if rank == 0:
        journal = Journal(args, learner, clips, HeldOut(args.scenes, held_rooms, device, args.held_out))
    clips.start()
    if journal is not None:
        journal.start(begin, world, checked)
    clock, progress, first = Clock(begin, device, world), 0.0, learner.step
    while learner.step - first < args.max_steps:
        if (learner.step - first) % 10 == 0:
            elapsed = clock.elapsed()
            progress = min((learner.spent + elapsed) / total, 1.0)
            if elapsed >= 60 * args.minutes:
                break
            if journal is not None and journal.look(elapsed):
                journal.milliseconds = timed_step(clips, learner, progress)
                continue
        learner.learn(*clips.batch(learner.step), progress)
    elapsed = time.time() - begin
    if clips.files is not None:
        clips.files.stop()
    if journal is not None:
        record = journal.report(elapsed, families=True)
        journal.save(elapsed)
        journal.note({"event": "end"} | record)
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
