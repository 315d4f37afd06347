"""Adapter files: the released `ex4d.ckpt` (METHOD 7.1) and our own safetensors with its config inside. Strict, and never unpickled."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ex4d.errors import InputError, WeightsError
from ex4d.models.wan.geometry_encoder import GeometryEncoder
from ex4d.models.wan.keys import check_keys, diffusers_key, original_key
from ex4d.models.wan.lora import ALPHA, RANK, LoraUpdate, load_lora, lora_keys, update_from_state

FORMAT = "ex4d-adapter"
FORMAT_VERSION = 1
#: The release scales its mask to -1..1 twice, so its encoder was trained on -3 (unknown) and 1 (known): METHOD 6.2, Q1.
MASK_AFFINE = (2.0, -1.0)
GEOMETRY_KEYS = tuple(
    f"{layer}.{kind}"
    for layer in ("latent_encoder.0", "latent_encoder.2", "latent_encoder.4", "latent_patch_embedding")
    for kind in ("weight", "bias")
)
#: Wrappers around the flat dict, and prefixes before every key, that trainers leave behind.
WRAPPERS = ("state_dict", "module", "model")
PREFIXES = ("module.", "pipe.dit.", "pipe.", "dit.", "diffusion_model.", "model.")

DOWNLOAD = "ex4d models download wan14b"


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter's tensors alone do not say.

    Attributes:
        rank: LoRA rank.
        alpha: LoRA alpha; the scale is alpha / rank.
        hidden_channels: Width of the geometry encoder.
        dim: Token width of the denoiser it was trained for.
        mask_affine: (scale, offset) applied to the -1..1 mask before the VAE.
        base: The denoiser it was trained on.
        extra: Anything a trainer wants to keep (steps, data, recipe).
    """

    rank: int = RANK
    alpha: float = ALPHA
    hidden_channels: int = 1024
    dim: int = 5120
    mask_affine: tuple[float, float] = MASK_AFFINE
    base: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """LoRA scale."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Adapter:
    """An EX-4D adapter in host memory.

    Attributes:
        lora: Portable diffusers names (`blocks.0.attn1.to_q.lora_A.weight`) -> tensors.
        geometry: Geometry encoder tensors under their released names.
        config: The rest.
    """

    lora: Mapping[str, Tensor]
    geometry: Mapping[str, Tensor]
    config: AdapterConfig

    def update(self, weight: float = 1.0) -> LoraUpdate:
        """The LoRA as an update of base weights."""
        return update_from_state(self.lora, self.config.scale * weight)

    def geometry_encoder(self) -> GeometryEncoder:
        """A float32 encoder with these weights."""
        patch = self.geometry["latent_patch_embedding.weight"]
        latent_channels = self.geometry["latent_encoder.0.weight"].shape[1] // 2
        kernel = (int(patch.shape[2]), int(patch.shape[3]), int(patch.shape[4]))
        encoder = GeometryEncoder(patch.shape[0], patch.shape[1], latent_channels, kernel)
        encoder.load_state_dict({key: value.float() for key, value in self.geometry.items()})
        return encoder.eval()


def load_adapter(path: Path | str, *, alpha: float | None = None) -> Adapter:
    """Read an adapter file of either format.

    Args:
        path: `.safetensors` of ours, or a torch file in the release's naming.
        alpha: LoRA alpha of a torch file whose rank is not the release's (it does not say).
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"no adapter at {path}", "ex4d.ckpt or an adapter .safetensors", f"{DOWNLOAD} (about 0.4 GB)"
        )
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    return _from_released(read_torch(path), str(path), alpha)


def read_torch(path: Path) -> dict[str, Any]:
    """A torch file as tensors only: code inside a pickle is refused, not run."""
    try:
        return _read_tensors(path, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):  # the old, unzipped torch format cannot be mapped
            raise _damaged(path, error) from error
    return _read_tensors(path, mmap=False)


