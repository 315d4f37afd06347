"""How long the GPU rasteriser takes, kernel by kernel, and what limits it.

    PYTHONPATH=src python benchmarks/render_gpu.py --out benchmarks/results          # all bars
    PYTHONPATH=src python benchmarks/render_gpu.py --sweep --out /tmp/sweep          # tuning table, then the best
    PYTHONPATH=src python benchmarks/render_gpu.py --set tiny=8 --set block=64       # one tuning

Two times are given. *GPU time* is first kernel start to last kernel end with all launches waiting in the stream (a delay
kernel holds them back), so that the host adds nothing. *Call time* is one call after the other, host work included.
Compilation is excluded: every configuration runs once before it is timed. On a machine without a GPU,
`TRITON_INTERPRET=1 ... --size 24x32 --frames 2` only shows that the script runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ex4d.cameras.make import make_path
from ex4d.geometry.pinhole import intrinsics
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.render.cuda import launch as cuda_launch
from ex4d.render.cuda.job import Tuning
from ex4d.render.cuda.rasterizer import CudaRasterizer, interpreted, visibility_masks
from ex4d.types import DepthClip

CAMS = ("60", "90", "180")

#: 49 frames with nvdiffrast 0.4 and the release's own mesh code, one H100 (0.98 + 0.85 ms a frame), milliseconds.
NVDIFFRAST_MS = {(512, 512): 49 * (0.98 + 0.85), (1440, 2560): 49 * (10.6 + 3.61)}
BARS_MS = {(512, 512): 6.0, (1440, 2560): 90.0}
BARS_GIB = {(512, 512): 2.0, (1440, 2560): 8.0}
BAR_MASKS_FPS = 8000.0

SWEEP: dict[str, tuple] = {
    "block,warps": ((32, 1), (64, 1), (64, 2), (128, 4)),
    "tiny": (4, 9, 16, 36),
    "middle": (32, 96, 256),
    "segment": (64, 256),
    "programs": (132 * 8, 132 * 16, 132 * 32, 132 * 64),
    "vertex_block": (64, 128, 256),
    "pixel_block": (32, 64, 128, 256),
    "pixel_registers": (64, 96, 255),
    "splat_block": (32, 128),
    "workspace_bytes": (64 << 20, 256 << 20, 1 << 30),
}


@lru_cache(maxsize=1)
def scene(frames: int, size_hw: tuple[int, int], noise: float, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth [T, h, w] and colour [T, h, w, 3]: a slanted room with a wavy wall, five spheres and two poles that move.

    `noise` is the relative noise of the depth, which makes depth maps of estimators look smooth by comparison.
    """
    h, w = size_hw
    random = torch.Generator(device).manual_seed(0)
    y, x = torch.meshgrid(
        (torch.arange(h, device=device) + 0.5) / h - 0.5,
        (torch.arange(w, device=device) + 0.5) / w - 0.5,
        indexing="ij",
    )
    depth = torch.empty((frames, h, w), device=device)
    color = torch.empty((frames, h, w, 3), dtype=torch.uint8, device=device)
    for t in range(frames):
        phase = 2 * math.pi * t / max(frames, 2)
        z = 7.5 + 0.4 * torch.sin(9 * x + phase) * torch.cos(7 * y) + 1.2 * x
        z = torch.minimum(z, 3.2 / (y + 0.02).clamp(min=1e-3))  # the floor
        for k in range(5):
            cx, cy = 0.32 * math.sin(phase + 1.3 * k), 0.2 * math.cos(0.7 * phase + 2.1 * k)
            radius = 0.06 + 0.02 * k
            square = 1 - ((x - cx) ** 2 + (y - cy) ** 2) / radius**2
            near = 2.7 + 0.7 * k - radius * 3 * square.clamp(min=0).sqrt()
            z = torch.where(square > 0, torch.minimum(z, near), z)
        for k in range(2):
            z = torch.where((x - 0.3 * math.cos(phase + 3 * k)).abs() < 0.008, z.clamp(max=4.0 + k), z)
        z = z * (1 + noise * torch.randn(z.shape, generator=random, device=device))
        depth[t] = z.clamp(2.0, 90.0)
        stripes = 0.5 + 0.5 * torch.sin(60 * x + phase) * torch.sin(50 * y)
        color[t] = (255 * torch.stack([stripes, x + 0.5, y + 0.5], -1)).to(torch.uint8)
    return depth, color


