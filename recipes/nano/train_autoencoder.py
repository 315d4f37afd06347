"""Train the embedded video autoencoder from scratch.

    python recipes/nano/train_autoencoder.py --clips CLIPS --scenes SCENES --minutes 9 --out runs/ae

Runs in slices: a second call with the same --out goes on from its checkpoint. Writes autoencoder/ (EMA weights, bf16, with
the latents' statistics) and log.jsonl.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from clips import VideoPool, read_clips

from ex4d.models.nano.autoencoder import VideoAutoencoder


class PatchCritic(nn.Module):
    """PatchGAN on three neighbouring frames, hinge loss."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(9, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for k in range(2):
            layers += [
                nn.Conv2d(width << k, width << (k + 1), 4, 2, 1),
                nn.GroupNorm(8, width << (k + 1)),
                nn.LeakyReLU(0.2),
            ]
        self.body = nn.Sequential(*layers, nn.Conv2d(width << 2, 1, 3, 1, 1))

    def forward(self, video: Tensor, at: int) -> Tensor:
        """video [batch, 3, time, h, w]; `at` picks frames at, at+1, at+2."""
        return self.body(video[:, :, at : at + 3].transpose(1, 2).flatten(1, 2))


def gradient_loss(a: Tensor, b: Tensor) -> Tensor:
    """L1 of differences in x, y and time: edges sharp and still."""
    loss = a.new_zeros(())
    for dim in (-1, -2, 2):
        loss = loss + (a.diff(dim=dim) - b.diff(dim=dim)).abs().mean()
    return loss


def with_holes(x: Tensor, generator: torch.Generator) -> Tensor:
    """Some videos get black holes and some become masks, as the adapter will show them."""
    batch, _, time_, h, w = x.shape
    r = torch.rand(batch, generator=generator)
    noise = F.interpolate(
        torch.randn(batch, 1, 3, 5, 5, generator=generator).to(x.device), (time_, h, w), mode="trilinear"
    )
    noise = noise + 0.15 * F.interpolate(
        torch.randn(batch, 1, 3, 24, 24, generator=generator).to(x.device), (time_, h, w), mode="trilinear"
    )
    hole = noise > 0.3
    out = x.clone()
    for b in range(batch):
        if r[b] < 0.25:
            out[b] = torch.where(hole[b], -1.0, x[b])
        elif r[b] < 0.33:
            out[b] = torch.where(hole[b], -1.0, 1.0).expand_as(x[b])
    return out


@torch.no_grad()
def psnr_held_out(model: VideoAutoencoder, shots: list, px: int) -> float:
    """Mean PSNR in dB over the first 33 frames of every held-out shot's centre crop."""
    values = []
    for shot in shots[:6]:
        n = min((len(shot.frames) - 1) // 4 * 4 + 1, 33)
        h, w = (min(s // 8 * 8, px) for s in shot.frames.shape[-2:])
        x = shot.frames[:n, :, :h, :w].transpose(0, 1)[None].float() / 127.5 - 1
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            y = model(x).float().clamp(-1, 1)
        values.append(-10 * math.log10(float(((x - y) / 2).square().mean()) + 1e-12))
    return sum(values) / max(len(values), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--total-minutes", type=float, help="length of the whole schedule; default: this slice")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--px", type=int, default=160)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument(
        "--critic-from", type=float, default=0.6, help="share of the schedule after which the critic joins"
    )
    parser.add_argument("--critic-weight", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    pool = VideoPool(args.clips, args.scenes, device)
    held_out = read_clips(args.clips, device, held_out=True)
    model = VideoAutoencoder().to(device)
    ema = copy.deepcopy(model).requires_grad_(False)
    critic = PatchCritic().to(device)
    opt = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    opt_critic = torch.optim.AdamW(critic.parameters(), lr=2e-4, betas=(0.5, 0.9))
    step, spent = 0, 0.0
    checkpoint = args.out / "state.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        (
            model.load_state_dict(state["model"]),
            ema.load_state_dict(state["ema"]),
            critic.load_state_dict(state["critic"]),
        )
        opt.load_state_dict(state["opt"]), opt_critic.load_state_dict(state["opt_critic"])
        step, spent = state["step"], state["spent"]
        generator.manual_seed(args.seed + step)
    total = 60 * (args.total_minutes or args.minutes)
    begin = time.time()
    log = (args.out / "log.jsonl").open("a")
    next_report = 0.0
    while time.time() - begin < 60 * args.minutes:
        progress = min((spent + time.time() - begin) / total, 1.0)
        lr = args.lr * min(1, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in opt.param_groups:
            group["lr"] = lr
        x = with_holes(pool.batch(args.batch, args.frames, args.px, generator), generator)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            z = model._encode(x)
            y = model._decode(z + 0.02 * torch.randn_like(z) * z.detach().std())
            y = y.float()
            loss_pixel = (x - y).abs().mean() + 0.5 * (x - y).square().mean()
            loss = loss_pixel + 0.5 * gradient_loss(x, y) + 1e-3 * (z.float().square().mean() - 1).clamp(min=0)
            use_critic = progress > args.critic_from
            if use_critic:
                at = int(torch.randint(args.frames - 2, (1,), generator=generator))
                critic.requires_grad_(False)
                loss = loss - args.critic_weight * critic(y, at).float().mean()
                critic.requires_grad_(True)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if torch.isfinite(norm):
            opt.step()
        if use_critic:
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss_critic = (
                    F.relu(1 - critic(x, at).float()).mean() + F.relu(1 + critic(y.detach(), at).float()).mean()
                )
            opt_critic.zero_grad(set_to_none=True)
            loss_critic.backward()
            opt_critic.step()
        with torch.no_grad():
            decay = min(0.999, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
        step += 1
        elapsed = time.time() - begin
        if elapsed >= next_report:
            next_report = elapsed + 20
            record = {"step": step, "seconds": round(spent + elapsed, 1), "loss": round(float(loss_pixel), 5), "lr": lr}
            record |= {
                "psnr_160": round(psnr_held_out(ema, held_out, 160), 3),
                "psnr_256": round(psnr_held_out(ema, held_out, 256), 3),
            }
            record |= {"scenes": len(pool.scenes)}
            print(json.dumps(record), flush=True)
            log.write(json.dumps(record) + "\n")
            log.flush()
            pool.refresh()
    spent += time.time() - begin
    with torch.no_grad():
        latents = torch.cat(
            [
                ema._encode(pool.batch(8, args.frames, args.px, generator)).float().transpose(0, 1).flatten(1)
                for _ in range(16)
            ],
            dim=1,
        )
    ema.register_to_config(latents_mean=latents.mean(1).tolist(), latents_std=latents.std(1).tolist())
    copy.deepcopy(ema).to(torch.bfloat16).save_pretrained(args.out / "autoencoder")
    torch.save(
        {"model": model.state_dict(), "ema": ema.state_dict(), "critic": critic.state_dict(), "opt": opt.state_dict(),
         "opt_critic": opt_critic.state_dict(), "step": step, "spent": spent}, checkpoint
    )  # fmt: skip


if __name__ == "__main__":
    main()
