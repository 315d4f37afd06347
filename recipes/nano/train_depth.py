"""Train the embedded depth network on rendered scenes with exact depth.

    python recipes/nano/train_depth.py --pairs PAIRS --minutes 9 --out runs/depth

Runs in slices: a second call with the same --out goes on. Writes depth/ (EMA weights, bf16) and log.jsonl.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ex4d.models.depth_network import ClipDepthNetwork


class Pool:
    """Scenes on the device, growing while the build runs; every 40th seed is held out."""

    def __init__(self, folder: Path, device: str, limit: int = 2500) -> None:
        self.folder, self.device, self.limit = folder, device, limit
        self.train: list[tuple[Tensor, Tensor]] = []
        self.held: list[tuple[Tensor, Tensor]] = []
        self._read: set[str] = set()

    def refresh(self, at_most: int = 60) -> None:
        """Read a few more scenes."""
        new = [p for p in sorted(self.folder.glob("[0-9]*.npz")) if p.name not in self._read][:at_most]
        for path in new:
            if len(self.train) >= self.limit:
                return
            self._read.add(path.name)
            with np.load(path) as data:
                color = torch.from_numpy(data["color"]).permute(3, 0, 1, 2).contiguous().to(self.device)
                depth = torch.from_numpy(data["depth"]).to(self.device)
            (self.held if int(path.stem) % 40 == 39 else self.train).append((color, depth))

    def batch(self, size: int, frames: int, px: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Augmented video [B, 3, T, px, px] in [-1, 1] and disparity [B, T, px, px] of the same crop."""
        videos, disparities = [], []
        for _ in range(size):
            color, depth = self.train[int(torch.randint(len(self.train), (1,), generator=g))]
            n, h, w = depth.shape
            stride = int(torch.randint(1, 5, (1,), generator=g))
            stride = max(min(stride, (n - 1) // max(frames - 1, 1)), 1)
            start = int(torch.randint(n - (frames - 1) * stride, (1,), generator=g))
            index = start + stride * torch.arange(frames, device=self.device)
            r = torch.rand(3, generator=g)
            side_h = int(h * (0.55 + 0.45 * r[0]))
            side_w = int(min(w, side_h * (0.8 + 0.4 * r[1])))
            y = int(torch.randint(h - side_h + 1, (1,), generator=g))
            x = int(torch.randint(w - side_w + 1, (1,), generator=g))
            video = color[:, index, y : y + side_h, x : x + side_w].float().transpose(0, 1) / 255
            disparity = 1 / depth[index, y : y + side_h, x : x + side_w].float().clamp(1e-2, 6e4)[:, None]
            video = F.interpolate(video, (px, px), mode="bilinear", antialias=True)
            disparity = F.interpolate(disparity, (px, px), mode="nearest-exact")
            if r[2] < 0.5:
                video, disparity = video.flip(-1), disparity.flip(-1)
            videos.append(colors_changed(video, g).transpose(0, 1))
            disparities.append(disparity[:, 0])
        return torch.stack(videos) * 2 - 1, torch.stack(disparities)


def colors_changed(video: Tensor, g: torch.Generator) -> Tensor:
    """Gamma, gain, tint, saturation, blur, noise: the look must not tell the renderer. video [T, 3, h, w] in 0..1."""
    r = torch.rand(10, generator=g).tolist()
    video = video.clamp(0, 1) ** math.exp(0.9 * (r[0] - 0.5))
    tint = 1 + 0.35 * (torch.rand(3, generator=g).to(video.device) - 0.5)
    video = video * tint[None, :, None, None]
    grey = video.mean(1, keepdim=True)
    video = grey + (video - grey) * (1.6 * r[1])
    if r[2] < 0.3:
        video = video[:, torch.randperm(3, generator=g).to(video.device)]
    if r[9] < 0.08:
        video = 1 - video
    mean = video.mean()
    video = (video - mean) * (0.5 + r[3]) + mean + 0.3 * (r[4] - 0.5)
    if r[5] < 0.4:
        scale = 0.4 + 0.6 * r[6]
        size = [int(s * scale) for s in video.shape[-2:]]
        video = F.interpolate(
            F.interpolate(video, size, mode="bilinear", antialias=True), video.shape[-2:], mode="bicubic"
        )
    if r[7] < 0.6:
        video = video + 0.06 * r[8] * torch.randn(video.shape, device=video.device)
    return video.clamp(0, 1)


#: Depths that count, metres: nearer and farther ones are clamped (sky).
NEAREST, FARTHEST = 0.25, 60.0


def depth_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """L1 of log depth after one scale per clip, with gradient matching at four scales and in time (after MiDaS, Ranftl 2020)."""
    a, b = predicted.float().log(), truth.clamp(1 / FARTHEST, 1 / NEAREST).log()
    error = a - b
    error = error - error.flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
    loss = error.abs().mean() + 0.5 * error.diff(dim=1).abs().mean()
    for _ in range(4):
        loss = loss + 0.5 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
        error = F.avg_pool2d(error, 2)
    return loss


@torch.no_grad()
def scores(model: nn.Module, clips: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """AbsRel and delta1 of depth after one scale and shift of depth per clip (least squares of the relative error)."""
    errors, deltas = [], []
    for color, depth in clips[:24]:
        video = color[None, :, ::3].float() / 127.5 - 1
        z = depth[::3].float().clamp(NEAREST, FARTHEST).flatten()
        with torch.autocast(video.device.type, torch.bfloat16, enabled=video.is_cuda):
            guess = 1 / model(video)[0].float().flatten()
        A = torch.stack([guess / z, 1 / z], dim=1)
        fit = torch.linalg.lstsq(A, torch.ones_like(z)[:, None]).solution
        guess = (fit[0] * guess + fit[1]).clamp(NEAREST / 4, FARTHEST * 4)
        errors.append(float(((guess - z).abs() / z).mean()))
        deltas.append(float((torch.maximum(guess / z, z / guess) < 1.25).float().mean()))
    return {"abs_rel": round(float(np.mean(errors)), 4), "delta1": round(float(np.mean(deltas)), 4)} if errors else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--total-minutes", type=float)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    g = torch.Generator().manual_seed(args.seed)
    pool = Pool(args.pairs, device)
    begin = time.time()
    while not pool.train and time.time() - begin < 120:
        pool.refresh()
        time.sleep(1)
    model = ClipDepthNetwork().to(device)
    ema = copy.deepcopy(model).requires_grad_(False)
    opt = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.02)
    step, spent = 0, 0.0
    checkpoint = args.out / "state.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"]), ema.load_state_dict(state["ema"]), opt.load_state_dict(state["opt"])
        step, spent = state["step"], state["spent"]
        g.manual_seed(args.seed + step)
    total = 60 * (args.total_minutes or args.minutes)
    log = (args.out / "log.jsonl").open("a")
    next_report = 0.0
    while time.time() - begin < 60 * args.minutes:
        progress = min((spent + time.time() - begin) / total, 1.0)
        lr = args.lr * min(1, (step + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in opt.param_groups:
            group["lr"] = lr
        video, truth = pool.batch(args.batch, args.frames, args.px, g)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            predicted = model(video)
        loss = depth_loss(predicted, truth)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            opt.step()
        with torch.no_grad():
            decay = min(0.9995, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
        step += 1
        elapsed = time.time() - begin
        if elapsed >= next_report:
            next_report = elapsed + 20
            pool.refresh()
            record = {
                "step": step,
                "seconds": round(spent + elapsed, 1),
                "loss": round(float(loss), 4),
                "scenes": len(pool.train),
            }
            record |= scores(ema, pool.held)
            print(json.dumps(record), flush=True)
            log.write(json.dumps(record) + "\n")
            log.flush()
    copy.deepcopy(ema).to(torch.bfloat16).save_pretrained(args.out / "depth")
    torch.save(
        {"model": model.state_dict(), "ema": ema.state_dict(), "opt": opt.state_dict(), "step": step,
         "spent": spent + time.time() - begin}, checkpoint
    )  # fmt: skip


if __name__ == "__main__":
    main()
