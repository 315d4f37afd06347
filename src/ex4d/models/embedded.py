"""The embedded weights: found in the package, checked by hash, loaded strictly."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.errors import WeightsError

if TYPE_CHECKING:
    import torch

FOLDER = Path(__file__).parent / "nano"
#: name of a part -> SHA-256 of its weights file, written by `recipes/nano/publish.py`.
HASHES = "hashes.json"
GET_BACK = "pip install --force-reinstall --no-deps ex4d, or git checkout src/ex4d/models/nano"


#: Everything a re-shot video needs; a package that lacks one of them has no embedded model.
PARTS = (
    "autoencoder/diffusion_pytorch_model.safetensors",
    "transformer/diffusion_pytorch_model.safetensors",
    "adapter.safetensors",
)


def available() -> bool:
    """Whether the package was built with its weights."""
    return (FOLDER / HASHES).is_file() and set(PARTS) <= set(hashes())


@lru_cache(maxsize=1)
def hashes() -> dict[str, str]:
    """File name (inside the folder) -> SHA-256."""
    try:
        return json.loads((FOLDER / HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"no embedded weights in {FOLDER}", "the package with its weights", GET_BACK) from error


def verified(name: str) -> Path:
    """The path of a weights file whose bytes are the published ones.

    Raises:
        WeightsError: The file is missing, or its hash is another.
    """
    path, wanted = FOLDER / name, hashes().get(name)
    if wanted is None or not path.is_file():
        raise WeightsError(f"embedded weights {name} are missing", "the package with its weights", GET_BACK)
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wanted:
        raise WeightsError(f"{path} has hash {found[:12]}", f"{wanted[:12]}", GET_BACK)
    return path


def load_model(cls: Any, part: str, dtype: torch.dtype | None = None) -> Any:
    """A diffusers model of the embedded folder, strict in its keys, in evaluation mode, float32 unless said otherwise."""
    import torch
    from safetensors.torch import load_file

    folder = FOLDER / part
    weights = load_file(verified(f"{part}/diffusion_pytorch_model.safetensors"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = cls.from_config(config)
    own = model.state_dict()
    if wrong := sorted(own.keys() ^ weights.keys()):
        raise WeightsError(
            f"{folder}: key {wrong[0]!r} does not fit ({len(wrong)} differ)", "the published files", GET_BACK
        )
    model.load_state_dict({name: t.to(dtype or torch.float32) for name, t in weights.items()}, assign=True)
    return model.eval().requires_grad_(False)
