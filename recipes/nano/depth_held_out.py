"""Held-out scores while the depth network trains, and the weights that scored best: a late failure costs nothing."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import torch
from depth_data import FARTHEST, NEAREST, read_scene
from depth_loss import spread
from torch import Tensor, nn

#: A guess that varies less than this share of the truth has collapsed.
FLAT = 0.1


def errors(disparity: Tensor, depth: Tensor) -> dict[str, float]:
    """AbsRel and delta1 of one clip after one scale and shift of depth, least squares of the relative error, on the device.

    For the training's own report; finished weights are scored by `benchmarks/nano_depth.py`, whose fit is robust and in 1/z.

    Args:
        disparity: Guess > 0 [N].
        depth: Truth, metres [N].
    """
    z, d = depth.double(), disparity.double()
    basis = torch.stack([1 / (d * z), 1 / z], 1)
    size = basis.norm(dim=0)
    basis = basis / size
    # not `solve`: a guess that is the same everywhere has the shift's column twice
    fit = torch.linalg.pinv(basis.T @ basis, hermitian=True) @ basis.sum(0) / size
    fitted = (fit[0] / d + fit[1]).clamp(float(z.min()) / 4, float(z.max()) * 4)
    ratio = torch.maximum(fitted / z, z / fitted)
    return {"abs_rel": float(((fitted - z).abs() / z).mean()), "delta1": float((ratio < 1.25).double().mean())}


@torch.no_grad()
def scores(model: nn.Module, clips: list[tuple[Tensor, Tensor]]) -> list[dict[str, float]]:
    """AbsRel and delta1 after one scale and shift of depth, and `spread`, of each clip (uint8 [T, 3, H, W], depth [T, H, W])."""
    out = []
    for color, depth in clips:
        video = color.transpose(0, 1)[None].float() / 127.5 - 1
        with torch.autocast(video.device.type, torch.bfloat16, enabled=video.is_cuda):
            guess = model(video)[0]
        known = depth > 0
        guess, z = guess[known], depth[known].float().clamp(NEAREST, FARTHEST)
        out.append(errors(guess, z) | {"spread": spread(guess, z)})
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
        record |= mean_of(scores(model, self.rooms), "rooms")
        if min(v for k, v in record.items() if k.endswith("s_spread")) < FLAT:
            record["flat"] = True
        return record


class Best:
    """The weights to export: those of the report with the least AbsRel of scenes and rooms together, over the same clips."""

    def __init__(self, folder: Path, state: dict | None = None) -> None:
        self.folder = folder
        self.state = state or {"clips": -1, "score": float("inf"), "step": -1}

    def offer(self, model: nn.Module, record: dict, step: int) -> bool:
        """Export the model when its record is the best, or the first over more clips; whether it did."""
        parts = [record[k] for k in ("scenes_abs_rel", "rooms_abs_rel") if k in record]
        score, clips = float(np.sum(parts)), record.get("held_out_scenes", 0)
        if not np.isfinite(score) or (clips <= self.state["clips"] and score >= self.state["score"]):
            return False
        self.state = {"clips": clips, "score": round(score, 4), "step": step}
        export(self.folder, model)
        return True


def export(folder: Path, model: nn.Module) -> None:
    """Weights in bf16, written beside and renamed."""
    small = copy.deepcopy(model)
    for p in small.parameters():
        p.data = p.data.to(torch.bfloat16)
    beside = folder.with_name(folder.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    small.save_pretrained(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
