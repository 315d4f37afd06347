"""Adapter and base weights from one naming to another, tensor by tensor, without loss."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ex4d.errors import InputError, WeightsError
from ex4d.models.wan.files.adapter import Adapter, load_adapter, open_safetensors, released_state, save_adapter
from ex4d.models.wan.keys import diffusers_key, original_key

AdapterFormat = Literal["ex4d", "released", "comfy"]
BaseLayout = Literal["original", "diffusers"]
#: ComfyUI reads Wan LoRAs under this prefix and leaves out keys it does not know, so the geometry encoder can ride along.
COMFY_PREFIX = "diffusion_model."
COMFY_GEOMETRY = "ex4d_geometry."


def convert_adapter(source: Path, target: Path, form: AdapterFormat) -> None:
    """Write an adapter as our safetensors, as the released torch file, or in ComfyUI's LoRA naming."""
    adapter = load_any_adapter(source)
    if form == "ex4d":
        _needs(target, ".safetensors")
        save_adapter(target, adapter)
    elif form == "released":
        _needs(target, ".ckpt")
        _whole(target, lambda path: torch.save(released_state(adapter), path))
    else:
        _needs(target, ".safetensors")
        _save(target, comfy_state(adapter), {"format": "ex4d-comfy", "alpha": str(adapter.config.alpha)})


def load_any_adapter(path: Path) -> Adapter:
    """An adapter in any of the three formats."""
    if path.suffix == ".safetensors" and path.is_file():
        file = open_safetensors(path)
        metadata = file.metadata() or {}
        if metadata.get("format") == "ex4d-comfy":
            return _from_comfy({key: file.get_tensor(key) for key in file.keys()}, str(path))
    return load_adapter(path)


def comfy_state(adapter: Adapter) -> dict[str, Tensor]:
    """ComfyUI's names: `diffusion_model.blocks.N....lora_down.weight`, one alpha a module."""
    state: dict[str, Tensor] = {}
    for key, value in adapter.lora.items():
        original = original_key(key)
        assert original is not None, key
        name = COMFY_PREFIX + original.replace("lora_A", "lora_down").replace("lora_B", "lora_up")
        state[name] = value
        if "lora_down" in name:
            state[name.replace("lora_down.weight", "alpha")] = torch.tensor(float(adapter.config.alpha))
    return state | {COMFY_GEOMETRY + key: value for key, value in adapter.geometry.items()}


def _from_comfy(state: Mapping[str, Tensor], source: str) -> Adapter:
    from ex4d.models.wan.files.adapter import AdapterConfig

    geometry = {k.removeprefix(COMFY_GEOMETRY): v for k, v in state.items() if k.startswith(COMFY_GEOMETRY)}
    alphas = {float(v) for k, v in state.items() if k.endswith(".alpha")}
    lora = {}
    for key, value in state.items():
        if key.endswith((".lora_down.weight", ".lora_up.weight")):
            plain = key.removeprefix(COMFY_PREFIX).replace("lora_down", "lora_A").replace("lora_up", "lora_B")
            name = diffusers_key(plain)
            if name is None:
                raise WeightsError(f"{source}: {key} is not Wan's", "Wan LoRA keys", "another file")
            lora[name] = value
    patch = geometry.get("latent_patch_embedding.weight")
    if patch is None or len(alphas) != 1:
        raise WeightsError(f"{source} lacks the geometry encoder or one alpha", "a file that ex4d wrote", "ex4d.ckpt")
    rank = next(v.shape[0] for k, v in lora.items() if k.endswith("lora_A.weight"))
    return Adapter(lora, geometry, AdapterConfig(rank, alphas.pop(), int(patch.shape[1]), int(patch.shape[0])))


def convert_base(source: Path, target: Path, layout: BaseLayout) -> None:
    """Rename a denoiser's shards between Wan's original and diffusers' naming; one shard in memory at a time."""
    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise InputError(f"no .safetensors in {source}", "a folder of denoiser shards", "ex4d models list")
    rename = diffusers_key if layout == "diffusers" else original_key
    target.mkdir(parents=True, exist_ok=True)
    index: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        opened = open_safetensors(file)
        state = {}
        for key in opened.keys():
            name = rename(key)
            if name is None:
                raise WeightsError(f"{file.name}: {key} is not in the other layout's naming", f"{layout} needs it", "")
            state[name] = opened.get_tensor(key)
            index[name] = file.name
            shapes[name] = tuple(state[name].shape)
        _save(target / file.name, state, {"format": "pt"})
    if len(files) > 1:
        record = {"metadata": {}, "weight_map": dict(sorted(index.items()))}
        text = json.dumps(record, indent=1)
        _whole(target / "diffusion_pytorch_model.safetensors.index.json", lambda p: Path(p).write_text(text))
    if layout == "diffusers":
        _write_config(source, target, shapes)


def _write_config(source: Path, target: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    from ex4d.models.wan.files.original import num_heads_beside, transformer_config

    config = transformer_config(shapes, num_heads_beside(source), str(source))
    record = {"_class_name": "WanTransformer3DModel", **config}
    _whole(target / "config.json", lambda p: Path(p).write_text(json.dumps(record, indent=2)))


def _needs(target: Path, suffix: str) -> None:
    if target.suffix != suffix:
        raise InputError(f"target {target.name}", f"a name that ends in {suffix}", str(target.with_suffix(suffix)))


def _save(target: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    contiguous = {key: value.contiguous().clone() for key, value in state.items()}
    _whole(target, lambda path: save_file(contiguous, path, metadata=metadata))


def _whole(target: Path, write) -> None:
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        write(str(temporary))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
