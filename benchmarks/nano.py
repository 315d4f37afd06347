"""How good is the embedded model in the holes of a render? Against black, Telea, holding the last seen pixel, and `fill`.

    python benchmarks/nano.py --cache CACHE --out benchmarks/results/nano.md                  (the embedded weights, test seeds)
    python benchmarks/nano.py --cache CACHE --seeds 100500:100506 --weights RUN1 RUN2         (candidates, before publishing)
    python benchmarks/nano.py --cache CACHE --clips CLIPS ...                                 (held-out real clips as well)
    python benchmarks/nano.py --cache CACHE --ablation ...                                    (adapter, masks, three noise seeds)

Rendered scenes never trained on, exact depth, an orbit of 30, 60 and 90 degrees (odd seeds turn left), truth from the same
cameras. Cases are staged once into CACHE and rivals are scored once; later calls only run the model. Real clips: windows of the
held-out ones under the masks of those renders. Measures: `ex4d/evaluate/metrics/holes.py`, in all holes and in those without what the
fill copied from other times of the clip. "ceiling" is the truth through the autoencoder. A folder for --weights is laid out
like `src/ex4d/models/embedded` (autoencoder/, transformer/, adapter.safetensors or adapter/adapter.safetensors); no hash is checked.

Methods: black, telea, hold, fill, ceiling; draft, default, best; default@4 (4 steps); base, base-best (no adapter).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from nano_cases import ROOT, Case, Plan, load, single_threaded, stage
from nano_methods import (
    RIVALS,
    WEIGHTS_FILE,
    Model,
    adapter_file,
    file_hash,
    kept_file,
    load_strict,
    parts_of,
    scored,
    scored_once,
    through_autoencoder,
)
from nano_report import REGIONS, ablation_table, bars, models, names, report

from ex4d.errors import Ex4dError, InputError
from ex4d.scenes.scene import FIRST_TEST_SEED
from ex4d.system.atomic import ensure_dir, written_whole

MODELS = ("draft", "default", "best")
NOISE_SEEDS = (0, 1, 2)


class Scoring:
    """Completed clips go to scoring processes (none: scored here); rows come back in the order of submission."""

    def __init__(self, pool: ProcessPoolExecutor | None, every: int) -> None:
        self.pool, self.every = pool, every
        self.waiting: list[tuple[Any, dict[str, Any]]] = []

    def rival(self, path: Path, method: str) -> None:
        self._submit({}, scored_once, path, method, self.every)

    def ceiling(self, path: Path, label: str, name: str, frames: Callable[[], np.ndarray]) -> None:
        ready = kept_file(path, name, self.every).is_file()
        self._submit({"method": label}, scored_once, path, name, self.every, None if ready else frames())

    def frames(self, path: Path, method: str, frames: np.ndarray, noise: int = 0) -> None:
        self._submit({"method": method, "noise": noise}, scored, path, method, self.every, frames)

    def rows(self) -> list[dict[str, Any]]:
        return [{**(row if self.pool is None else row.result()), **more} for row, more in self.waiting]

    def _submit(self, more: dict[str, Any], work: Callable[..., dict[str, Any]], *args: Any) -> None:
        self.waiting.append((work(*args) if self.pool is None else self.pool.submit(work, *args), more))


@contextmanager
def scoring_pool(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes of one thread each; None for no workers."""
    if workers == 0:
        yield None
        return
    with single_threaded(), ProcessPoolExecutor(workers, get_context("spawn"), initializer=one_thread) as pool:
        yield pool


def one_thread() -> None:
    """In a scoring process."""
    import cv2

    cv2.setNumThreads(1)


def run_ceiling(scoring: Scoring, paths: list[Path], folders: dict[str, Path], device: str) -> None:
    from ex4d.models.nano.autoencoder import VideoAutoencoder

    for label, folder in folders.items():
        vae = load_strict(VideoAutoencoder, folder).to(device)
        name = f"ceiling-{file_hash(folder / WEIGHTS_FILE)}"
        for path in paths:
            made = partial(_ceiling, vae, path, device)
            scoring.ceiling(path, f"ceiling{label}", name, made)


