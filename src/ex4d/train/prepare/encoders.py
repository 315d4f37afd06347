"""The frozen encoders whose outputs training data caches: VAE, text, image tower; from one folder in diffusers' layout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ex4d.conditioning.image import clip_pixels, requantised
from ex4d.errors import InputError
from ex4d.models.wan.autoencoder import encode_video, strides
from ex4d.models.wan.text import MAX_TOKENS, encode_prompts

#: Two independent hashes of nothing: how wide text is when there is no text encoder.
NO_TEXT_WIDTH = 32


@dataclass(frozen=True)
class Encoders:
    """What turns pixels and words into what a denoiser is trained on.

    Attributes:
        vae: Anything with `AutoencoderKLWan`'s interface, on its device.
        text_encoder, tokenizer: UMT5 encoder; None: one zero token, for denoisers without text.
        image_encoder: CLIP vision tower; None: no image tokens are cached.
        text_width: Width of the zero token.
        text_tokens: Rows that text is zero-padded to (the released denoiser pads to 512).
    """

    vae: Any
    text_encoder: Any = None
    tokenizer: Any = None
    image_encoder: Any = None
    text_width: int = NO_TEXT_WIDTH
    text_tokens: int = 1

    def latents(self, video: Tensor) -> np.ndarray:
        """Normalised latents [C, T, h, w] float16 of a video [1, 3, T, H, W] in -1..1."""
        return encode_video(self.vae, video)[0].half().cpu().numpy()

    def text(self, prompt: str) -> np.ndarray:
        """Embedding [text_tokens, width] float16, zero-padded."""
        if self.text_encoder is None:
            return np.zeros((self.text_tokens, self.text_width), np.float16)
        found = encode_prompts(self.text_encoder, self.tokenizer, [prompt])[0][0]
        out = np.zeros((self.text_tokens, found.shape[1]), np.float16)
        out[: len(found)] = found.half().numpy()
        return out

    @torch.no_grad()
    def image_tokens(self, first_frame: Tensor) -> np.ndarray | None:
        """Tokens [257, width] float16 of a frame [1, 3, H, W] in -1..1, or None without an image tower."""
        if self.image_encoder is None:
            return None
        p = next(self.image_encoder.parameters())
        pixels = clip_pixels(first_frame).to(p.device, p.dtype)
        return self.image_encoder(pixels, output_hidden_states=True).hidden_states[-2][0].half().cpu().numpy()

    def image_latents(self, first_frame: Tensor, num_frames: int) -> np.ndarray:
        """Latents of [frame, grey, grey, ...]: the 16 channels of y after its mask."""
        video = torch.zeros(1, 3, num_frames, *first_frame.shape[-2:])
        video[:, :, 0] = requantised(first_frame)
        return self.latents(video)

    def cell(self) -> tuple[int, int]:
        """(frames, pixels) of a latent cell."""
        return strides(self.vae)


@lru_cache(maxsize=1)
def load_encoders(folder: str, device: str) -> Encoders:
    """Encoders of a folder with vae/, and where they exist text_encoder/ and tokenizer/, image_encoder/, transformer/."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    root = Path(folder)
    if not (root / "vae" / "config.json").is_file():
        raise InputError(f"no vae/config.json in {root}", "a Wan model folder in diffusers' layout", "ex4d models list")
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    vae = AutoencoderKLWan.from_pretrained(root / "vae", torch_dtype=dtype).to(device).eval()  # type: ignore[attr-defined]
    text_encoder = tokenizer = image_encoder = None
    width, tokens = NO_TEXT_WIDTH, 1
    if (root / "transformer" / "config.json").is_file():
        import json

        width = int(json.loads((root / "transformer" / "config.json").read_text())["text_dim"])
    if (root / "text_encoder" / "config.json").is_file():
        from transformers import AutoTokenizer, UMT5EncoderModel

        text_encoder = UMT5EncoderModel.from_pretrained(root / "text_encoder", dtype=dtype).to(device).eval()  # type: ignore[arg-type]
        tokenizer, tokens = AutoTokenizer.from_pretrained(root / "tokenizer"), MAX_TOKENS
    if (root / "image_encoder" / "config.json").is_file():
        from transformers import CLIPVisionModel

        image_encoder = CLIPVisionModel.from_pretrained(root / "image_encoder", dtype=dtype).to(device).eval()  # type: ignore[arg-type]
    return Encoders(vae, text_encoder, tokenizer, image_encoder, width, tokens)
