"""How fast does the trainer run the 14B model, and how does it scale?

One H100 or H200, LoRA and geometry encoder on a frozen bfloat16 base of random weights, 49 frames of 512x512 (13,312 tokens),
activation checkpointing. Executed floating-point operations count the recomputation; they are put against the bfloat16 matmul
rate measured in the same run.

    python benchmarks/train.py                               one GPU, compiled blocks, under 2.5 minutes
    python benchmarks/train.py --gpus 1,2,4 --parallel ddp   scaling: the same batch on every GPU
    python benchmarks/train.py --tiny --gpus 1,2             the same script on the CPU, in seconds
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ex4d.train.config import DataConfig, LoopConfig, ModelConfig, TrainConfig
from ex4d.train.cost import estimate, forward_work, model_sizes
from ex4d.train.data.batches import Draw
from ex4d.train.flow import FlowModule, image_condition
from ex4d.train.loop import Trainer
from ex4d.train.models import WAN_14B, build_flow_module, checkpoint_activations
from ex4d.train.objective import ObjectiveConfig, draw_noised, flow_loss
from ex4d.train.parallel import make_accelerator

TINY = {**WAN_14B, "num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 96, "num_layers": 3}
TINY |= {"text_dim": 16, "image_dim": 20, "added_kv_proj_dim": 48}
BAR, SCALING_BARS = 0.55, {2: 1.85, 4: 3.6}


class RandomLatents:
    """A task whose batches are random latents of the right sizes, made on the device."""

    fingerprint = "random"

    def __init__(self, module: FlowModule, size: tuple[int, int, int], device: torch.device, batch: int) -> None:
        self.module, self.device = module, device
        t, h, w = size
        sizes = module.transformer.config
        generator = torch.Generator(device).manual_seed(0)

        def random(*shape):
            return torch.randn(batch, *shape, generator=generator, device=device)

        self.latents, self.image = random(16, t, h, w), random(16, t, h, w)
        self.color, self.mask = random(16, t, h, w), random(16, t, h, w)
        self.text, self.tokens = random(512, sizes["text_dim"]), random(257, sizes["image_dim"])

    def batch(self, draw: Draw):
        return draw_noised(self.latents, ObjectiveConfig(), draw.generator(self.device, "noise"))

    def loss(self, module, noised, draw):
        out = module(
            noised.x_t, noised.timestep, image_condition(self.image), self.text, self.tokens, self.color, self.mask
        )
        return flow_loss(out, noised).mean(), {}

    def validate(self, module, examples):
        return {}

    def sample(self, module, step):
        return {}

    def export(self, weights, out):
        return []


def matmul_tflops(device: torch.device, side: int) -> float:
    """Best of a few bfloat16 products, TFLOP/s."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(5):
        seconds = timed(device, lambda: [a @ b for _ in range(10)]) / 10
        best = max(best, 2 * side**3 / seconds / 1e12)
    return best


def timed(device: torch.device, work) -> float:
    """Seconds of one call, the device waited for."""
    synchronize(device)
    begin = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begin


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(args: argparse.Namespace) -> dict:
    """One process of one measurement."""
    size = (2, 8, 8) if args.tiny else (13, 64, 64)
    model = ModelConfig("adapter", sizes=TINY if args.tiny else WAN_14B, geometry_hidden=24 if args.tiny else 1024)
    loop = LoopConfig(batch=args.batch, compile=args.compile, parallel=args.parallel, tensorboard=False, warmup=1)
    device = make_accelerator(loop, cpu=args.tiny and not args.cuda).device
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    begin = time.perf_counter()
    module = build_flow_module(model, seed=0, device=device)
    checkpoint_activations(module)
    synchronize(device)
    built = time.perf_counter() - begin
    task = RandomLatents(module, size, device, args.batch)
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(task, loop, Path(out), cpu=device.type == "cpu")
        warm = []
        for _ in range(args.warmup):
            warm.append(timed(device, trainer._one_step))
            trainer.step += 1
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(args.steps):
            seconds.append(timed(device, trainer._one_step))
            trainer.step += 1
        peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
        skipped = int(trainer.skipped)
    config = TrainConfig(DataConfig("none"), model, loop=loop)
    sizes = model_sizes(config)
    tokens = size[0] * size[1] * size[2] // 4
    work = forward_work(sizes, tokens, 512 + 257)
    executed = args.batch * work.step(checkpointing=True, trained=False)
    best = min(seconds)
    rate = matmul_tflops(device, 8192 if device.type == "cuda" else 256)
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "two-core x86-64 CPU",
        "gpus": int(os.environ.get("WORLD_SIZE", "1")),
        "parallel": args.parallel,
        "compiled": args.compile,
        "built_s": built,
        "first_step_s": warm[0] if warm else 0.0,
        "step_s": best,
        "median_s": sorted(seconds)[len(seconds) // 2],
        "executed_tflop": executed / 1e12,
        "forward_tflop": args.batch * (work.linear + work.attention) / 1e12,
        "tflops": executed / best / 1e12,
        "matmul_tflops": rate,
        "share": executed / best / 1e12 / rate,
        "peak_gib": peak,
        "estimated_gib": sum(estimate(config).memory_gib.values()),
        "skipped": skipped,
    }


