"""Train the embedded depth network on rendered scenes (files that another process makes meanwhile) and endless ray cast rooms.

    python recipes/nano/depth_scenes.py --out runs/scenes --workers 28 --minutes 12 &
    python recipes/nano/train_depth.py --scenes runs/scenes --clips CLIPS --minutes 12 --out runs/depth

Several GPUs: `torchrun --nproc-per-node 2 recipes/nano/train_depth.py ...`; the batch is per GPU. Runs in slices: a second call with the
same --out goes on (--total-minutes says how long the learning rate's curve is); on another machine start with --init FOLDER.
Writes depth/ (EMA weights, bf16), state.pt and log.jsonl. Training starts on rooms alone and takes scenes as they come.
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
from depth_data import FARTHEST, NEAREST, Ring, SceneFiles, changed, cropped, read_scene
from depth_rooms import RoomRenderer, TextureBank, layouts, make_textures
from score_depth import errors
from torch import Tensor, nn
from torch.nn import functional as F

from ex4d.models.depth_network import ClipDepthNetwork

#: Seed of the held-out rooms; training uses others.
HELD_OUT_ROOMS = 900_001


def depth_loss(disparity: Tensor, depth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss over clips [B, T, h, w]: L1 of log depth after one scale a clip, the relative error after one scale and shift of depth a
    clip (what is scored), and gradient matching of the log error at four scales and in time (after MiDaS, Ranftl et al. 2020).
    """
    z = depth.clamp(NEAREST, FARTHEST)
    error = -disparity.log() - z.log()
    error = error - error.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
    plain = error.abs().mean()
    # the scored error: the fit is held fixed, as its own derivative vanishes at the optimum
    with torch.no_grad():
        g, q = (1 / disparity).flatten(1).double(), z.flatten(1).double()
        a, b = g / q, 1 / q
        aa, ab, bb, sa, sb = (a * a).mean(1), (a * b).mean(1), (b * b).mean(1), a.mean(1), b.mean(1)
        det = aa * bb - ab * ab
        scale, shift = (sa * bb - sb * ab) / det, (sb * aa - sa * ab) / det
        usual = (a.median(dim=1).values).reciprocal()
        good = torch.isfinite(scale) & torch.isfinite(shift) & (scale > 0.2 * usual) & (scale < 5 * usual)
        scale, shift = torch.where(good, scale, usual).float(), torch.where(good, shift, 0.0).float()
    fit = scale.view(-1, 1, 1, 1) / disparity + shift.view(-1, 1, 1, 1)
    relative = ((fit - z) / z).abs().clamp_max(2)
    scored = relative.mean()
    time = error.diff(dim=1).abs().mean() if error.shape[1] > 1 else error.new_zeros(())
    edges, level = error.new_zeros(()), error
    for _ in range(4):
        edges = edges + level.diff(dim=-1).abs().mean() + level.diff(dim=-2).abs().mean()
        level = F.avg_pool2d(level, 2)
    total = plain + 0.7 * scored + 0.4 * edges + 0.3 * time
    return total, {"log": plain.detach(), "rel": scored.detach()}


@torch.no_grad()
def scores(model: nn.Module, clips: list[tuple[Tensor, Tensor]]) -> list[dict[str, float]]:
    """AbsRel and delta1 after one scale and shift of depth, of each clip (uint8 [T, 3, H, W], depth [T, H, W])."""
    out = []
    for color, depth in clips:
        video = color.transpose(0, 1)[None].float() / 127.5 - 1
        with torch.autocast(video.device.type, torch.bfloat16, enabled=video.is_cuda):
            guess = model(video)[0]
        out.append(errors(guess.flatten(), depth.float().clamp(NEAREST, FARTHEST).flatten(), "depth"))
    return out


def mean_of(rows: list[dict[str, float]], name: str) -> dict[str, float]:
    keys = rows[0] if rows else ()
    return {f"{name}_{k}": round(float(np.mean([r[k] for r in rows])), 4) for k in keys}


