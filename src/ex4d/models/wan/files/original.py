"""Wan's original files (DiT shards, `.pth` VAE, text and image encoders) into diffusers and transformers modules, strictly.

Sizes come from the tensors themselves. Only head counts cannot: official widths have their own, others need `num_heads`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ex4d.errors import WeightsError
from ex4d.models.wan.files.adapter import DOWNLOAD, open_safetensors, read_torch
from ex4d.models.wan.keys import check_keys, diffusers_key

#: Wan 2.1 and 2.2: every official denoiser has heads 128 wide; the CLIP ViT-H/14 tower has heads 80 wide.
DIT_HEAD_DIM = 128
CLIP_HEADS = {1280: 16}
#: Wan 2.1's text encoder (umT5): distance at which its position buckets end.
T5_MAX_DISTANCE = 128

Shapes = Mapping[str, tuple[int, ...]]


def block_count(keys: Iterable[str], pattern: str = r"^blocks\.(\d+)\.") -> int:
    """One more than the highest block number."""
    return 1 + max((int(m[1]) for key in keys if (m := re.match(pattern, key))), default=-1)


def heads_of(width: int, num_heads: int | None, official: Callable[[int], int | None], source: str) -> int:
    """Attention heads: given, or official for this width, or an error that asks for them."""
    heads = num_heads or official(width)
    if heads is None:
        raise WeightsError(
            f"{source} is {width} wide, not an official size, and its file does not say how many heads it has",
            "the head count",
            "a config.json beside it with num_heads, or num_heads=",
        )
    if width % heads:
        raise WeightsError(f"{source}: {heads} heads do not divide width {width}", "a divisor", "num_heads=")
    return heads


def transformer_config(shapes: Shapes, num_heads: int | None = None, source: str = "denoiser") -> dict[str, Any]:
    """Config of the diffusers model from original or diffusers parameter names and shapes."""
    named = {(diffusers_key(key) or key): tuple(shape) for key, shape in shapes.items()}
    embedder = "condition_embedder."
    try:
        dim, in_channels, *patch = named["patch_embedding.weight"]
        heads = heads_of(dim, num_heads, lambda d: d // DIT_HEAD_DIM if d % DIT_HEAD_DIM == 0 else None, source)
        image = named.get(f"{embedder}image_embedder.norm1.weight")
        patch_volume = patch[0] * patch[1] * patch[2]
        return {
            "patch_size": tuple(patch),
            "num_attention_heads": heads,
            "attention_head_dim": dim // heads,
            "in_channels": in_channels,
            "out_channels": named["proj_out.weight"][0] // patch_volume,
            "text_dim": named[f"{embedder}text_embedder.linear_1.weight"][1],
            "freq_dim": named[f"{embedder}time_embedder.linear_1.weight"][1],
            "ffn_dim": named["blocks.0.ffn.net.0.proj.weight"][0],
            "num_layers": block_count(named),
            "cross_attn_norm": "blocks.0.norm2.weight" in named,
            "image_dim": image[0] if image else None,
            "added_kv_proj_dim": dim if "blocks.0.attn2.add_k_proj.weight" in named else None,
        }
    except KeyError as error:
        raise WeightsError(f"{source} has no {error.args[0]}", "the tensors of a Wan denoiser", DOWNLOAD) from error


def stream_tensors(files: Iterable[Path]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of some safetensors or torch files, one at a time, memory-mapped."""
    for path in files:
        if path.suffix == ".safetensors":
            file = open_safetensors(path)
            for key in file.keys():
                yield key, file.get_tensor(key)
        else:
            yield from read_torch(path).items()


def file_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor without reading the values."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        if path.suffix == ".safetensors":
            file = open_safetensors(path)
            shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        else:
            shapes |= {key: tuple(value.shape) for key, value in read_torch(path).items()}
    return shapes


