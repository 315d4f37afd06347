"""Prompt embeddings on disk: kept for the next run, or brought by the user."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from ex4d.errors import InputError
from ex4d.models.wan.text import TextEmbeddings, clean_prompt


def cached_embeddings(
    prompts: tuple[str, str | None], cache_dir: Path, model_id: str, encode: Callable[[Sequence[str]], list[Tensor]]
) -> TextEmbeddings:
    """Embeddings of (prompt, negative prompt) from the cache; the 11 GB encoder is loaded only for what is new."""
    from safetensors.torch import load_file, save_file

    wanted = [p for p in prompts if p is not None]
    paths = {p: cache_dir / f"{_text_key(model_id, p)}.safetensors" for p in wanted}
    missing = [p for p in dict.fromkeys(wanted) if not paths[p].is_file()]
    if missing:
        cache_dir.mkdir(parents=True, exist_ok=True)
        for prompt, value in zip(missing, encode(missing), strict=True):
            temporary = paths[prompt].with_suffix(f".{os.getpid()}.tmp")
            save_file({"embedding": value.contiguous()}, str(temporary), metadata={"prompt": prompt, "model": model_id})
            os.replace(temporary, paths[prompt])
    found = {p: load_file(str(path))["embedding"] for p, path in paths.items()}
    positive, negative = prompts
    assert positive is not None
    return TextEmbeddings(found[positive], None if negative is None else found[negative])


def _text_key(model_id: str, prompt: str) -> str:
    return hashlib.sha256("\n".join([model_id, clean_prompt(prompt)]).encode()).hexdigest()[:24]


def read_embeddings(path: Path) -> TextEmbeddings:
    """Precomputed embeddings: a safetensors file with `positive` and `negative`, [1, tokens, width]."""
    from ex4d.models.wan.files.adapter import open_safetensors

    file = open_safetensors(path)
    names = set(file.keys())
    if "positive" not in names:
        raise InputError(f"{path} holds {sorted(names)}", "tensors named positive and negative", "save them again")
    negative = file.get_tensor("negative") if "negative" in names else None
    return TextEmbeddings(file.get_tensor("positive"), negative)