class HeldOut:
    """Validation scenes (files of validation seeds, read once they are there) and rooms."""

    def __init__(self, folder: Path | None, rooms: list[tuple[Tensor, Tensor]], device: str, limit: int) -> None:
        self.folder, self.rooms, self.device, self.limit = folder, rooms, device, limit
        self.scenes: dict[int, tuple[Tensor, Tensor]] = {}

    def refresh(self) -> None:
        if self.folder is None or len(self.scenes) >= self.limit:
            return
        for path in sorted(self.folder.glob("val_*.npz"))[: self.limit]:
            seed = int(path.stem[4:])
            if seed not in self.scenes:
                try:
                    color, depth = read_scene(path)
                except Exception as error:  # one bad file must not end the training
                    print(f"left out {path.name}: {error}", flush=True)
                    continue
                self.scenes[seed] = color[0].to(self.device), depth[0].to(self.device)

    def report(self, model: nn.Module, families: bool) -> dict:
        self.refresh()
        record: dict = {}
        if self.scenes:
            seeds = list(self.scenes)
            rows = scores(model, [self.scenes[s] for s in seeds])
            record |= {"held_out_scenes": len(rows)} | mean_of(rows, "scenes")
            if families:
                for k in range(6):
                    mine = [r for s, r in zip(seeds, rows, strict=True) if s % 6 == k]
                    record |= mean_of(mine, f"family{k}")
        return record | mean_of(scores(model, self.rooms), "rooms")


