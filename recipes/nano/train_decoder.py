"""Tune the autoencoder's decoder to what the denoiser really predicts in one step; the encoder and so the latents stay.

    python recipes/nano/train_decoder.py --pairs PAIRS --weights WEIGHTS --minutes 3 --out runs/decoder
    python recipes/nano/train_decoder.py --pairs PAIRS --weights WEIGHTS --start runs/decoder --detail --minutes 3 --out runs/detail

WEIGHTS is laid out like the embedded folder (autoencoder/, transformer/, adapter.safetensors). The first form trains the whole decoder
with pixel losses, on predictions and on true latents alike, and writes autoencoder/. The second one trains its last layers
alone with a critic, for texture, and writes detail.safetensors, which `--quality best` lays over the decoder.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from make_shards import Encoder, pair_files, prefetch
from train_autoencoder import PatchCritic

from ex4d.models.video_autoencoder import DETAIL_PREFIXES, VideoAutoencoder

#: Latent cells of a side and groups of four frames in a training crop: 160 px, 17 frames.
CROP_CELLS, CROP_GROUPS = 20, 5
#: Weight of a seen pixel beside an unseen one.
SEEN_WEIGHT = 0.15


@dataclass(frozen=True)
class Example:
    """One pair on the device: truth uint8 [3, T, H, W], seen [T, H, W], true and predicted latents [16, t, h, w] (not normalised)."""

    truth: Tensor
    seen: Tensor
    true: Tensor
    predicted: list[Tensor]


@torch.no_grad()
def predictions(folder: Path, pairs: Path, device: str, limit: int) -> list[Example]:
    """Every pair with what the frozen denoiser makes of it in one step from pure noise."""
    from ex4d.generators.checkpoint import load_adapter
    from ex4d.generators.lora import merge_lora
    from ex4d.generators.transformer import Ex4dTransformer
    from ex4d.train.flow import FlowModule, image_condition

    encoder = Encoder(folder / "autoencoder", device)
    denoiser = Ex4dTransformer.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    adapter = load_adapter(folder / "adapter.safetensors")
    merge_lora(denoiser, adapter.update())
    module = FlowModule(denoiser, adapter.geometry_encoder()).to(device).eval()
    text = torch.zeros(1, 1, int(denoiser.config["text_dim"]), device=device)
    generator = torch.Generator(device).manual_seed(0)
    out: list[Example] = []
    for _, _, target, filled, mask in prefetch(pair_files(pairs)[:limit]):
        z = encoder.example(target, filled, mask)
        predicted = []
        for _ in range(2):
            noise = torch.randn(z["latents"].shape, generator=generator, device=device)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                velocity = module(
                    noise, torch.full((1,), 1000.0, device=device), image_condition(z["image_latents"]), text, None,
                    z["color_latents"], z["mask_latents"],
                )  # fmt: skip
            predicted.append(((noise - velocity.float()) * encoder.std + encoder.mean)[0].half())
        truth = torch.from_numpy(target).to(device).permute(3, 0, 1, 2).contiguous()
        true = (z["latents"] * encoder.std + encoder.mean)[0].half()
        out.append(Example(truth, torch.from_numpy(mask).to(device), true, predicted))
    return out


def batch(examples: list[Example], size: int, true_share: float, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Latents [B, 16, groups, cells, cells], truth in [-1, 1] [B, 3, T, px, px], seen [B, 1, T, px, px]."""
    latents, truths, seens = [], [], []
    for _ in range(size):
        e = examples[int(torch.randint(len(examples), (1,), generator=g))]
        groups, h, w = e.true.shape[1:]
        n, cells = min(CROP_GROUPS, groups), min(CROP_CELLS, h, w)
        at, y, x = (int(torch.randint(k, (1,), generator=g)) for k in (groups - n + 1, h - cells + 1, w - cells + 1))
        r = float(torch.rand(1, generator=g))
        source = e.true if r < true_share else e.predicted[int(r * 1e4) % len(e.predicted)]
        latents.append(source[:, at : at + n, y : y + cells, x : x + cells].float())
        t, py, px, side = 4 * at, 8 * y, 8 * x, 8 * cells
        frames = slice(t, t + 4 * n - 3)
        truths.append(e.truth[:, frames, py : py + side, px : px + side])
        seens.append(e.seen[None, frames, py : py + side, px : px + side])
    truth, seen = torch.stack(truths).float() / 127.5 - 1, torch.stack(seens)
    return torch.stack(latents), truth, seen


def gradient_magnitude(x: Tensor) -> Tensor:
    """Central differences of the luma of [B, 3, T, H, W] in [-1, 1], as the square root of their squares, [B, 1, T, H, W]."""
    luma = (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1, 1)).sum(1, keepdim=True)
    dx = F.pad(luma, (1, 1, 0, 0, 0, 0), mode="replicate").unfold(-1, 3, 1)
    dy = F.pad(luma, (0, 0, 1, 1, 0, 0), mode="replicate").unfold(-2, 3, 1)
    return ((dx[..., 2] - dx[..., 0]).square() + (dy[..., 2] - dy[..., 0]).square() + 1e-6).sqrt() / 2


