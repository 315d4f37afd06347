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


def main() -> None:
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
    args = parser.parse_args()
    begin = time.time()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    checkpoint = args.out / "state.pt"
    started = int(time.time()) if checkpoint.exists() else 0  # a new slice sees new rooms
    room_size = tuple(int(x) for x in args.room_size.split("x"))
    sizes = [tuple(int(x) for x in s.split("x")) for s in args.train_sizes.split(",")]
    # forks: before anything touches the GPU
    seed = args.seed * 1000 + rank + started
    source = layouts(seed, args.textures, args.frames, args.rooms_at_once, args.workers)
    next(source)
    held_layouts = []
    if rank == 0:
        held = layouts(HELD_OUT_ROOMS, args.textures, args.frames, min(args.rooms_at_once, 8), 0)
        held_layouts = [next(held) for _ in range(3)]

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = False  # rays need all their bits
    if world > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    args.out.mkdir(parents=True, exist_ok=True)

    bank = TextureBank(make_textures(args.textures, args.clips, args.seed), device)
    render = RoomRenderer(bank, room_size)
    rooms = Ring(max(args.room_limit // world, 2 * args.batch), args.frames, room_size, device)
    scene_hw = (args.scene_px, args.scene_px)
    scenes = Ring(max(args.scene_limit // world, 2 * args.batch), args.frames, scene_hw, device)
    files = SceneFiles(args.scenes, args.frames, scene_hw, (rank, world)) if args.scenes else None

    def more_rooms() -> None:
        layout = {k: torch.as_tensor(v).to(device, non_blocking=True) for k, v in next(source).items()}
        rooms.add(*render(layout))

    torch.manual_seed(HELD_OUT_ROOMS)
    held_rooms = [
        c
        for x in held_layouts
        for c in zip(*render({k: torch.as_tensor(v).to(device) for k, v in x.items()}), strict=True)
    ]
    held_out = HeldOut(args.scenes, held_rooms, device, args.held_out)

    torch.manual_seed(args.seed)
    if args.init:
        model = ClipDepthNetwork.from_pretrained(args.init, torch_dtype=torch.float32)
    else:
        model = ClipDepthNetwork(**(json.loads(args.network) if args.network else {}))
    model = model.to(device, memory_format=torch.channels_last).train()
    ema = copy.deepcopy(model).requires_grad_(False)
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    other = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.03}, {"params": other, "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.99), fused=device == "cuda")
    step, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"]), ema.load_state_dict(state["ema"]), opt.load_state_dict(state["opt"])
        step, spent = state["step"], state["spent"]
    torch.manual_seed(args.seed * 7919 + step * 64 + rank)
    run = torch.compile(model, dynamic=False) if args.compile else model

    parameters = list(model.parameters())
    averages = list(ema.parameters())
    total = 60 * (args.total_minutes or args.minutes + spent / 60)
    log = (args.out / "log.jsonl").open("a") if rank == 0 else None

    def note(record: dict) -> None:
        if log is not None:
            print(json.dumps(record), flush=True)
            log.write(json.dumps(record) + "\n")
            log.flush()

    for _ in range(max(2 * args.batch // args.rooms_at_once, 1)):
        more_rooms()
    note({
        "event": "start", "step": step, "spent": round(spent, 1), "parameters": sum(p.numel() for p in parameters),
        "init": args.init.name if args.init else None, "gpus": world, "batch": args.batch * world,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "startup_seconds": round(time.time() - begin, 1),
    })  # fmt: skip
    next_report = next_save = 0.0
    reported = (step, time.time())
    stop, progress, slice_steps = False, min(spent / total, 1.0), 0
    while not stop:
        if slice_steps % 10 == 0:  # one clock for all processes
            clock = torch.tensor(time.time() - begin, dtype=torch.float64, device=device)
            if world > 1:
                dist.broadcast(clock, 0)
            elapsed = float(clock)
            progress = min((spent + elapsed) / total, 1.0)
            stop = elapsed >= 60 * args.minutes or slice_steps >= args.max_steps
            if stop:
                break
            if rank == 0 and elapsed >= next_report:
                next_report = elapsed + args.report_seconds
                rate = (step - reported[0]) / max(time.time() - reported[1], 1e-9)
                record = {"step": step, "seconds": round(spent + elapsed, 1), "steps_per_second": round(rate, 1)}
                record |= {"scenes": scenes.added, "rooms": rooms.added}
                if slice_steps:
                    record |= {"loss": round(float(loss.detach()), 4)} | {
                        k: round(float(v), 4) for k, v in terms.items()
                    }
                note(record | held_out.report(ema, families=False))
                reported = (step, time.time())
                if elapsed >= next_save and step:
                    next_save = elapsed + 120
                    save(args.out, model, ema, opt, step, spent + elapsed)
        if slice_steps % args.rooms_every == 0:
            more_rooms()
        if files is not None:
            files.take(scenes, 3)
        # fewer scenes while there are few of them
        share = args.scene_share * min(len(scenes) / max(20 * args.batch, 1), 1.0)
        many = int(np.random.default_rng((seed, step)).binomial(args.batch, share))
        size = sizes[step % len(sizes)]
        parts = [cropped(*ring.sample(n), size) for ring, n in ((scenes, many), (rooms, args.batch - many)) if n]
        video, depth = (torch.cat(x) for x in zip(*parts, strict=True))
        video = changed(video).transpose(1, 2) * 2 - 1
        lr = args.lr * min(1, (step + 1) / args.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in opt.param_groups:
            group["lr"] = lr
        try:
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                disparity = run(video)
            loss, terms = depth_loss(disparity, depth)
            opt.zero_grad(set_to_none=True)
            loss.backward()
        except Exception as error:
            if run is model:
                raise
            print(f"compile failed, going on without it: {type(error).__name__}: {error}"[:400], flush=True)
            run = model
            continue
        if world > 1:
            flat = torch.cat([p.grad.flatten() for p in parameters])
            dist.all_reduce(flat)
            flat /= world
            for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                p.grad.copy_(part.view_as(p))
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        # a step that is not finite is one of zero gradients: no wait for the GPU, no divergence
        finite = torch.isfinite(norm)
        for p in parameters:
            p.grad.copy_(torch.where(finite, p.grad, 0.0))
        opt.step()
        with torch.no_grad():
            decay = min(0.999, (step + 1) / (step + 10))
            torch._foreach_lerp_(averages, parameters, 1 - decay)
        step, slice_steps = step + 1, slice_steps + 1
    spent += time.time() - begin
    if files is not None:
        files.stop()
    if rank == 0:
        save(args.out, model, ema, opt, step, spent)
        record = {
            "event": "end",
            "step": step,
            "seconds": round(spent, 1),
            "scenes": scenes.added,
            "rooms": rooms.added,
        }
        note(record | held_out.report(ema, families=True))
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