def save(out: Path, model: nn.Module, ema: nn.Module, opt: torch.optim.Optimizer, step: int, spent: float) -> None:
    """Weights and state, each written beside and renamed."""
    small = copy.deepcopy(ema)
    for p in small.parameters():
        p.data = p.data.to(torch.bfloat16)
    small.save_pretrained(out / "depth")
    state = {
        "model": model.state_dict(),
        "ema": ema.state_dict(),
        "opt": opt.state_dict(),
        "step": step,
        "spent": spent,
    }
    torch.save(state, out / "state.pt.tmp")
    (out / "state.pt.tmp").replace(out / "state.pt")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, help="folder that depth_scenes.py fills; without it: rooms only")
    parser.add_argument("--clips", type=Path, help="folder of permissive clips whose crops become textures")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="weights folder to start from (the optimiser starts anew)")
    parser.add_argument("--minutes", type=float, default=9.0, help="wall time of this call, start-up included")
    parser.add_argument("--total-minutes", type=float, help="of all slices, for the learning rate; as long as this one")
    parser.add_argument("--batch", type=int, default=16, help="clips per GPU")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--scene-px", type=int, default=224)
    parser.add_argument("--room-size", default="192x256")
    parser.add_argument("--train-sizes", default="224x224,192x256", help="HxW, in turn")
    parser.add_argument("--scene-share", type=float, default=0.5)
    parser.add_argument("--rooms-at-once", type=int, default=8)
    parser.add_argument("--rooms-every", type=int, default=3, help="steps between two renderings of rooms")
    parser.add_argument("--room-limit", type=int, default=3000)
    parser.add_argument("--scene-limit", type=int, default=20000, help="clips kept, 1.5 MB each; over all GPUs")
    parser.add_argument("--held-out", type=int, default=48)
    parser.add_argument("--textures", type=int, default=640)
    parser.add_argument("--workers", type=int, default=5, help="processes per GPU that lay rooms out")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=400)
    parser.add_argument("--report-seconds", type=float, default=20)
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
            model = ClipDepthNetwork.from_pretrained(args.init, torch_dtype=torch.float32)
        else:
            model = ClipDepthNetwork(**(json.loads(args.network) if args.network else {}))
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.parameters, self.averages = list(self.model.parameters()), list(self.ema.parameters())
        groups = [
            {"params": [p for p in self.parameters if p.ndim >= 2], "weight_decay": 0.03},
            {"params": [p for p in self.parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.opt = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.99), fused=device == "cuda")
        self.step, self.spent = 0, 0.0
        if (args.out / "state.pt").exists():
            state = torch.load(args.out / "state.pt", map_location=device, weights_only=True)
            self.model.load_state_dict(state["model"]), self.ema.load_state_dict(state["ema"])
            self.opt.load_state_dict(state["opt"])
            self.step, self.spent = state["step"], state["spent"]
        self.run = torch.compile(self.model, dynamic=False) if args.compile else self.model

    def _backward(self, video: Tensor, depth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            disparity = self.run(video)
        loss, terms = depth_loss(disparity, depth)
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach(), terms

    def learn(self, video: Tensor, depth: Tensor, progress: float) -> dict[str, Tensor]:
        """One step; the terms of the loss."""
        curve = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.opt.param_groups:
            group["lr"] = self.args.lr * min(1, (self.step + 1) / self.args.warmup) * curve
        try:
            loss, terms = self._backward(video, depth)
        except Exception as error:
            if self.run is self.model:
                raise
            print(f"compile failed, going on without it: {type(error).__name__}: {error}"[:400], flush=True)
            self.run = self.model
            loss, terms = self._backward(video, depth)
        if self.world > 1:
            flat = torch.cat([p.grad.flatten() for p in self.parameters])
            dist.all_reduce(flat)
            flat /= self.world
            for p, part in zip(self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True):
                p.grad.copy_(part.view_as(p))
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        # a step that is not finite is one of zero gradients: no wait for the GPU, no divergence
        finite = torch.isfinite(norm)
        for p in self.parameters:
            p.grad.copy_(torch.where(finite, p.grad, 0.0))
        self.opt.step()
        with torch.no_grad():
            decay = min(0.999, (self.step + 1) / (self.step + 10))
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
        self.step += 1
        return {"loss": loss} | terms


class Clock:
    """One time for all processes, asked for every tenth step."""

    def __init__(self, begin: float, device: str, world: int) -> None:
        self.begin, self.device, self.world = begin, device, world

    def elapsed(self) -> float:
        at = torch.tensor(time.time() - self.begin, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.broadcast(at, 0)
        return float(at)


class Journal:
    """log.jsonl, weights and state, by the first process only."""

    def __init__(self, args: argparse.Namespace, learner: Learner, clips: Clips, held_out: HeldOut) -> None:
        self.args, self.learner, self.clips, self.held_out = args, learner, clips, held_out
        self.log = (args.out / "log.jsonl").open("a")
        self.next_report, self.next_save = 0.0, 60.0
        self.last = (learner.step, time.time())

    def note(self, record: dict) -> None:
        print(json.dumps(record), flush=True)
        self.log.write(json.dumps(record) + "\n")
        self.log.flush()

    def state(self, elapsed: float) -> dict:
        seconds = round(self.learner.spent + elapsed, 1)
        made = {"scenes": self.clips.scenes.added, "rooms": self.clips.rooms.added}
        return {"step": self.learner.step, "seconds": seconds} | made

    def look(self, elapsed: float, terms: dict[str, Tensor]) -> None:
        """Report and save when it is time."""
        if elapsed < self.next_report:
            return
        self.next_report = elapsed + self.args.report_seconds
        rate = (self.learner.step - self.last[0]) / max(time.time() - self.last[1], 1e-9)
        record = self.state(elapsed) | {"steps_per_second": round(rate, 1)}
        record |= {k: round(float(v), 4) for k, v in terms.items()}
        self.note(record | self.held_out.report(self.learner.ema, families=False))
        self.last = (self.learner.step, time.time())
        if elapsed >= self.next_save:
            self.next_save = elapsed + 120
            self.save(elapsed)

    def save(self, elapsed: float) -> None:
        save(self.args.out, self.learner.model, self.learner.ema, self.learner.opt, self.learner.step,
             self.learner.spent + elapsed)  # fmt: skip


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
    clips = Clips(args, device, source, rank, world)
    torch.manual_seed(HELD_OUT_ROOMS)
    held_rooms = [clip for layout in held_layouts for clip in zip(*clips.drawn(layout), strict=True)]
    learner = Learner(args, device, world)
    torch.manual_seed(args.seed * 7919 + learner.step * 64 + rank)
    total = 60 * (args.total_minutes or args.minutes + learner.spent / 60)
    journal = None
    if rank == 0:
        journal = Journal(args, learner, clips, HeldOut(args.scenes, held_rooms, device, args.held_out))
    clips.start()
    if journal is not None:
        journal.note({
            "event": "start", "step": learner.step, "spent": round(learner.spent, 1), "gpus": world,
            "parameters": sum(p.numel() for p in learner.parameters), "init": args.init.name if args.init else None,
            "batch": args.batch * world, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "startup_seconds": round(time.time() - begin, 1), "room_seconds": round(clips.room_seconds, 3),
            "rooms_every": clips.rooms_every,
        })  # fmt: skip
    clock, progress, terms, first = Clock(begin, device, world), 0.0, {}, learner.step
    while learner.step - first < args.max_steps:
        if (learner.step - first) % 10 == 0:
            elapsed = clock.elapsed()
            progress = min((learner.spent + elapsed) / total, 1.0)
            if elapsed >= 60 * args.minutes:
                break
            if journal is not None:
                journal.look(elapsed, terms)
        terms = learner.learn(*clips.batch(learner.step), progress)
    elapsed = time.time() - begin
    if clips.files is not None:
        clips.files.stop()
    if journal is not None:
        journal.save(elapsed)
        journal.note({"event": "end"} | journal.state(elapsed) | journal.held_out.report(learner.ema, families=True))
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
