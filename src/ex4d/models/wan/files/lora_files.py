"""LoRA files of the community (DiffSynth, ComfyUI, diffusers and kohya naming, distilled ones with bias differences), strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ex4d.errors import InputError, WeightsError
from ex4d.models.wan.files.adapter import open_safetensors
from ex4d.models.wan.keys import diffusers_key, original_key
from ex4d.models.wan.lora import LoraPair, LoraUpdate

PREFIXES = ("diffusion_model.", "model.diffusion_model.", "transformer.", "base_model.model.", "pipe.dit.", "dit.")
_DOWN = re.compile(r"^(.*)\.(?:lora_A|lora_down)(?:\.[A-Za-z0-9_]+)?\.weight$")
_UP = re.compile(r"^(.*)\.(?:lora_B|lora_up)(?:\.[A-Za-z0-9_]+)?\.weight$")


def read_lora(path: Path | str, weight: float = 1.0) -> LoraUpdate:
    """A LoRA file as an update of diffusers parameter names, scaled by `weight`."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no LoRA at {path}", "a .safetensors file", "--lora FILE")
    if path.suffix != ".safetensors":
        raise InputError(f"LoRA {path.name}", "a .safetensors file (a pickle could run code)", "convert it first")
    file = open_safetensors(path)
    return lora_update({key: file.get_tensor(key) for key in file.keys()}, weight, str(path))


def lora_update(state: Mapping[str, Tensor], weight: float = 1.0, source: str = "LoRA") -> LoraUpdate:
    """The same from tensors."""
    down, up, alpha, deltas, wrong = _sorted_out(state)
    wrong += [f"{m} (one half only)" for m in down.keys() ^ up.keys()]
    pairs, named = {}, {}
    for module in down.keys() & up.keys():
        rank = down[module].shape[0]
        pair = LoraPair(down[module].flatten(1), up[module].flatten(1), weight * alpha.get(module, rank) / rank)
        pairs[_parameter(f"{module}.weight") or wrong.append(module)] = (pair,)
    for key, value in deltas.items():
        named[_parameter(key) or wrong.append(key)] = value * weight
    if wrong or not (pairs or named):
        first = ", ".join(sorted(wrong)[:3]) or "nothing in it"
        raise WeightsError(f"{source} is not a LoRA of a Wan denoiser: {first}", "Wan LoRA keys", "another file")
    return LoraUpdate(pairs, named)


#: Full-size differences of distilled LoRAs: their suffix -> the parameter they change.
_DIFFERENCES = {".diff_b": ".bias", ".diff_m": ".modulation", ".diff": ".weight"}


def _sorted_out(state: Mapping[str, Tensor]):
    """(down, up, alpha, deltas, unknown keys) by module or parameter name."""
    down, up, alpha, deltas, wrong = {}, {}, {}, {}, []
    for key, value in state.items():
        name = _stripped(key)
        difference = next((d for d in _DIFFERENCES if name.endswith(d)), None)
        if match := _DOWN.match(name):
            down[match[1]] = value
        elif match := _UP.match(name):
            up[match[1]] = value
        elif name.endswith(".alpha"):
            alpha[name.removesuffix(".alpha")] = float(value)
        elif difference is not None:
            stem = name.removesuffix(difference)
            deltas[stem if stem.endswith("modulation") else stem + _DIFFERENCES[difference]] = value
        else:
            wrong.append(key)
    return down, up, alpha, deltas, wrong


def _stripped(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _parameter(name: str) -> str | None:
    """Diffusers' parameter name, from either naming."""
    if original_key(name) is not None and (
        ".attn" in name or ".net." in name or name.startswith("condition_embedder.")
    ):
        return name
    return diffusers_key(name)