class Case:
    """A clip on the device and the cameras of one path."""

    def __init__(
        self, size_hw: tuple[int, int], frames: int, cam: str, rule: MeshRule, device: str, noise: float
    ) -> None:
        self.depth, self.color = scene(frames, size_hw, noise, device)
        # The release keeps f = 500 px at every size; ours keeps the field of view of f = 500 px at 512.
        focal = 500.0 if not rule.ring else 500.0 * size_hw[1] / 512
        self.K = intrinsics(size_hw, focal)
        first = DepthClip(self.depth[:1].cpu().numpy(), self.K[None])
        path = make_path(cam, first=first, num_frames=frames, fps=Fraction(30), reference=True)
        self.clip = DepthRange(float(self.depth.min()), float(self.depth.max()))
        self.cam_from_source = path.cam_from_world
        self.size_hw, self.rule, self.cam = size_hw, rule, cam

    def render(self, rasterizer: CudaRasterizer):
        """Depth and colour to colour and mask."""
        return rasterizer.render_grid(
            self.depth, self.color, self.K, self.cam_from_source, self.K, self.size_hw,
            rule=self.rule, clip=self.clip, want_depth=False,
        )  # fmt: skip

    def masks(self, rasterizer: CudaRasterizer):
        """Visibility only, as for training."""
        return visibility_masks(
            self.depth, self.K, self.cam_from_source, self.K, self.size_hw,
            rule=self.rule, clip=self.clip, rasterizer=rasterizer,
        )  # fmt: skip


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def call_ms(work, repeats: int) -> float:
    """Median wall time of a call, milliseconds."""
    times = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        work()
        synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))


@contextmanager
def recorded_launches(events: list):
    """Collect (kernel name, start event, end event) of every launch."""
    plain = cuda_launch.launch

    def launch(kernel, grid, *args, **options):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        plain(kernel, grid, *args, **options)
        end.record()
        events.append((kernel.fn.__name__, start, end))

    cuda_launch.launch = launch
    try:
        yield
    finally:
        cuda_launch.launch = plain


def gpu_ms(work, repeats: int) -> tuple[float, dict[str, float]]:
    """Median GPU time of a call and of each of its kernels, milliseconds, launches held back until all are queued."""
    if not torch.cuda.is_available():
        return float("nan"), {}
    totals, kernels = [], {}
    for _ in range(repeats):
        synchronize()
        torch.cuda._sleep(40_000_000)  # about 20 ms: longer than the host needs to launch everything
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        synchronize()
        totals.append(start.elapsed_time(end))
    events: list = []
    with recorded_launches(events):
        synchronize()
        torch.cuda._sleep(80_000_000)
        work()
        synchronize()
    for name, start, end in events:
        kernels[name] = kernels.get(name, 0.0) + start.elapsed_time(end)
    return float(np.median(totals)), kernels


def counted_bytes(case: Case, queued: list[int]) -> dict[str, float]:
    """Bytes each kernel must move once, with perfect caches: a lower bound."""
    frames, (h, w) = len(case.depth), case.depth.shape[1:]
    vertices = frames * (h + 2 * case.rule.ring) * (w + 2 * case.rule.ring)
    pixels = frames * case.size_hw[0] * case.size_hw[1]
    middle, hard, strips = queued
    return {
        "project_grid": 4.0 * frames * h * w + 17 * vertices,  # depth in; position, 1/z, hidden bits out
        "draw_grid": 17.0 * vertices + 16 * pixels + 8 * (middle + hard),  # all of that in; one key a pixel in and out
        "draw_splats": 1.0 * vertices,
        "vertex_alpha": 2.0 * vertices,
        "draw_middle": 8.0 * middle + 48 * middle,
        "set_up_hard": (8.0 + 72 + 160) * hard + 8 * strips,
        "draw_strips": (8.0 + 80) * strips,
        "resolve_grid": 8.0 * pixels + 16 * vertices + 3 * frames * h * w + 4 * pixels,  # keys, vertices, colour; out
    }


def copy_bandwidth() -> float:
    """GB/s of a device copy, bytes read and written."""
    a = torch.empty(1 << 28, dtype=torch.float32, device="cuda")
    b = torch.empty_like(a)
    ms, _ = gpu_ms(lambda: b.copy_(a), 5)
    return 2 * a.numel() * 4 / ms / 1e6


