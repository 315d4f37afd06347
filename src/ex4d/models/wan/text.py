"""Prompts: the released ones, their cleaning, and the text encoder (METHOD 6.4)."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ex4d.errors import InputError

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


def stream_encoder(encoder, device: torch.device | str):
    """Let a text encoder in host memory compute on the GPU layer by layer: its 11 GB never sit there at once."""
    device = torch.device(device)
    if device.type != "cuda":
        return encoder
    from diffusers.hooks.group_offloading import apply_group_offloading

    encoder.compute_device = device
    apply_group_offloading(encoder, onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level")
    return encoder


@dataclass(frozen=True)
class TextEmbeddings:
    """What the text encoder made of the prompts, cut to their true lengths.

    Attributes:
        positive: What the video should be.
        negative: What it should not be; None where guidance is off.
    """

    positive: Float[Tensor, "1 tokens width"]
    negative: Float[Tensor, "1 tokens2 width"] | None

    def padded(self, tokens: int | None) -> TextEmbeddings:
        """Zero-padded to a fixed count, as the release does inside its denoiser; None leaves them as they are."""
        if tokens is None:
            return self
        return TextEmbeddings(pad_tokens(self.positive, tokens), _maybe_pad(self.negative, tokens))


def pad_tokens(x: Tensor, tokens: int) -> Tensor:
    """[1, n, width] with zero rows up to `tokens`."""
    if x.shape[1] > tokens:
        raise InputError(f"{x.shape[1]} text tokens", f"at most {tokens}", "a shorter prompt")
    return torch.nn.functional.pad(x, (0, 0, 0, tokens - x.shape[1]))


def _maybe_pad(x: Tensor | None, tokens: int) -> Tensor | None:
    return None if x is None else pad_tokens(x, tokens)
