"""Checkpoints: whole folders or none, a keep rule, exact resumption, and weights in small shards for another machine."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.errors import InputError, ResourceError, WeightsError
from ex4d.system.atomic import ensure_dir

if TYPE_CHECKING:
    from torch import Tensor

#: Largest file of a portable copy, bytes: small enough for a plain git object or a slow link.
PORTABLE_SHARD_BYTES = 15_000_000


@dataclass(frozen=True)
class Checkpoint:
    """All that a step leaves behind. Everything random is derived from (seed, step), so there is no generator to keep.

    Attributes:
        step: Steps done.
        weights: Trained tensors by name, float32.
        ema: Averaged tensors by the same names; empty when none are kept.
        optimizer: AdamW's tensors by name: "NAME|exp_avg", "NAME|exp_avg_sq", "NAME|step".
        record: Plain values: identity of the configuration, data fingerprint, skipped steps, restarts, versions.
    """

    step: int
    weights: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    record: dict[str, Any]


def folder_of(run: Path, step: int) -> Path:
    """Where a step's checkpoint lies."""
    return run / "checkpoints" / f"step_{step:08d}"


def save_checkpoint(run: Path, checkpoint: Checkpoint, *, keep_last: int = 2, keep_every: int = 0) -> Path:
    """Write a checkpoint beside and rename it, then drop the older ones that the keep rule lets go.

    A full disk is a ResourceError, and the checkpoints that were there stay.
    """
    from safetensors.torch import save_file

    final = folder_of(run, checkpoint.step)
    ensure_dir(final.parent)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        for name in ("weights", "ema", "optimizer"):
            tensors = getattr(checkpoint, name)
            if tensors:
                save_file(
                    {k: t.detach().cpu().contiguous() for k, t in tensors.items()}, temporary / f"{name}.safetensors"
                )
        record = {"step": checkpoint.step, **checkpoint.record}
        (temporary / "state.json").write_text(json.dumps(record, indent=2, sort_keys=True), encoding="utf-8")
        _replace_folder(temporary, final)
    except Exception as error:  # safetensors raises its own kind on a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise ResourceError(
                f"cannot write the checkpoint {final} ({error})",
                "free space; the checkpoints before it are kept",
                "free some space, or loop.keep_last: 1, and run the same command again",
            ) from error
        raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for step, path in list_checkpoints(run)[:-keep_last]:
        if not (keep_every and step % keep_every == 0):
            shutil.rmtree(path, ignore_errors=True)
    return final


def _replace_folder(temporary: Path, final: Path) -> None:
    """Rename a folder over another: the old one steps aside first, and comes back if the second rename fails."""
    if not final.exists():
        os.replace(temporary, final)
        return
    aside = final.with_name(f".{final.name}.{os.getpid()}.old")
    os.replace(final, aside)
    try:
        os.replace(temporary, final)
    except OSError:
        os.replace(aside, final)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def list_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every whole checkpoint, oldest first."""
    found = []
    for path in (run / "checkpoints").glob("step_*"):
        if (match := re.fullmatch(r"step_(\d+)", path.name)) and (path / "state.json").is_file():
            found.append((int(match[1]), path))
    return sorted(found)


def load_checkpoint(run: Path, identity: Mapping[str, Any], fingerprint: str) -> Checkpoint | None:
    """The newest checkpoint of a run, or None; refuses one of another configuration or of other data.

    Args:
        identity: `config.identity_of` of this run.
        fingerprint: `shards.fingerprint` of its training data.
    """
    found = list_checkpoints(run)
    if not found:
        return None
    step, path = found[-1]
    record = _record(path)
    check_identity(record.get("identity", {}), identity, path)
    if record.get("fingerprint") != fingerprint:
        raise InputError(
            f"the data changed since {path.name} was written (fingerprint {record.get('fingerprint')}, now {fingerprint})",
            "the same shards for an exact resume",
            f"put them back, or --restart-from {path} --out NEW to train on from these weights",
        )
    parts = {name: _tensors(path / f"{name}.safetensors", name == "ema") for name in ("weights", "ema", "optimizer")}
    return Checkpoint(step, parts["weights"], parts["ema"], parts["optimizer"], record)


def check_identity(theirs: Mapping[str, Any], ours: Mapping[str, Any], path: Path, at: str = "") -> None:
    """InputError naming the first key that differs between a checkpoint's configuration and this one."""
    for key in sorted(set(theirs) | set(ours)):
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            check_identity(a, b, path, f"{at}{key}.")
        elif a != b:
            raise InputError(
                f"{path} was trained with {at}{key} = {a!r}, the configuration says {b!r}",
                "the same configuration for an exact resume",
                f"set it back, or --restart-from {path} --out NEW",
            )


