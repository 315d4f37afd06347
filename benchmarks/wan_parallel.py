"""Speed-up of guided steps over several GPUs: `torchrun --nproc-per-node N benchmarks/wan_parallel.py --out DIR` (N = 2 or 4).

Measures one GPU, then Ulysses over all, then guidance split (times Ulysses over the halves), in one run; checks that the result
equals one GPU's within bfloat16. `--tiny` runs on CPUs with gloo (guidance split only; Ulysses needs GPUs).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parent))
import wan_common as common
from wan_common import Scene

BARS = {2: 1.8, 4: 3.2}
#: Steps compared between one GPU and many; each has two passes.
STEPS = 2


def build(scene: Scene, quantise: str | None, eager: bool):
    from dataclasses import replace

    from ex4d.models.wan.fast.streaming import compile_blocks
    from ex4d.models.wan.files.loading import LoadPolicy, build_transformer

    policy = LoadPolicy(scene.device, scene.device, torch.bfloat16, quantise)
    policy = replace(policy, lora=common.random_adapter(scene).update())
    model = build_transformer(scene.config, common.random_weights(scene), policy)
    if not eager:
        compile_blocks(model, fullgraph=False, **({"backend": "eager"} if scene.tiny else {}))
    return model


def run(model, scene: Scene, group) -> tuple[float, torch.Tensor]:
    """(milliseconds a guided step, latents after STEPS)."""
    from ex4d.generators.diffusion.denoise import DenoiseInputs, DenoiseSettings, denoise
    from ex4d.models.wan.text import TextEmbeddings

    values = scene.inputs()
    noise, y = values["hidden_states"][:, :16].contiguous(), values["hidden_states"][:, 16:].contiguous()
    text = TextEmbeddings(values["encoder_hidden_states"], -values["encoder_hidden_states"])
    inputs = DenoiseInputs(noise, y, text, values["encoder_hidden_states_image"], values["geometry"])
    settings = DenoiseSettings(steps=STEPS)
    latents = denoise(model, inputs, settings, group=group)
    dist.barrier()
    ms = common.milliseconds(lambda: denoise(model, inputs, settings, group=group), 2, scene.device)
    return ms / STEPS, latents


def variant(name: str, scene: Scene, quantise: str | None, eager: bool, layout, truth, base_ms, record) -> None:
    from ex4d.models.wan.fast.parallel import parallelise

    model = build(scene, quantise, eager)
    try:
        group = parallelise(model, layout, scene.device.type)
        ms, latents = run(model, scene, group)
        error = common.relative_error(latents, truth)
        record[name] = {"ms_a_step": ms, "speedup": base_ms / ms, "difference": error}
    except Exception as problem:  # one failing layout must not lose the other
        record[name] = {"failed": f"{type(problem).__name__}: {str(problem)[:300]}"}
    if dist.get_rank() == 0:
        print(name, record[name], flush=True)
    del model
    common.collect()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--precision", choices=("bf16", "fp8"), default="bf16")
    parser.add_argument("--eager", action="store_true", help="do not compile the blocks")
    args = parser.parse_args()
    from ex4d.models.wan.fast.parallel import ParallelLayout, init_distributed

    rank, world = init_distributed()
    if world == 1:
        print("run under torchrun with 2 or 4 processes", file=sys.stderr)
        return 2
    scene = Scene(args.tiny)
    if scene.device.type == "cuda":
        scene.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    quantise = None if args.precision == "bf16" else "fp8"
    heads = scene.config["num_attention_heads"]
    record: dict[str, Any] = {"gpus": world, "precision": args.precision, "machine": common.machine()}

    model = build(scene, quantise, args.eager)
    base_ms, truth = run(model, scene, None)
    record["one"] = {"ms_a_step": base_ms}
    del model
    common.collect()

    best = ParallelLayout.choose(world, heads)
    variant(
        f"guidance {best.guidance} x ulysses {best.tokens}", scene, quantise, args.eager, best, truth, base_ms, record
    )
    if scene.device.type == "cuda":
        whole = ParallelLayout.choose(world, heads, split_guidance=False)
        variant(f"ulysses {whole.tokens}", scene, quantise, args.eager, whole, truth, base_ms, record)
    if rank == 0:
        speedups = [v["speedup"] for v in record.values() if isinstance(v, dict) and "speedup" in v]
        record["best_speedup"], record["bar"] = max(speedups, default=0.0), BARS.get(world)
        common.save_json(args.out / f"wan_parallel_{world}_{args.precision}.json", record)
        print(json.dumps(record, indent=1))
    dist.barrier()
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