def _ceiling(vae: Any, path: Path, device: str) -> np.ndarray:
    return through_autoencoder(vae, load(path).truth, device)


def run_models(
    scoring: Scoring, paths: list[Path], chosen: list[Model], weights: dict[str, Path], args: argparse.Namespace
) -> None:
    for label, folder in weights.items():
        for adapter in sorted({model.adapter for model in chosen}, reverse=True):
            parts = parts_of(folder, adapter, args.device)
            for model in (m for m in chosen if m.adapter == adapter):
                begin = time.time()
                for path in paths:
                    case = load(path)
                    for noise in range(args.noises):
                        frames = model.run(parts, case, noise)
                        scoring.frames(path, f"{model.name}{label}", frames, noise)
                    if args.pictures:
                        picture(args.pictures, case, f"{model.name}{label}", frames)
                print(f"{model.name}{label}: {(time.time() - begin) / len(paths):.1f} s a clip", flush=True)


def run_ablation(
    scoring: Scoring, plan: Plan, paths: list[Path], folder: Path, quality: str, args: argparse.Namespace
) -> None:
    """Adapter or none, watertight or plain masks, three noise seeds; judged in the watertight holes."""
    masks = {"watertight": "scene", "plain": "plain"}
    for name, adapter in (("with adapter", True), ("base alone", False)):
        parts = parts_of(folder, adapter, args.device)
        for path in paths:
            for mask, kind in masks.items():
                case = load(path.with_name(path.name.replace("scene", kind)))
                for noise in NOISE_SEEDS:
                    frames = Model(quality, quality, None, adapter).run(parts, case, noise)
                    scoring.frames(path, f"{name} / {mask}", frames, noise)
    for path in paths:
        for mask, kind in masks.items():
            scoring.frames(path, f"fill / {mask}", load(path.with_name(path.name.replace("scene", kind))).filled)