def table(rows: list[dict]) -> str:
    """Markdown of every measurement."""
    lines = [
        "| GPUs | parallel | compiled | build s | first step s | step s (best, median) | TFLOP executed | TFLOP/s | matmul | share | peak GiB (estimate) | speed-up |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    one = next((r["step_s"] for r in rows if r["gpus"] == 1), None)
    for r in rows:
        scaling = f"{r['gpus'] * one / r['step_s']:.2f}x" if one and r["gpus"] > 1 else "1"
        lines.append(
            f"| {r['gpus']} | {r['parallel'] if r['gpus'] > 1 else '-'} | {r['compiled']} | {r['built_s']:.1f} "
            f"| {r['first_step_s']:.1f} | {r['step_s']:.3f}, {r['median_s']:.3f} | {r['executed_tflop']:,.3g} "
            f"| {r['tflops']:.3g} | {r['matmul_tflops']:.3g} | {r['share']:.0%} | {r['peak_gib']:.1f} ({r['estimated_gib']:.1f}) "
            f"| {scaling} |"
        )
    return "\n".join(lines)


def verdict(rows: list[dict]) -> str:
    """The bars, met or missed; they are for the 14B model on GPUs."""
    if "CPU" in rows[0]["device"]:
        return "The bars are for GPUs: this run shows that the script works."
    lines = []
    for r in rows:
        if r["gpus"] == 1:
            lines.append(
                f"share of the matmul rate {r['share']:.1%} (bar {BAR:.0%}): {'met' if r['share'] >= BAR else 'MISSED'}"
            )
            lines.append(
                f"peak memory {r['peak_gib']:.1f} GiB (bar 80 GB = 74.5 GiB): {'met' if r['peak_gib'] < 74.5 else 'MISSED'}"
            )
    one = next((r["step_s"] for r in rows if r["gpus"] == 1), None)
    for r in rows:
        if one and r["gpus"] in SCALING_BARS:
            speed, bar = r["gpus"] * one / r["step_s"], SCALING_BARS[r["gpus"]]
            lines.append(
                f"{r['gpus']} GPUs, {r['parallel']}: {speed:.2f}x (bar {bar}x): {'met' if speed >= bar else 'MISSED'}"
            )
    return "\n".join(lines)


def launch(args: argparse.Namespace, gpus: int, parallel: str) -> dict:
    """One measurement in its own processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "row.json"
        command = [sys.executable, __file__, "--row", str(record), "--parallel", parallel, "--steps", str(args.steps)]
        command += ["--warmup", str(args.warmup), "--batch", str(args.batch)]
        command += ["--compile" if args.compile else "--no-compile"] + ["--tiny"] * args.tiny + ["--cuda"] * args.cuda
        workers = []
        for rank in range(gpus):
            environment = os.environ | {"OMP_NUM_THREADS": "1" if args.tiny else os.environ.get("OMP_NUM_THREADS", "8")}
            if gpus > 1:
                environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(gpus)}
                environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NCCL_NVLS_ENABLE": "0"}
                if args.tiny and not args.cuda:
                    environment |= {"ACCELERATE_USE_CPU": "true"}
            workers.append(subprocess.Popen(command, env=environment))
        codes = [w.wait() for w in workers]
        if any(codes):
            raise SystemExit(f"{gpus} processes with {parallel} ended with {codes}")
        return json.loads(record.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", default="1", help="process counts to measure, e.g. 1,2,4")
    parser.add_argument("--parallel", default="ddp", help="ddp, fsdp2 or ddp,fsdp2")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--cuda", action="store_true", help="with --tiny: on the GPU")
    parser.add_argument("--write", type=Path, help="append the table to this file")
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny and not args.cuda:
        args.compile = False
    if args.row:
        row = measure(args)
        if int(os.environ.get("RANK", "0")) == 0:
            args.row.write_text(json.dumps(row))
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        return
    rows = []
    for gpus in map(int, args.gpus.split(",")):
        for parallel in args.parallel.split(",") if gpus > 1 else ["ddp"]:
            rows.append(launch(args, gpus, parallel))
            print(json.dumps(rows[-1]), flush=True)
    text = f"{rows[0]['device']}, torch {torch.__version__}\n\n{table(rows)}\n\n{verdict(rows)}\n"
    print("\n" + text)
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        with args.write.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
