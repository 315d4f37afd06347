"""A published embedded model with tiny random weights, made by the recipe's own `publish`."""

import sys
from pathlib import Path

import torch

from ex4d.models.nano.autoencoder import VideoAutoencoder
from ex4d.models.wan.files.adapter import Adapter, AdapterConfig, save_adapter
from ex4d.models.wan.geometry_encoder import GeometryEncoder
from ex4d.models.wan.lora import target_modules
from ex4d.models.wan.transformer import Ex4dTransformer

RECIPE = Path(__file__).parents[2] / "recipes" / "nano"
SIZES = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 12, "out_channels": 4, "text_dim": 8}


def tiny_autoencoder() -> VideoAutoencoder:
    torch.manual_seed(0)
    ones, zeros = [1.0] * 4, [0.0] * 4
    return VideoAutoencoder(4, (16, 16, 16), (1, 1, 1), (1, 1, 1), latents_mean=zeros, latents_std=ones).eval()


def tiny_transformer() -> Ex4dTransformer:
    torch.manual_seed(1)
    return Ex4dTransformer(**SIZES, freq_dim=16, ffn_dim=32, num_layers=2).eval()


def tiny_adapter(transformer: Ex4dTransformer) -> Adapter:
    generator = torch.Generator().manual_seed(2)
    shapes = {name: p.shape for name, p in transformer.named_parameters()}
    lora = {}
    for module in target_modules(transformer):
        wide_out, wide_in = shapes[f"{module}.weight"]
        lora[f"{module}.lora_A.weight"] = 0.1 * torch.randn(4, wide_in, generator=generator)
        lora[f"{module}.lora_B.weight"] = 0.1 * torch.randn(wide_out, 4, generator=generator)
    encoder = GeometryEncoder(24, 8, 4)
    torch.nn.init.normal_(encoder.latent_patch_embedding.weight, std=0.1, generator=generator)
    geometry = {name: t.detach() for name, t in encoder.state_dict().items()}
    return Adapter(lora, geometry, AdapterConfig(4, 4.0, 8, 24, base="/home/somebody/runs/base"))


def trained(folder: Path) -> dict[str, Path]:
    """What training leaves behind, as arguments of `publish`."""
    tiny_autoencoder().save_pretrained(folder / "autoencoder")
    transformer = tiny_transformer()
    transformer.save_pretrained(folder / "transformer")
    save_adapter(folder / "adapter.safetensors", tiny_adapter(transformer))
    return {
        "autoencoder": folder / "autoencoder",
        "transformer": folder / "transformer",
        "adapter": folder / "adapter.safetensors",
    }


def publish(out: Path, **parts: Path) -> list[str]:
    """`recipes/nano/publish.py`."""
    sys.path.insert(0, str(RECIPE))
    try:
        import publish as recipe
    finally:
        sys.path.remove(str(RECIPE))
    return recipe.publish(out, **parts)