def _record(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path / 'state.json'} cannot be read ({error})",
            "a whole checkpoint",
            f"delete {path} to go on from the one before",
        ) from error


def _tensors(path: Path, optional: bool = False) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if optional and not path.exists():
        return {}
    try:
        return load_file(path)
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read ({error})",
            "a whole checkpoint",
            f"delete {path.parent} to go on from the one before",
        ) from error


# Portable copies: weights and averaged weights in small shards, without the optimiser


def save_portable(folder: Path, checkpoint: Checkpoint, *, shard_bytes: int = PORTABLE_SHARD_BYTES) -> list[Path]:
    """Weights and averaged weights for another machine: safetensors of at most `shard_bytes`, and index.json, written last.

    A tensor larger than a shard is cut along its flattened length. Files of an older copy are removed after the new index
    stands.
    """
    from safetensors.torch import save_file

    ensure_dir(folder)
    pieces: list[dict[str, Tensor]] = [{}]
    shapes: dict[str, list[int]] = {}
    used, limit = 0, shard_bytes - 100_000  # the header of a shard: names and offsets
    for kind in ("weights", "ema"):
        for name, tensor in getattr(checkpoint, kind).items():
            flat = tensor.detach().cpu().contiguous().flatten()
            shapes[f"{kind}/{name}"] = list(tensor.shape)
            per_piece = max(1, limit // flat.element_size())
            for part, begin in enumerate(range(0, max(1, flat.numel()), per_piece)):
                piece = flat[begin : begin + per_piece].clone()
                if used + piece.nbytes > limit and pieces[-1]:
                    pieces.append({})
                    used = 0
                pieces[-1][f"{kind}/{name}#{part}"] = piece
                used += piece.nbytes + 200
    names = [f"part-{checkpoint.step:08d}-{i:03d}.safetensors" for i in range(len(pieces))]
    for name, piece in zip(names, pieces, strict=True):
        temporary = folder / f".{name}.tmp"
        save_file(piece, temporary)
        os.replace(temporary, folder / name)
    index = {"step": checkpoint.step, "shapes": shapes, "files": names, "record": checkpoint.record}
    temporary = folder / ".index.json.tmp"
    temporary.write_text(json.dumps(index, indent=1, sort_keys=True), encoding="utf-8")
    os.replace(temporary, folder / "index.json")
    for old in folder.glob("part-*.safetensors"):
        if old.name not in names:
            old.unlink()
    return [folder / name for name in names]


def load_weights_only(path: Path) -> Checkpoint:
    """Weights and averaged weights from a portable folder or a checkpoint folder; the optimiser stays behind."""
    import torch

    path = Path(path)
    if (path / "state.json").is_file():
        record = _record(path)
        return Checkpoint(
            int(record["step"]),
            _tensors(path / "weights.safetensors"),
            _tensors(path / "ema.safetensors", True),
            {},
            record,
        )
    index_path = path / "index.json"
    if not index_path.is_file():
        raise InputError(
            f"no weights in {path}",
            "a checkpoint folder, or a portable one with index.json",
            "--restart-from RUN/portable",
        )
    index = json.loads(index_path.read_text(encoding="utf-8"))
    pieces: dict[str, list[tuple[int, Tensor]]] = {}
    for name in index["files"]:
        for key, tensor in _tensors(path / name).items():
            whole, _, part = key.rpartition("#")
            pieces.setdefault(whole, []).append((int(part), tensor))
    out: dict[str, dict[str, Tensor]] = {"weights": {}, "ema": {}}
    for whole, shape in index["shapes"].items():
        parts = [t for _, t in sorted(pieces.get(whole, []), key=lambda item: item[0])]
        flat = torch.cat(parts) if parts else torch.empty(0)
        kind, _, name = whole.partition("/")
        if flat.numel() != torch.Size(shape).numel():
            raise WeightsError(
                f"{path}: {whole} is incomplete", f"all {len(index['files'])} parts", "copy the folder again"
            )
        out[kind][name] = flat.reshape(shape)
    return Checkpoint(int(index["step"]), out["weights"], out["ema"], {}, dict(index["record"]))