def pixel_loss(y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Weighted L1 of values, of differences in space and time, and the similarity of gradient magnitudes (Xue et al. 2014)."""
    loss = (weight * (x - y).abs()).mean()
    for dim in (-1, -2, 2):
        w = weight.narrow(dim, 1, weight.shape[dim] - 1)
        loss = loss + 0.5 * (w * (x.diff(dim=dim) - y.diff(dim=dim)).abs()).mean()
    a, b = gradient_magnitude(x), gradient_magnitude(y)
    similarity = (2 * a * b + 0.002) / (a * a + b * b + 0.002)
    return loss + 0.1 * (weight * (1 - similarity)).mean()


@torch.no_grad()
def scores(model: VideoAutoencoder, examples: list[Example], device: str) -> dict[str, float]:
    """On held-out pairs: PSNR of holes, mean gradient magnitude of holes over the truth's, PSNR of the autoencoder itself."""
    psnr, sharp, own = [], [], []
    for e in examples[:16]:
        truth = e.truth[None].float() / 127.5 - 1
        hole = ~e.seen[None, None]
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            y, again = (model._decode(z[None].float()).float().clamp(-1, 1) for z in (e.predicted[0], e.true))
        if hole.any():
            error = ((y - truth) / 2).square().mean(1, keepdim=True)[hole].mean()
            psnr.append(-10 * math.log10(float(error) + 1e-12))
            sharp.append(float(gradient_magnitude(y)[hole].mean() / gradient_magnitude(truth)[hole].mean()))
        own.append(-10 * math.log10(float(((again - truth) / 2).square().mean()) + 1e-12))
    names = ("hole_psnr", "hole_sharpness", "own_psnr")
    return {n: round(sum(v) / len(v), 3) for n, v in zip(names, (psnr, sharp, own), strict=True) if v}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="folder whose autoencoder/ the training starts from; default: WEIGHTS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--detail", action="store_true", help="train the last layers with a critic")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--limit", type=int, default=900, help="pairs kept on the device, 14 MB each")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--critic-share", type=float, default=0.6, help="gradient of the critic over that of the pixels")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    begin = time.time()
    examples = predictions(args.weights, args.pairs, device, args.limit)
    held, train = examples[::20], [e for k, e in enumerate(examples) if k % 20]
    model = VideoAutoencoder.from_pretrained((args.start or args.weights) / "autoencoder", torch_dtype=torch.float32)
    model = model.to(device)
    prefixes = DETAIL_PREFIXES if args.detail else ("dec",)
    model.requires_grad_(False)
    trained = {n: p.requires_grad_(True) for n, p in model.named_parameters() if n.startswith(prefixes)}
    ema = copy.deepcopy(model).requires_grad_(False)
    averaged = [p for n, p in ema.named_parameters() if n in trained]
    opt = torch.optim.AdamW(trained.values(), lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    critic = PatchCritic().to(device)
    opt_critic = torch.optim.AdamW(critic.parameters(), lr=2e-4, betas=(0.5, 0.9))
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / "log.jsonl").open("a")
    start, step, next_report = time.time(), 0, 0.0
    budget = max(60 * args.minutes - (start - begin), 1.0)
    print(f"{len(train)} pairs after {start - begin:.0f} s, {sum(p.numel() for p in trained.values()):,} weights", flush=True)
    while (elapsed := time.time() - start) < budget:
        rate = args.lr * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * elapsed / budget)))
        for group in opt.param_groups:
            group["lr"] = rate
        z, x, seen = batch(train, args.batch, 0.0 if args.detail else 0.35, g)
        weight = torch.where(seen, SEEN_WEIGHT, 1.0)
        weight = weight / weight.mean()
        # torch 2.13 crashes on a CPU in the backward pass of a channels-last group norm whose input needs no gradient
        z.requires_grad_(args.detail)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            y = model._decode(z).float()
        loss = pixel_loss(y, x, weight)
        opt.zero_grad(set_to_none=True)
        if not args.detail:
            loss.backward()
        else:
            at = int(torch.randint(x.shape[2] - 2, (1,), generator=g))
            shown = torch.where(seen, x, y)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                critic.requires_grad_(False)
                fooled = -critic(shown, at).float().mean()
                critic.requires_grad_(True)
            (pixels,) = torch.autograd.grad(loss, y, retain_graph=True)
            (texture,) = torch.autograd.grad(fooled, y, retain_graph=True)
            joins = min(1.0, step / 300)  # the critic learns first
            share = args.critic_share * joins * pixels.norm() / (texture.norm() + 1e-12)
            # frames that the critic did not see get the pixels' gradient alone
            y.backward(pixels + share * texture)
        norm = nn.utils.clip_grad_norm_(trained.values(), 1.0)
        if torch.isfinite(norm):
            opt.step()
        if args.detail:
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                real, fake = critic(x, at).float(), critic(shown.detach(), at).float()
                loss_critic = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
            opt_critic.zero_grad(set_to_none=True)
            loss_critic.backward()
            opt_critic.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, list(trained.values()), 1 - min(0.998, (step + 1) / (step + 10)))
        step += 1
        if elapsed >= next_report:
            next_report = elapsed + 20
            record = {"step": step, "seconds": round(elapsed, 1), "loss": round(loss.item(), 5), **scores(ema, held, device)}
            print(json.dumps(record), flush=True)
            log.write(json.dumps(record) + "\n")
            log.flush()
    record = {"step": step, "seconds": round(time.time() - start, 1), **scores(ema, held, device)}
    print(json.dumps(record), flush=True)
    log.write(json.dumps(record) + "\n")
    ema = ema.to(torch.bfloat16)
    if args.detail:
        from safetensors.torch import save_file

        tail = {n: t.contiguous().cpu() for n, t in ema.state_dict().items() if n.startswith(DETAIL_PREFIXES)}
        save_file(tail, args.out / "detail.safetensors")
    else:
        ema.save_pretrained(args.out / "autoencoder")


if __name__ == "__main__":
    main()
