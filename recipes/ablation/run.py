"""Which simulated masks teach the adapter to fill what a new camera never saw? Twelve small runs and one table.

    python recipes/ablation/run.py --train runs/ablation/train --test runs/ablation/test --autoencoder AE --base BASE --out OUT

The same base, data, steps and noise for each of four mixtures (random shapes, rendering masks, tracking masks, all of them) and
three seeds; only the mask kind that a step draws differs. Every adapter is then judged on held-out scenes at 30, 60 and 90
degrees with the masks of real renders, in the holes, against the true view. A second call goes on where the first stopped.
--autoencoder: a folder of `VideoAutoencoder` or `AutoencoderKLWan`; --base: a folder of a small `WanTransformer3DModel`. Without
one, an image-to-video denoiser is first trained on the same clips, without any mask, and frozen.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from ex4d.conditioning.condition import make_condition
from ex4d.train.config import DataConfig, LoopConfig, ModelConfig, TrainConfig
from ex4d.train.data.shards import ShardWriter
from ex4d.train.flow import denoise, image_condition
from ex4d.train.masks.make import SimulatedMask
from ex4d.train.mixture import MixtureConfig
from ex4d.train.objective import ObjectiveConfig
from ex4d.train.prepare.encoders import Encoders
from ex4d.train.prepare.samples import condition_sample, make_sample
from ex4d.train.task import trained_parameters, with_weights
from ex4d.train.train import make_trainer

MIXTURES = {
    "shapes": {"shapes": 1.0},
    "rendering": {"transplanted": 0.5, "aligned": 0.5},
    "tracking": {"tracking": 1.0},
    "mixture": {"transplanted": 0.3, "aligned": 0.3, "tracking": 0.2, "shapes": 0.2},
}
ANGLES_DEG = (30, 60, 90)
#: The denoiser that is trained when there is no --base.
SIZES = {"num_attention_heads": 5, "attention_head_dim": 64, "in_channels": 36, "out_channels": 16, "text_dim": 32}
SIZES |= {"freq_dim": 128, "ffn_dim": 1024, "num_layers": 8, "cross_attn_norm": True}


def load_autoencoder(folder: Path, device: torch.device):
    """Our small autoencoder or Wan's, by the class its config names; an empty folder name makes a tiny random one (tests)."""
    name = json.loads((folder / "config.json").read_text())["_class_name"]
    if name == "VideoAutoencoder":
        from ex4d.models.nano.autoencoder import VideoAutoencoder as Autoencoder
    else:
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan as Autoencoder
    return Autoencoder.from_pretrained(folder).to(device).float().eval()


def encode_train(folder: Path, out: Path, encoders: Encoders) -> None:
    """Shards of latents, one a file of clips."""
    for path in sorted(folder.glob("[0-9]*.npz")):
        shard = out / f"{path.stem}.tar"
        if shard.exists():
            continue
        with np.load(path) as data:
            masks = np.unpackbits(data["masks"], axis=-1).astype(bool)
            simulated = [SimulatedMask(m, str(k), "") for m, k in zip(masks, data["kinds"], strict=True)]
            arrays = make_sample(data["frames"], simulated, "", encoders)
        with ShardWriter(shard) as writer:
            writer.write(path.stem, arrays, {"source": path.stem})