def picture(folder: Path, case: Case, method: str, frames: np.ndarray) -> None:
    """Truth, render, fill and result at the middle and the end, as a PNG."""
    import cv2

    rows = [
        np.concatenate([x[t] for x in (case.truth, case.color, case.filled, frames)], 1) for t in (len(frames) // 2, -1)
    ]
    ensure_dir(folder)
    cv2.imwrite(str(folder / f"{case.name}_{method.replace(' ', '_')}.png"), np.concatenate(rows)[:, :, ::-1])


def folders_of(args: argparse.Namespace) -> dict[str, Path]:
    """Label -> folder of weights: given, else the embedded ones where the package has them."""
    from ex4d.models.embedded import load as embedded

    if args.weights:
        missing = [str(f) for f in args.weights if not f.is_dir()]
        if missing:
            raise InputError(f"no folder {missing[0]}", "a folder laid out like models/embedded", "--weights FOLDER")
        return {f" ({f.name})" if len(args.weights) > 1 else "": f for f in args.weights}
    return {"": embedded.FOLDER} if embedded.available() else {}


def methods_of(args: argparse.Namespace, weights: dict[str, Path]) -> list[str]:
    if args.methods:
        return args.methods.split(",")
    ready = all((f / "transformer").is_dir() and adapter_file(f).is_file() for f in weights.values())
    if not (weights and ready):
        print("no trained weights: rivals and ceiling only", file=sys.stderr)
    return [*RIVALS, "ceiling", *(MODELS if weights and ready else ())]


def plain_numbers(value: Any) -> Any:
    """Without NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {k: plain_numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain_numbers(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(out: Path, text: str, data: dict[str, Any]) -> None:
    ensure_dir(out.parent)
    for path, content in ((out, text), (out.with_suffix(".json"), json.dumps(plain_numbers(data), indent=1) + "\n")):
        with written_whole(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


def run(args: argparse.Namespace) -> str:
    begin = time.time()
    weights = folders_of(args)
    first, last = (int(x) for x in args.seeds.split(":"))
    plan = Plan(args.cache, tuple(int(a) for a in args.angles.split(",")), args.px, args.frames, args.ablation)
    scenes, real = stage(plan, range(first, last), args.clips, args.workers)
    methods = [] if args.ablation else methods_of(args, weights)
    chosen = [Model.parse(m) for m in methods if m not in (*RIVALS, "ceiling")]
    if (chosen or args.ablation) and not weights:
        raise InputError("no weights", "the package with its weights, or a folder", "--weights FOLDER")
    if args.device == "cpu" and (chosen or args.ablation or "ceiling" in methods):
        import torch

        torch.set_num_threads(args.threads)
    with scoring_pool(args.workers) as pool:
        scoring = Scoring(pool, args.every)
        paths = scenes + real
        if args.ablation:
            run_ablation(scoring, plan, scenes, next(iter(weights.values())), args.quality, args)
        for method in methods:
            if method in RIVALS:
                for path in paths:
                    scoring.rival(path, method)
        if "ceiling" in methods:
            found = {k: f / "autoencoder" for k, f in weights.items()} or {
                "": ROOT / "recipes" / "nano" / "autoencoder"
            }
            run_ceiling(scoring, paths, found, args.device)
        run_models(scoring, paths, chosen, weights, args)
        rows = scoring.rows()
    every = "every frame" if args.every == 1 else f"one frame in {args.every}"
    about = (
        f"Seeds {args.seeds}, {args.frames} frames of {args.px}x{args.px}; MS-SSIM and GMSD on {every}. "
        f"{args.machine}".strip()
    )
    text = f"{about}\n\n{ablation_table(rows)}\n" if args.ablation else report(rows, about)
    if args.out:
        found_bars = {} if args.ablation or not models(rows) else {region: bars(rows, region) for region in REGIONS}
        write(args.out, text, {"about": about, "methods": names(rows, "method"), "bars": found_bars, "rows": rows})
    print(text)
    print(f"{time.time() - begin:.0f} s", file=sys.stderr)
    return text


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cache", type=Path, required=True, help="where cases are staged, about 45 MB each")
    p.add_argument(
        "--seeds", default=f"{FIRST_TEST_SEED}:{FIRST_TEST_SEED + 12}", help="FIRST:LAST, the last one not included"
    )
    p.add_argument("--angles", default="30,60,90", help="degrees of yaw")
    p.add_argument("--clips", type=Path, help="folder of real clips; only the held-out ones are used")
    p.add_argument(
        "--weights", type=Path, nargs="+", default=[], help="folders of candidates; default: the embedded ones"
    )
    p.add_argument("--methods", help="comma-separated; default: all that there are weights for")
    p.add_argument("--every", type=int, default=1, help="MS-SSIM and GMSD on every N-th frame")
    p.add_argument("--noises", type=int, default=1, help="noise seeds of the model")
    p.add_argument("--ablation", action="store_true", help="with and without adapter, watertight and plain masks")
    p.add_argument("--quality", default="default", choices=MODELS, help="of the ablation")
    p.add_argument("--px", type=int, default=256)
    p.add_argument("--frames", type=int, default=49)
    p.add_argument("--device", default="cpu")
    p.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that stage and score; 0: none")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the model on a CPU")
    p.add_argument("--pictures", type=Path, help="folder for a picture of every result of a model")
    p.add_argument("--machine", default="", help="words for the report")
    p.add_argument("--out", type=Path, help="markdown; JSON with every row goes beside it")
    return p


def main(argv: list[str] | None = None) -> int:
    try:
        run(parser().parse_args(argv))
    except Ex4dError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