def _read_tensors(path: Path, mmap: bool) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remark about other pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, or is damaged; nothing in it was run",
            "a torch file of plain tensors",
            "download it again from the authors, or ask them for safetensors",
        ) from error
    except RuntimeError as error:
        if mmap:
            raise
        raise _damaged(path, error) from error
    except (EOFError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> WeightsError:
    return WeightsError(
        f"{path} is truncated or not a torch file ({_one_line(error)})", "a complete download", DOWNLOAD
    )


def open_safetensors(path: Path):
    """`safetensors.safe_open` with our error."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), "pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is truncated or not a safetensors file ({_one_line(error)})", "a complete file", DOWNLOAD
        ) from error


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


def _load_safetensors(path: Path) -> Adapter:
    file = open_safetensors(path)
    metadata = file.metadata() or {}
    state = {key: file.get_tensor(key) for key in file.keys()}
    if metadata.get("format") != FORMAT:
        return _from_released(state, str(path), None)
    if int(metadata.get("version", 0)) > FORMAT_VERSION:
        raise WeightsError(f"{path} is format version {metadata['version']}", f"{FORMAT_VERSION}", "a newer ex4d")
    raw = json.loads(metadata["config"])
    config = AdapterConfig(**{**raw, "mask_affine": tuple(raw["mask_affine"])})
    lora = {key.removeprefix("lora."): value for key, value in state.items() if key.startswith("lora.")}
    geometry = {key.removeprefix("geometry."): value for key, value in state.items() if key.startswith("geometry.")}
    stray = sorted(key for key in state if not key.startswith(("lora.", "geometry.")))
    if stray:
        raise WeightsError(f"{path} has stray tensors, first {stray[:3]}", "an adapter file", "ex4d models verify")
    return _checked(Adapter(lora, geometry, config), str(path))


def _from_released(raw: Mapping[str, Any], source: str, alpha: float | None) -> Adapter:
    state = flat_state(raw, source)
    geometry = {key: value for key, value in state.items() if key in GEOMETRY_KEYS}
    lora, wrong = {}, []
    for key, value in state.items():
        if key in geometry:
            continue
        name = diffusers_key(key.replace(".default.weight", ".weight"))
        if name is None or not name.endswith((".lora_A.weight", ".lora_B.weight")):
            wrong.append(key)
        else:
            lora[name] = value
    if wrong:
        raise WeightsError(
            f"{source} is not an EX-4D adapter: {len(wrong)} unexpected keys, first {', '.join(sorted(wrong)[:3])}",
            "LoRA and latent_encoder keys",
            DOWNLOAD,
        )
    check_keys(geometry, GEOMETRY_KEYS, source, DOWNLOAD)
    if not lora:
        raise WeightsError(f"{source} has no LoRA tensors", "an EX-4D adapter", DOWNLOAD)
    rank = min(value.shape[0] for key, value in lora.items() if key.endswith("lora_A.weight"))
    if rank != RANK and alpha is None:
        raise InputError(
            f"{source} has LoRA rank {rank}, not the released {RANK}, and does not say its alpha",
            "the alpha it was trained with",
            "load_adapter(path, alpha=...), or the trainer's .safetensors, which says it",
        )
    patch = geometry["latent_patch_embedding.weight"]
    config = AdapterConfig(rank, ALPHA if alpha is None else alpha, int(patch.shape[1]), int(patch.shape[0]))
    return _checked(Adapter(lora, geometry, config), source)


def flat_state(raw: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The flat dict of tensors without wrappers and prefixes."""
    for wrapper in WRAPPERS:
        if isinstance(raw, Mapping) and isinstance(raw.get(wrapper), Mapping):
            raw = raw[wrapper]
    if not isinstance(raw, Mapping) or not all(isinstance(value, Tensor) for value in raw.values()):
        raise WeightsError(f"{source} is not a dict of tensors", "a state dict", DOWNLOAD)
    state = {str(key): value for key, value in raw.items()}
    for prefix in PREFIXES:
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if len(state) != len(raw):
        raise WeightsError(f"{source} names the same tensor twice under two prefixes", "one copy of each", DOWNLOAD)
    return state


def _checked(adapter: Adapter, source: str) -> Adapter:
    """Raise unless every LoRA pair has the config's rank and the encoder its widths."""
    config = adapter.config
    for key, value in adapter.lora.items():
        rank = value.shape[0] if key.endswith("lora_A.weight") else value.shape[1]
        if rank != config.rank:
            raise WeightsError(f"{source}: {key} has rank {rank}", f"rank {config.rank} everywhere", DOWNLOAD)
    patch = adapter.geometry.get("latent_patch_embedding.weight")
    check_keys(adapter.geometry, GEOMETRY_KEYS, source, DOWNLOAD)
    if patch is None or tuple(patch.shape[:2]) != (config.dim, config.hidden_channels):
        raise WeightsError(
            f"{source}: geometry encoder of width {None if patch is None else tuple(patch.shape[:2])}",
            f"({config.dim}, {config.hidden_channels}) as its config says",
            DOWNLOAD,
        )
    return adapter


def check_adapter_fits(adapter: Adapter, transformer, source: str = "adapter") -> None:
    """Raise WeightsError unless the adapter has exactly the tensors, of the widths, that this denoiser needs."""
    dim = transformer.dim
    if adapter.config.dim != dim:
        raise WeightsError(
            f"{source} was trained for a denoiser {adapter.config.dim} wide",
            f"{dim}, the width of this base model",
            "the base model it was trained on, or another adapter",
        )
    check_keys(adapter.lora, lora_keys(transformer), source, "the base model it was trained on")
    shapes = {name.replace(".base_layer", ""): tuple(p.shape) for name, p in transformer.named_parameters()}
    for key, value in adapter.lora.items():
        module, half = key.removesuffix(".weight").rsplit(".", 1)
        out_features, in_features = shapes[f"{module}.weight"]
        width, need = (value.shape[1], in_features) if half == "lora_A" else (value.shape[0], out_features)
        if width != need:
            raise WeightsError(f"{source}: {key} is {width} wide", f"{need}", "the base model it was trained on")


def apply_adapter(adapter: Adapter, transformer) -> GeometryEncoder:
    """Attach the LoRA with peft (unmerged) and return the geometry encoder."""
    from ex4d.models.wan.lora import attach_lora

    check_adapter_fits(adapter, transformer)
    attach_lora(transformer, adapter.config.rank, adapter.config.alpha)
    load_lora(transformer, adapter.lora)
    transformer.requires_grad_(False)
    return adapter.geometry_encoder()


def save_adapter(path: Path | str, adapter: Adapter, dtype: torch.dtype | None = None) -> None:
    """Write our safetensors format, whole or not at all."""
    from safetensors.torch import save_file

    _checked(adapter, "adapter")
    state = {f"lora.{key}": value for key, value in adapter.lora.items()}
    state |= {f"geometry.{key}": value for key, value in adapter.geometry.items()}
    state = {key: value.detach().to("cpu", dtype or value.dtype).contiguous() for key, value in sorted(state.items())}
    metadata = {"format": FORMAT, "version": str(FORMAT_VERSION), "config": json.dumps(asdict(adapter.config))}
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        save_file(state, str(temporary), metadata=metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def adapter_from_models(transformer, encoder: GeometryEncoder, config: AdapterConfig) -> Adapter:
    """The adapter that a trainer holds in an attached LoRA and an encoder."""
    from ex4d.models.wan.lora import lora_parameters

    lora = {key: value.detach().clone() for key, value in lora_parameters(transformer).items()}
    geometry = {key: value.detach().clone() for key, value in encoder.state_dict().items()}
    return Adapter(lora, geometry, replace(config, hidden_channels=encoder.hidden_channels, dim=encoder.dim))


def released_state(adapter: Adapter) -> dict[str, Tensor]:
    """The flat dict that the released `generate.py` loads: original names with `.default`."""
    state = {}
    for key, value in adapter.lora.items():
        original = original_key(key)
        assert original is not None, key
        state[original.replace(".weight", ".default.weight")] = value
    return {**state, **dict(adapter.geometry)}
