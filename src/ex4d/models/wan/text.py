"""Prompts: the released ones, their cleaning, and the text encoder (METHOD 6.4)."""

from __future__ import annotations

import hashlib
import html
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ex4d.errors import InputError
from ex4d.generators.parts import TextEmbeddings

#: Wan 2.1: longest prompt in tokens; shorter ones are padded to it inside the denoiser.
MAX_TOKENS = 512


def clean_prompt(text: str) -> str:
    """Mended, unescaped twice, whitespace collapsed, as Wan was trained."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


@torch.no_grad()
def encode_tokens(encoder, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """Encoder output of each row cut to its true length, [1, length, width] float32 on the CPU."""
    device = getattr(encoder, "compute_device", next(encoder.parameters()).device)
    hidden = encoder(ids.to(device), attention_mask=mask.to(device)).last_hidden_state
    lengths = mask.gt(0).sum(dim=1).tolist()
    return [row[None, :length].float().cpu() for row, length in zip(hidden, lengths, strict=True)]


def encode_prompts(encoder, tokenizer, prompts: Sequence[str]) -> list[Tensor]:
    """Embeddings of each prompt, cut to its length."""
    tokens = tokenizer(
        [clean_prompt(p) for p in prompts],
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return encode_tokens(encoder, tokens.input_ids, tokens.attention_mask)


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
    from ex4d.generators.checkpoint import open_safetensors

    file = open_safetensors(path)
    names = set(file.keys())
    if "positive" not in names:
        raise InputError(f"{path} holds {sorted(names)}", "tensors named positive and negative", "save them again")
    negative = file.get_tensor("negative") if "negative" in names else None
    return TextEmbeddings(file.get_tensor("positive"), negative)


def stream_encoder(encoder, device: torch.device | str):
    """Let a text encoder in host memory compute on the GPU layer by layer: its 11 GB never sit there at once."""
    device = torch.device(device)
    if device.type != "cuda":
        return encoder
    from diffusers.hooks.group_offloading import apply_group_offloading

    encoder.compute_device = device
    apply_group_offloading(encoder, onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level")
    return encoder