def digest(render) -> str:
    """Short hash of a result."""
    parts = [x.cpu().numpy().tobytes() for x in (render.mask, render.color) if x is not None]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def queue_lengths(rasterizer: CudaRasterizer, case: Case) -> list[int]:
    """Entries of the middle, hard and strip queues, all frames together."""
    seen: list = []
    fits = cuda_launch.Launcher._fits

    def watch(self, full):
        ok = fits(self, full)
        if ok:
            seen.append(full.counters.tolist())
        return ok

    cuda_launch.Launcher._fits = watch
    try:
        case.render(rasterizer)
    finally:
        cuda_launch.Launcher._fits = fits
    return np.sum(seen, 0).tolist()


def sweep(args, device: str) -> tuple[Tuning, list[str]]:
    """One table: every knob alone around the default, then the best of all together."""
    cases = [Case(args.sizes[0], args.frames, cam, MeshRule(), device, args.noise) for cam in ("90", "180")]
    reference = None
    lines = ["| tuning | " + " | ".join(f"cam {c.cam}, GPU ms" for c in cases) + " | same bytes |", "|---" * 4 + "|"]

    def measure(tuning: Tuning, label: str) -> float:
        nonlocal reference
        rasterizer = CudaRasterizer(tuning=tuning)
        hashes, times, kernels = [], [], {}
        for case in cases:
            hashes.append(digest(case.render(rasterizer)))
            ms, kernels = gpu_ms(lambda c=case: c.render(rasterizer), args.repeats)
            times.append(ms)
        reference = reference or hashes
        line = f"| {label} | " + " | ".join(f"{ms:.3f}" for ms in times) + f" | {hashes == reference} |"
        lines.append(line)
        print(line, {k: round(v, 3) for k, v in kernels.items()}, flush=True)
        return max(times)

    base = args.tuning
    best = {None: measure(base, "default")}
    chosen: dict[str, object] = {}
    for knob, values in SWEEP.items():
        names = knob.split(",")
        results = {}
        for value in values:
            setting = dict(zip(names, value if isinstance(value, tuple) else (value,), strict=True))
            same = all(getattr(base, k) == v for k, v in setting.items())
            results[value] = best[None] if same else measure(replace(base, **setting), str(setting))
        winner = min(results, key=lambda v: results[v])
        if results[winner] < 0.99 * best[None]:
            chosen.update(zip(names, winner if isinstance(winner, tuple) else (winner,), strict=True))
    tuned = replace(base, **chosen)
    if chosen and measure(tuned, f"all of {chosen}") >= best[None]:
        tuned = base
    lines.append(f"\nBest: `{json.dumps(asdict(tuned))}`")
    print(lines[-1])
    return tuned, lines


def measure_size(
    args, size_hw: tuple[int, int], tuning: Tuning, device: str, bandwidth: float
) -> tuple[list[str], dict]:
    """All cams and both rules at one size."""
    lines = [f"\n## {args.frames} frames of {size_hw[1]}x{size_hw[0]}\n"]
    lines += [
        "| rule | cam | GPU ms | call ms | known % | middle, hard, strips queued a frame | peak GiB |",
        "|---" * 7 + "|",
    ]
    results, details, worst = {}, [], 0.0
    for name, rule in (("default", MeshRule()), ("reference", MeshRule.reference())):
        for cam in CAMS:
            case = Case(size_hw, args.frames, cam, rule, device, args.noise)
            rasterizer = CudaRasterizer(tuning=tuning)
            first = digest(case.render(rasterizer))
            assert digest(case.render(rasterizer)) == first, "two runs gave different bytes"
            queued = queue_lengths(rasterizer, case)
            total, kernels = gpu_ms(lambda c=case, r=rasterizer: c.render(r), args.repeats)
            call = call_ms(lambda c=case, r=rasterizer: c.render(r), args.repeats)
            peak = float("nan")
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                known = case.render(rasterizer).mask.float().mean().item()
                peak = torch.cuda.max_memory_allocated() / 2**30
            else:
                known = case.render(rasterizer).mask.float().mean().item()
            a_frame = ", ".join(f"{n / args.frames:.0f}" for n in queued)
            lines.append(f"| {name} | {cam} | {total:.3f} | {call:.3f} | {100 * known:.1f} | {a_frame} | {peak:.2f} |")
            print(lines[-1], flush=True)
            results[f"{name}/{cam}"] = dict(gpu_ms=total, call_ms=call, peak_gib=peak, kernels=kernels, queued=queued)
            if not total <= worst:  # also true of the first and of NaN
                worst = total
                details = kernel_table(case, kernels, queued, bandwidth)
    lines += ["\nKernels of the slowest row:\n", *details]
    print("\n".join(details), flush=True)
    ours = max(r["gpu_ms"] for r in results.values())
    peak = max(r["peak_gib"] for r in results.values())
    if size_hw in BARS_MS and args.frames == 49:
        lines.append(
            f"\nWorst {ours:.2f} ms (bar {BARS_MS[size_hw]:g}; {NVDIFFRAST_MS[size_hw] / ours:.1f} times faster than the "
            f"release with nvdiffrast, {NVDIFFRAST_MS[size_hw]:.0f} ms); peak {peak:.2f} GiB (bar {BARS_GIB[size_hw]:g})."
        )
        print(lines[-1], flush=True)
    return lines, results


