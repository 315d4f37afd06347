"""A whole Wan-shaped generator a few thousand parameters large, seeded, for tests."""

from fractions import Fraction

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from ex4d.generators.diffusion.parts import Lazy, WanParts
from ex4d.models.wan.geometry_encoder import GeometryEncoder
from ex4d.models.wan.text import TextEmbeddings
from ex4d.models.wan.transformer import Ex4dTransformer
from ex4d.types import CameraPath, RenderClip, VideoClip

TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 12,
    "freq_dim": 32,
    "ffn_dim": 64,
    "num_layers": 2,
    "image_dim": 20,
    "added_kv_proj_dim": 48,
}


def tiny_transformer(seed=0, **changes) -> Ex4dTransformer:
    torch.manual_seed(seed)
    return Ex4dTransformer(**{**TINY, **changes}).eval().requires_grad_(False)


def tiny_vae(seed=0) -> AutoencoderKLWan:
    torch.manual_seed(seed)
    vae = AutoencoderKLWan(base_dim=4, z_dim=16)
    return vae.eval().requires_grad_(False)


def tiny_encoder(dim=48, seed=0, zero=False) -> GeometryEncoder:
    torch.manual_seed(seed)
    encoder = GeometryEncoder(dim, hidden_channels=8)
    if not zero:
        torch.nn.init.normal_(encoder.latent_patch_embedding.weight, std=0.1)
    return encoder.eval().requires_grad_(False)


def tiny_image_encoder(seed=0):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=20, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=56
    )
    return CLIPVisionModel(config).eval().requires_grad_(False)


def tiny_text(width=12, seed=0) -> TextEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    return TextEmbeddings(torch.randn(1, 5, width, generator=generator), torch.randn(1, 7, width, generator=generator))


def tiny_parts(seed=0, **changes) -> WanParts:
    parts = {
        "name": "tiny",
        "transformer": Lazy(lambda: tiny_transformer(seed)),
        "vae": Lazy(lambda: tiny_vae(seed)),
        "geometry_encoder": Lazy(lambda: tiny_encoder(seed=seed)),
        "text": Lazy.of(tiny_text(seed=seed)),
        "image_encoder": Lazy(lambda: tiny_image_encoder(seed)),
        "default_steps": 2,
        "max_frames": 9,
    }
    return WanParts(**{**parts, **changes})


def tiny_clip(num_frames=9, size_hw=(32, 48), seed=0, start=None) -> RenderClip:
    rng = np.random.default_rng(seed)
    h, w = size_hw
    color = rng.integers(0, 256, (num_frames, h, w, 3), dtype=np.uint8)
    mask = np.ones((num_frames, h, w), bool)
    for i in range(1, num_frames):
        mask[i, :, : min(w - 8, 2 * i)] = False
    color[~mask] = 0
    poses = np.tile(np.eye(4), (num_frames, 1, 1))
    poses[:, 0, 3] = np.linspace(0 if start is None else start, 1, num_frames)
    K = np.tile(np.array([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1]], np.float32), (num_frames, 1, 1))
    path = CameraPath(poses, K, size_hw, np.arange(num_frames, dtype=np.float64), "tiny")
    depth = np.ones((num_frames, h, w), np.float32)
    fps = Fraction(15)
    return RenderClip(color, mask, depth, path, VideoClip(color.copy(), fps), fps)


def cut(clip: RenderClip, size: int):
    """The clip in chunks."""
    for a in range(0, len(clip), size):
        s = slice(a, a + size)
        yield RenderClip(
            clip.color[s],
            clip.mask[s],
            clip.depth[s],
            clip.path[s],
            VideoClip(clip.source.frames[s], clip.fps),
            clip.fps,
        )


def frames_of(generator, chunks, **options) -> np.ndarray:
    return np.concatenate([clip.frames for clip in generator.generate(chunks, **options)])
