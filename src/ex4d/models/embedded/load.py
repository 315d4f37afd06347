"""The embedded weights: found in the package, checked by hash, loaded strictly."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.errors import WeightsError

if TYPE_CHECKING:
    import torch

FOLDER = Path(__file__).parent
#: file name (inside the folder) -> SHA-256, written by `recipes/nano/publish.py`.
HASHES = "hashes.json"
CARD = "MODEL_CARD.md"
WEIGHTS, CONFIG = "diffusion_pytorch_model.safetensors", "config.json"
GET_BACK = "pip install --force-reinstall --no-deps ex4d, or git checkout src/ex4d/models/embedded"
LICENCE = "Apache-2.0"

ADAPTER = "adapter/adapter.safetensors"
#: Everything a re-shot video needs; a package that lacks one of them has no embedded model.
PARTS = (f"autoencoder/{WEIGHTS}", f"transformer/{WEIGHTS}", ADAPTER)


def available() -> bool:
    """Whether the package was built with its weights. Says nothing of their bytes: `problems` does."""
    return (FOLDER / HASHES).is_file() and set(PARTS) <= set(hashes())


def hashes(folder: Path | None = None) -> dict[str, str]:
    """File name (inside the folder) -> SHA-256.

    Raises:
        WeightsError: There is no such list, or it cannot be read.
    """
    folder = folder or FOLDER
    try:
        found = json.loads((folder / HASHES).read_text(encoding="utf-8"))
        return {str(name): str(value) for name, value in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"no embedded weights in {folder}", "the package with its weights", GET_BACK) from error


def verified(name: str, folder: Path | None = None) -> Path:
    """The path of a published file whose bytes are the published ones.

    Raises:
        WeightsError: The file is missing, or its hash is another.
    """
    folder = folder or FOLDER
    path, wanted = folder / name, hashes(folder).get(name)
    if wanted is None or not path.is_file():
        raise WeightsError(f"embedded weights {name} are missing", "the package with its weights", GET_BACK)
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wanted:
        raise WeightsError(f"{path} has hash {found[:12]}", f"{wanted[:12]}", GET_BACK)
    return path


def check(folder: Path | None = None) -> int:
    """Raise WeightsError for the first file that is not as published; returns how many are."""
    found = hashes(folder)
    for name in [*PARTS, *(name for name in found if name not in PARTS)]:
        verified(name, folder)
    return len(found)


def megabytes(folder: Path | None = None) -> float:
    """Size of the published files."""
    folder = folder or FOLDER
    return sum((folder / name).stat().st_size for name in hashes(folder) if (folder / name).is_file()) / 1e6


def load_model(cls: Any, part: str, dtype: torch.dtype | None = None, folder: Path | None = None) -> Any:
    """A diffusers model of the embedded folder, strict in its keys and shapes, in evaluation mode, float32 unless said otherwise."""
    import torch
    from safetensors.torch import load_file

    folder = folder or FOLDER
    place = folder / part
    weights = load_file(verified(f"{part}/{WEIGHTS}", folder))
    if f"{part}/{CONFIG}" in hashes(folder):
        verified(f"{part}/{CONFIG}", folder)
    try:
        config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{place / CONFIG} cannot be read", "the published files", GET_BACK) from error
    model = cls.from_config(config)
    own = model.state_dict()
    wrong = sorted(own.keys() ^ weights.keys()) or sorted(k for k in own if own[k].shape != weights[k].shape)
    if wrong:
        raise WeightsError(
            f"{place}: key {wrong[0]!r} does not fit ({len(wrong)} differ)", "the published files", GET_BACK
        )
    model.load_state_dict({name: t.to(dtype or torch.float32) for name, t in weights.items()}, assign=True)
    return model.eval().requires_grad_(False)