def train_one(args: argparse.Namespace, name: str, seed: int, data: Path, base: Path | None):
    """One adapter on the frozen base, or the base itself when there is none; returns the trainer."""
    sizes = SIZES | ({"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64} if args.tiny else {})
    model = ModelConfig(
        "base" if base is None else "adapter",
        base="" if base is None else str(base),
        sizes={} if base else sizes,
        lora_rank=32,
        lora_alpha=32.0,
        geometry_hidden=24 if args.tiny else 192,
    )
    steps = args.steps if base else args.base_steps
    loop = LoopConfig(
        steps=steps,
        batch=args.batch,
        lr=args.lr,
        warmup=min(100, steps // 4 + 1),
        ema=0.995,
        precision="bf16" if torch.cuda.is_available() else "fp32",
        activation_checkpointing=False,
        seed=seed,
        checkpoint_every=10**9,
        keep_last=1,
        validate_every=0,
        log_every=50,
        tensorboard=False,
    )
    objective = ObjectiveConfig(weighting="uniform", pure_noise_share=0.35, hole_weight=4.0 if base else 1.0)
    mixture = MixtureConfig(MIXTURES.get(name, {"aligned": 1.0}), coverage=(0.05, 0.995))
    config = TrainConfig(DataConfig(str(data), held_out=0.0), model, objective, mixture, loop)
    # the seed decides first weights, order and noise: of one seed, only the masks differ
    trainer = make_trainer(config, args.out / f"{name}_{seed}")
    trainer.fit()
    return trainer


@torch.no_grad()
def score(trainer, tests: list[dict], encoders: Encoders, steps: int) -> dict[str, float]:
    """Hole PSNR and MS-SSIM of each angle, averaged over the test scenes."""
    task, device = trainer.task, trainer.device
    task.module.eval()
    found: dict[str, list[float]] = {}
    with with_weights(trainer.parameters, trainer.ema), trainer.accelerator.autocast():
        for case in tests:
            for angle in ANGLES_DEG:
                batch = {k: torch.from_numpy(v)[None].to(device).float() for k, v in case[angle]["arrays"].items()}
                batch |= {k: batch[k][:, 0] for k in ("color_latents", "mask_latents")}

                def predict(noised, batch=batch):
                    return task.module(
                        noised.x_t, noised.timestep, image_condition(batch["image_latents"]) if task.needs_image else None,
                        batch["text"], None, batch["color_latents"], batch["mask_latents"],
                    )  # fmt: skip

                latents = denoise(predict, batch["latents"], task.config.objective.shift, steps)
                from ex4d.models.wan.autoencoder import decode_latents, to_uint8

                video = to_uint8(decode_latents(encoders.vae, latents.float()))
                hole, truth = ~case[angle]["mask"], case[angle]["truth"]
                shown = np.where(hole[..., None], video, truth)  # seen pixels are not in question
                error = (video[hole].astype(np.float64) - truth[hole]) ** 2
                found.setdefault(f"psnr_{angle}", []).append(10 * math.log10(255**2 / max(error.mean(), 1e-9)))
                found.setdefault(f"msssim_{angle}", []).append(hole_ms_ssim(shown, truth, hole))
    return {k: float(np.mean(v)) for k, v in found.items()}


def hole_ms_ssim(video: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Multi-scale SSIM whose index maps are averaged over the holes at each scale (mean over every fourth frame)."""
    from ex4d.evaluate.metrics.image import ms_ssim

    chosen = [t for t in range(1, len(video), 4) if hole[t].any()]
    return float(np.mean([ms_ssim(video[t], truth[t], hole[t], border=True) for t in chosen])) if chosen else math.nan


def read_tests(folder: Path, encoders: Encoders) -> list[dict]:
    """Held-out scenes with their conditions encoded."""
    cases = []
    for path in sorted(folder.glob("[0-9]*.npz")):
        with np.load(path) as data:
            case = {}
            for angle in ANGLES_DEG:
                mask = np.unpackbits(data[f"mask_{angle}"], axis=-1).astype(bool)
                condition = make_condition(data[f"color_{angle}"], mask.astype(np.uint8) * 255)
                truth = data[f"truth_{angle}"]
                arrays = condition_sample(truth, [condition], [SimulatedMask(mask, "view", "")], "", encoders)
                case[angle] = {"arrays": arrays, "mask": mask, "truth": truth}
            cases.append(case)
    return cases


def table(rows: list[dict]) -> str:
    """Mean and spread (standard deviation over the seeds) of every mixture."""
    lines = ["| masks | " + " | ".join(f"{a} deg PSNR dB | {a} deg MS-SSIM" for a in ANGLES_DEG) + " | s a run |"]
    lines.append("| --- |" + " --- | --- |" * len(ANGLES_DEG) + " --- |")
    for name in MIXTURES:
        mine = [r for r in rows if r["mixture"] == name]
        if not mine:
            continue
        cells = []
        for a in ANGLES_DEG:
            for metric, digits in (("psnr", 2), ("msssim", 3)):
                v = np.array([r[f"{metric}_{a}"] for r in mine])
                cells.append(f"{v.mean():.{digits}f} +- {v.std(ddof=1) if len(v) > 1 else 0:.{digits}f}")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {np.mean([r['seconds'] for r in mine]):.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--base-steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=3, help="how many; 0 only trains the base")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="to spread seeds over processes, each with its own --out"
    )
    parser.add_argument("--sampling-steps", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=9.0, help="start no run after this")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    begin = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width = SIZES["text_dim"]
    if args.base is not None:
        width = json.loads((args.base / "config.json").read_text())["text_dim"]
    encoders = Encoders(load_autoencoder(args.autoencoder, device), text_width=width)
    encode_train(args.train, args.out / "shards", encoders)
    tests = read_tests(args.test, encoders)
    print(f"encoded after {time.time() - begin:.0f} s, {len(tests)} test scenes", flush=True)
    base = args.base or args.out / "base_0" / "transformer"
    if not (base / "config.json").exists():
        start = time.time()
        train_one(args, "base", 0, args.out / "shards", None).export(portable=False)
        print(f"base trained in {time.time() - start:.0f} s", flush=True)
    done = args.out / "results.jsonl"
    rows = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in MIXTURES:
            if any(r["mixture"] == name and r["seed"] == seed for r in rows):
                continue
            if time.time() - begin > 60 * args.minutes:
                print("time is up; the same command goes on")
                print(table(rows))
                return
            start = time.time()
            trainer = train_one(args, name, seed, args.out / "shards", base)
            seconds = time.time() - start
            assert trained_parameters(trainer.task.module)
            rows.append(
                {
                    "mixture": name,
                    "seed": seed,
                    "seconds": seconds,
                    **score(trainer, tests, encoders, args.sampling_steps),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
            with done.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    text = f"{len(tests)} held-out scenes, {args.steps} steps of {args.batch}, {args.sampling_steps} sampling step(s)\n\n{table(rows)}\n"
    (args.out / "table.md").write_text(text)
    print("\n" + text)


if __name__ == "__main__":
    main()
