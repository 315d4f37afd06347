"""Where the files of the 14B model lie on this machine: the base, the adapter, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ex4d.errors import WeightsError
from ex4d.generators.wan14b.config import Wan14bOptions
from ex4d.models.hub.catalogue import WAN14B
from ex4d.models.hub.download import find_any
from ex4d.models.hub.find import find_repo
from ex4d.models.wan.files.original import file_shapes, num_heads_beside, transformer_config

T5_FILE = "models_t5_umt5-xxl-enc-bf16.pth"


CLIP_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"


VAE_FILE = "Wan2.1_VAE.pth"


TOKENIZER_DIR = "google/umt5-xxl"


@dataclass(frozen=True)
class Wan14bFiles:
    """Where everything is.

    Attributes:
        base: Folder of the base model.
        diffusers: Whether it is in diffusers' layout.
        denoiser: Its shards.
        config: The denoiser's config.
        adapter: The adapter file.
    """

    base: Path
    diffusers: bool
    denoiser: list[Path]
    config: dict[str, Any]
    adapter: Path


def find_files(options: Wan14bOptions) -> Wan14bFiles:
    """Weights on this machine, or a WeightsError with the one command that fetches them."""
    base = options.base or find_any(WAN14B.bases, options.models)
    adapter = options.adapter
    if adapter is None:
        folder = find_repo(WAN14B.adapter_repo, options.models, (WAN14B.adapter_file,))
        adapter = folder / WAN14B.adapter_file if folder else None
    missing = [
        name for name, found in (("the Wan2.1-I2V-14B-480P base", base), ("ex4d.ckpt", adapter)) if found is None
    ]
    if base is None or adapter is None:
        raise WeightsError(
            f"{' and '.join(missing)} not found on this machine",
            f"about {WAN14B.gigabytes:.0f} GB of weights",
            "ex4d models download wan14b, or --models DIR where they are",
        )
    if not base.is_dir():
        raise WeightsError(f"no base model folder at {base}", "a Wan model folder", "ex4d models download wan14b")
    layout = (base / "transformer").is_dir()
    folder = base / "transformer" if layout else base
    shards = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    if not shards:
        raise WeightsError(
            f"no diffusion_pytorch_model*.safetensors in {folder}",
            "the denoiser's shards",
            "ex4d models download wan14b",
        )
    config = transformer_config(file_shapes(shards), num_heads_beside(folder), str(folder))
    return Wan14bFiles(base, layout, shards, config, adapter)


def split_weight(text: str) -> tuple[Path, float]:
    """`FILE:0.8` to (path, weight); the weight is 1 when left out."""
    head, _, tail = text.rpartition(":")
    try:
        return (Path(head), float(tail)) if head else (Path(text), 1.0)
    except ValueError:
        return Path(text), 1.0


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise WeightsError(f"no {name} in {folder}", "a complete Wan2.1 folder", "ex4d models download wan14b")
    return path