def load_vae(state: Mapping[str, Tensor], source: str = "VAE"):
    """`AutoencoderKLWan` float32 from the original naming."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    try:
        base_dim, z_dim = state["encoder.conv1.weight"].shape[0], state["conv2.weight"].shape[0]
    except KeyError as error:
        raise WeightsError(f"{source} has no {error.args[0]}", "the tensors of the Wan VAE", DOWNLOAD) from error
    with torch.device("meta"):
        vae = AutoencoderKLWan(base_dim=base_dim, z_dim=z_dim)
    return _fill(vae, convert_wan_vae_to_diffusers(dict(state)), source).eval()


def load_text_encoder(state: Mapping[str, Tensor], source: str = "text encoder", dtype: torch.dtype | None = None):
    """`UMT5EncoderModel` from the original naming; float32 unless `dtype` says otherwise."""
    from transformers import UMT5Config, UMT5EncoderModel

    try:
        vocabulary, width = state["token_embedding.weight"].shape
        inner = state["blocks.0.attn.q.weight"].shape[0]
        buckets, heads = state["blocks.0.pos_embedding.embedding.weight"].shape
        feed_forward = state["blocks.0.ffn.fc1.weight"].shape[0]
    except KeyError as error:
        raise WeightsError(f"{source} has no {error.args[0]}", "the tensors of Wan's umT5", DOWNLOAD) from error
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=inner // heads,
        d_ff=feed_forward,
        num_layers=block_count(state),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=T5_MAX_DISTANCE,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        layer_norm_epsilon=1e-6,
    )
    converted = {_t5_key(key): value for key, value in state.items()}
    converted["encoder.embed_tokens.weight"] = converted["shared.weight"]
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    return _fill(model, converted, source, dtype or torch.float32).eval()


_T5 = {
    "norm1.": "layer.0.layer_norm.",
    "attn.q.": "layer.0.SelfAttention.q.",
    "attn.k.": "layer.0.SelfAttention.k.",
    "attn.v.": "layer.0.SelfAttention.v.",
    "attn.o.": "layer.0.SelfAttention.o.",
    "pos_embedding.embedding.": "layer.0.SelfAttention.relative_attention_bias.",
    "norm2.": "layer.1.layer_norm.",
    "ffn.gate.0.": "layer.1.DenseReluDense.wi_0.",
    "ffn.fc1.": "layer.1.DenseReluDense.wi_1.",
    "ffn.fc2.": "layer.1.DenseReluDense.wo.",
}


def _t5_key(key: str) -> str:
    if key == "token_embedding.weight":
        return "shared.weight"
    if key == "norm.weight":
        return "encoder.final_layer_norm.weight"
    block = re.match(r"^blocks\.(\d+)\.(.*)$", key)
    if block:
        for old, new in _T5.items():
            if block[2].startswith(old):
                return f"encoder.block.{block[1]}.{new}{block[2][len(old) :]}"
    return key


def load_image_encoder(state: Mapping[str, Tensor], num_heads: int | None = None, source: str = "image encoder"):
    """`CLIPVisionModel` float32 from the original open-clip naming; the text tower and `log_scale` are left out."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    visual.pop("head", None)
    try:
        width, positions = visual["cls_embedding"].shape[-1], visual["pos_embedding"].shape[1]
        patch_px = visual["patch_embedding.weight"].shape[-1]
        mlp = visual["transformer.0.mlp.0.weight"].shape[0]
    except KeyError as error:
        raise WeightsError(f"{source} has no visual.{error.args[0]}", "the tensors of Wan's CLIP", DOWNLOAD) from error
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=block_count(visual, r"^transformer\.(\d+)\."),
        num_attention_heads=heads_of(width, num_heads, CLIP_HEADS.get, source),
        image_size=patch_px * round((positions - 1) ** 0.5),
        patch_size=patch_px,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
    )
    with torch.device("meta"):
        model = CLIPVisionModel(config)
    prefix = "vision_model." if any(key.startswith("vision_model.") for key in model.state_dict()) else ""
    return _fill(model, _clip_state(visual, prefix), source).eval()


_CLIP = {
    "norm1.": "layer_norm1.",
    "norm2.": "layer_norm2.",
    "attn.proj.": "self_attn.out_proj.",
    "mlp.0.": "mlp.fc1.",
    "mlp.2.": "mlp.fc2.",
}
_CLIP_OUTER = {
    "patch_embedding.weight": "embeddings.patch_embedding.weight",
    "pre_norm.weight": "pre_layrnorm.weight",
    "pre_norm.bias": "pre_layrnorm.bias",
    "post_norm.weight": "post_layernorm.weight",
    "post_norm.bias": "post_layernorm.bias",
}


def _clip_state(visual: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for key, value in visual.items():
        layer = re.match(r"^transformer\.(\d+)\.(.*)$", key)
        if key == "cls_embedding":
            out["embeddings.class_embedding"] = value.reshape(-1)
        elif key == "pos_embedding":
            out["embeddings.position_embedding.weight"] = value[0]
        elif layer and layer[2].startswith("attn.to_qkv."):
            kind = layer[2].removeprefix("attn.to_qkv.")
            for name, part in zip("qkv", value.chunk(3), strict=True):
                out[f"encoder.layers.{layer[1]}.self_attn.{name}_proj.{kind}"] = part
        elif layer:
            old = next((o for o in _CLIP if layer[2].startswith(o)), None)
            new = layer[2] if old is None else _CLIP[old] + layer[2][len(old) :]
            out[f"encoder.layers.{layer[1]}.{new}"] = value
        else:
            out[_CLIP_OUTER.get(key, key)] = value
    return {prefix + key: value for key, value in out.items()}


def _fill(model, state: Mapping[str, Tensor], source: str, dtype: torch.dtype = torch.float32):
    """Assign tensors to a model built on meta; its non-persistent buffers are rebuilt from its own class."""
    check_keys(state, model.state_dict(), source, DOWNLOAD)
    wrong = [key for key, value in model.state_dict().items() if value.shape != state[key].shape]
    if wrong:
        shape, need = tuple(state[wrong[0]].shape), tuple(model.state_dict()[wrong[0]].shape)
        raise WeightsError(f"{source}: {wrong[0]} has shape {shape}", f"{need}", DOWNLOAD)
    # A copy: assigned tensors may be views of a memory-mapped file that is gone later.
    model.load_state_dict({k: v.to(dtype, copy=True).contiguous() for k, v in state.items()}, assign=True)
    for name, buffer in list(model.named_buffers()):
        if buffer.is_meta:
            owner = model.get_submodule(name.rpartition(".")[0])
            value = torch.arange(buffer.shape[-1]).expand(buffer.shape).clone()  # CLIP's position_ids is the only one
            assert name.endswith("position_ids"), name
            owner.register_buffer(name.rpartition(".")[2], value, persistent=False)
    return model


def num_heads_beside(folder: Path) -> int | None:
    """Head count from a config.json in the folder (Wan's own or diffusers'), if there is one."""
    import json

    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not JSON", "the file of the model's repository", DOWNLOAD) from error
    return config.get("num_heads") or config.get("num_attention_heads")