def kernel_table(case: Case, kernels: dict[str, float], queued: list[int], bandwidth: float) -> list[str]:
    """Time, least bytes, and the bandwidth that these bytes amount to."""
    moved = counted_bytes(case, queued)
    lines = ["| kernel | ms | MB at least | GB/s | % of a copy |", "|---" * 5 + "|"]
    for name, ms in kernels.items():
        rate = moved.get(name, 0.0) / ms / 1e6
        lines.append(
            f"| {name} | {ms:.3f} | {moved.get(name, 0.0) / 1e6:.1f} | {rate:.0f} | {100 * rate / bandwidth:.0f} |"
        )
    return lines


def measure_masks(args, size_hw: tuple[int, int], tuning: Tuning, device: str) -> list[str]:
    """Frames a second of visibility masks."""
    lines = [
        "\n## Simulated rendering masks (visibility only, no erosion)\n",
        "| rule | cam | GPU frames/s | call frames/s |",
    ]
    lines.append("|---" * 4 + "|")
    for name, rule in (("default", MeshRule()), ("reference", MeshRule.reference())):
        for cam in CAMS:
            case = Case(size_hw, args.frames, cam, rule, device, args.noise)
            rasterizer = CudaRasterizer(tuning=tuning)
            case.masks(rasterizer)
            total, _ = gpu_ms(lambda c=case, r=rasterizer: c.masks(r), args.repeats)
            call = call_ms(lambda c=case, r=rasterizer: c.masks(r), args.repeats)
            lines.append(f"| {name} | {cam} | {1e3 * args.frames / total:.0f} | {1e3 * args.frames / call:.0f} |")
            print(lines[-1], flush=True)
    lines.append(f"\nBar: {BAR_MASKS_FPS:.0f} frames a second.")
    return lines


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for render_gpu.md and render_gpu.json")
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--size", action="append", help="HxW; default 512x512 and 1440x2560")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--noise", type=float, default=0.002, help="relative noise of the depth")
    parser.add_argument("--sweep", action="store_true", help="tune first, then measure with the best")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="a field of Tuning")
    args = parser.parse_args()
    args.sizes = [tuple(int(x) for x in s.split("x")) for s in args.size or ("512x512", "1440x2560")]
    args.tuning = Tuning(**{k: int(v) for k, v in (item.split("=") for item in args.set)})
    return args


def main() -> None:
    args = parse()
    device = "cpu" if interpreted() else "cuda"
    machine = platform.processor() or "CPU"
    bandwidth = float("nan")
    if device == "cuda":
        machine = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
        bandwidth = copy_bandwidth()
    lines = ["# GPU rasteriser\n", f"{machine}. Device copy: {bandwidth:.0f} GB/s. Medians of {args.repeats} runs."]
    print(lines[-1], flush=True)
    tuning = args.tuning
    if args.sweep:
        tuning, table = sweep(args, device)
        lines += ["\n## Tuning\n", *table]
    results = {}
    for size_hw in args.sizes:
        table, results["x".join(map(str, size_hw))] = measure_size(args, size_hw, tuning, device, bandwidth)
        lines += table
    lines += measure_masks(args, args.sizes[0], tuning, device)
    lines.append(f"\nTuning: `{json.dumps(asdict(tuning))}`")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "render_gpu.md").write_text("\n".join(lines) + "\n")
        (args.out / "render_gpu.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1))


if __name__ == "__main__":
    main()
