"""Publish trained weights as the embedded model: checked, narrowed to bfloat16, hashed, with their model card.

    python recipes/nano/publish.py --autoencoder runs/ae/autoencoder --transformer runs/base/transformer \\
        --adapter runs/adapter/adapter.safetensors --depth runs/depth/depth --numbers recipes/nano/numbers.json

Any of the parts may be left out: what was published before stays. Nothing is changed unless everything fits together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from card import model_card

from ex4d.errors import Ex4dError, WeightsError
from ex4d.models.embedded.load import ADAPTER, CARD, CONFIG, FOLDER, HASHES, PARTS, WEIGHTS, load_model

#: All published files together, bytes.
LIMIT_BYTES = 60_000_000
NUMBERS = "numbers.json"


def publish(out: Path, *, adapter: Path | None = None, numbers: Path | None = None, **models: Path | None) -> list[str]:
    """Put trained parts into `out`; all or nothing.

    Args:
        out: The embedded folder.
        adapter: The trainer's adapter.safetensors.
        numbers: Measured quality, see `card.model_card`.
        models: autoencoder, transformer, depth: folders with config.json and diffusion_pytorch_model.safetensors.

    Returns:
        One line a published file.

    Raises:
        WeightsError: Missing files, keys or shapes that do not load, parts that do not fit each other, or too many bytes.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".publish-") as name:
        staged = Path(name) / "nano"
        shutil.copytree(out, staged) if out.is_dir() else staged.mkdir()
        for part, source in models.items():
            if source is not None:
                _stage_model(part, source, staged)
        if adapter is not None:
            _stage_adapter(adapter, staged)
        if numbers is not None:
            shutil.copyfile(numbers, staged / NUMBERS)
        files = sorted(p for p in staged.rglob("*") if p.suffix in (".safetensors", ".json") and p.name != HASHES)
        files = [p for p in files if p.name != NUMBERS]
        digests = {p.relative_to(staged).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
        (staged / HASHES).write_bytes(_json(digests))
        sizes = _check(staged)
        measured = json.loads((staged / NUMBERS).read_text("utf-8")) if (staged / NUMBERS).is_file() else {}
        (staged / CARD).write_bytes(model_card(measured, sizes).encode())
        total = sum(p.stat().st_size for p in staged.rglob("*") if p.is_file())
        if total > LIMIT_BYTES:
            raise WeightsError(f"{total / 1e6:.1f} MB in all", f"at most {LIMIT_BYTES / 1e6:.0f} MB", "a smaller part")
        for path in sorted((p for p in staged.rglob("*") if p.is_file()), key=lambda p: p.name == HASHES):
            target = out / path.relative_to(staged)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.chmod(0o644)  # safetensors writes for its owner alone; a wheel keeps that
            path.replace(target)
        lines = [f"{name} {digest[:12]} {(out / name).stat().st_size / 1e6:.2f} MB" for name, digest in digests.items()]
        return [*lines, f"{total / 1e6:.2f} MB in all, of {LIMIT_BYTES / 1e6:.0f}"]


def model_class(part: str) -> Any:
    """The class of a published folder."""
    if part == "autoencoder":
        from ex4d.models.nano.autoencoder import VideoAutoencoder

        return VideoAutoencoder
    if part == "depth":
        from ex4d.models.depth.nano import ClipDepthNetwork

        return ClipDepthNetwork
    from ex4d.models.wan.transformer import Ex4dTransformer

    return Ex4dTransformer


def _stage_model(part: str, source: Path, staged: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        config = json.loads((source / CONFIG).read_text("utf-8"))
        weights = load_file(source / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{source}: {reason}", f"{CONFIG} and {WEIGHTS}", f"--{part} FOLDER") from error
    (staged / part).mkdir(exist_ok=True)
    # Paths of the training machine are no part of a model.
    kept = {k: v for k, v in config.items() if not k.startswith("_") or k in ("_class_name", "_diffusers_version")}
    (staged / part / CONFIG).write_bytes(_json(kept))
    narrow = {k: v.to(torch.bfloat16).contiguous() if v.is_floating_point() else v for k, v in weights.items()}
    save_file(narrow, staged / part / WEIGHTS, metadata={"format": "pt"})
    _ordered(staged / part / WEIGHTS)


def _stage_adapter(source: Path, staged: Path) -> None:
    from dataclasses import asdict, replace

    import torch

    from ex4d.models.wan.files.adapter import load_adapter, save_adapter

    adapter = load_adapter(source)
    adapter = replace(adapter, config=replace(adapter.config, base="nano/transformer"))
    target = staged / ADAPTER
    target.parent.mkdir(exist_ok=True)
    save_adapter(target, adapter, torch.bfloat16)
    _ordered(target)
    target.with_name(CONFIG).write_bytes(_json(asdict(adapter.config)))


def _ordered(path: Path) -> None:
    """The same tensors, the same bytes: safetensors writes its metadata in any order."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    metadata = dict(sorted(header.pop("__metadata__", {}).items()))
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def _check(staged: Path) -> dict[str, tuple[int, int]]:
    """Load every part as the package will; part -> (parameters, bytes)."""
    from ex4d.models.wan.files.adapter import check_adapter_fits, load_adapter

    loaded: dict[str, Any] = {}
    for part in ("autoencoder", "transformer", "depth"):
        if (staged / part / WEIGHTS).is_file():
            loaded[part] = load_model(model_class(part), part, folder=staged)
    sizes = {
        part: (sum(p.numel() for p in model.parameters()), (staged / part / WEIGHTS).stat().st_size)
        for part, model in loaded.items()
    }
    if (staged / ADAPTER).is_file():
        adapter = load_adapter(staged / ADAPTER)
        count = sum(t.numel() for t in (*adapter.lora.values(), *adapter.geometry.values()))
        sizes["adapter"] = (count, (staged / ADAPTER).stat().st_size)
        if "transformer" in loaded:
            check_adapter_fits(adapter, loaded["transformer"], "the adapter")
        adapter.geometry_encoder()
    if {"autoencoder", "transformer"} <= loaded.keys():
        z, channels = loaded["autoencoder"].config["z_dim"], loaded["transformer"].config["out_channels"]
        if z != channels:
            raise WeightsError(f"an autoencoder of {z} channels and a denoiser of {channels}", "the same", "")
    return sizes


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoencoder", type=Path)
    parser.add_argument("--transformer", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--depth", type=Path)
    parser.add_argument("--numbers", type=Path, help="JSON with what was measured, by part; see card.py")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args(argv)
    try:
        print("\n".join(publish(**vars(args))))
    except Ex4dError as error:
        print(f"publish: {error}", file=sys.stderr)
        return error.exit_code
    missing = [name for name in PARTS if not (args.out / name).is_file()]
    print(
        f"not there yet: {', '.join(missing)}"
        if missing
        else "the embedded model is complete: --preset nano is the default"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
