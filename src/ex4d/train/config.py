"""What `ex4d train run` reads: one YAML file, strict in every key, each choice beside a sentence that says what it does."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from ex4d.errors import InputError
from ex4d.train.mixture import MixtureConfig
from ex4d.train.objective import ObjectiveConfig


@dataclass(frozen=True)
class DataConfig:
    """The cached latents."""

    #: Folder of WebDataset shards, as `ex4d train prepare` writes them.
    path: str
    #: Share of the clips kept out of training, for validation; chosen by the hash of the clip, so more data moves none.
    held_out: float = 0.05
    #: Where the latents live: "device" (all in the accelerator's memory), "stream" (memory-mapped, pinned, prefetched),
    #: or "auto" (on the device when they fill less than a third of it).
    resident: Literal["auto", "device", "stream"] = "auto"
    #: Batches prepared ahead when streaming.
    prefetch: int = 4


@dataclass(frozen=True)
class ModelConfig:
    """What is trained, and on what."""

    #: "adapter": LoRA and geometry encoder on a frozen base; "whole": every weight of a small model, from `whole`'s sizes
    #: or from the folder `base`; "base": the same without geometry encoder.
    train: Literal["adapter", "whole", "base"] = "adapter"
    #: Folder of a `WanTransformer3DModel` (config.json and safetensors, sharded or not); "" builds it from `sizes`.
    base: str = ""
    #: `WanTransformer3DModel` arguments for a model built here, with random weights of the run's seed.
    sizes: dict[str, Any] = field(default_factory=dict)
    #: Rank and alpha of the LoRA (released: 16, 16).
    lora_rank: int = 16
    lora_alpha: float = 16.0
    #: Width of the geometry encoder's hidden layers (released: 1024).
    geometry_hidden: int = 1024
    #: Share of examples trained without text (METHOD 9.2 suggests half, when captions vary; the released trainer has none).
    text_dropout: float = 0.0
    #: Folder of an `AutoencoderKLWan`, to decode sample videos; "" writes none.
    vae: str = ""


@dataclass(frozen=True)
class LoopConfig:
    """The loop: optimiser, precision, what is kept and when."""

    steps: int = 10_000
    #: Examples per device and forward pass.
    batch: int = 1
    #: Forward passes summed into one step.
    accumulate: int = 1
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    #: Steps over which the learning rate rises from zero, at the start and after a weights-only restart.
    warmup: int = 100
    #: "constant", or "cosine" down to a twentieth at `steps`.
    decay: Literal["constant", "cosine"] = "constant"
    #: Gradient norm above which the gradient is scaled down.
    clip_norm: float = 1.0
    #: Decay of the averaged weights; 0 keeps none.
    ema: float = 0.999
    #: "bf16": autocast with float32 trained weights; "fp32".
    precision: Literal["bf16", "fp32"] = "bf16"
    #: Recompute each block's activations in the backward pass.
    activation_checkpointing: bool = True
    #: torch.compile the repeated blocks (CUDA).
    compile: bool = False
    seed: int = 0
    #: Steps between checkpoints, and how many of the newest are kept; every `keep_every`-th step is kept for good (0: none).
    checkpoint_every: int = 500
    keep_last: int = 2
    keep_every: int = 0
    #: Steps between validations on the held-out clips (0: never), and how many examples each one uses.
    validate_every: int = 500
    validate_examples: int = 32
    #: Steps between sample videos (0: never).
    sample_every: int = 0
    log_every: int = 10
    #: Stop after this many skipped steps in a row: the run has diverged.
    max_skipped: int = 50
    #: TensorBoard events beside log.jsonl, when the package is installed.
    tensorboard: bool = True
    #: "ddp" or "fsdp2" when started on several devices.
    parallel: Literal["ddp", "fsdp2"] = "ddp"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "checkpoint_every", "keep_last", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"loop.{name} {getattr(self, name)}", "at least 1", f"{name}: 1")
        if not 0 <= self.ema < 1:
            raise InputError(f"loop.ema {self.ema}", "0 (none) up to below 1", "ema: 0.999")
        if not self.lr > 0 or not self.clip_norm > 0:
            raise InputError(f"loop.lr {self.lr}, loop.clip_norm {self.clip_norm}", "both above 0", "lr: 1e-4")


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


#: Keys of `loop` that may differ between a run and its resumption: none changes what a given step computes.
FREE_LOOP_KEYS = frozenset(
    {"steps", "checkpoint_every", "keep_last", "keep_every", "validate_every", "validate_examples", "sample_every"}
    | {"log_every", "max_skipped", "tensorboard", "compile", "activation_checkpointing", "parallel"}
)


def identity_of(config: TrainConfig) -> dict[str, Any]:
    """The part of a configuration that a resumed run must share with the checkpoint, as plain values.

    `steps` is free under a constant learning rate only.
    """
    record = json.loads(json.dumps(asdict(config)))
    free = FREE_LOOP_KEYS if config.loop.decay == "constant" else FREE_LOOP_KEYS - {"steps"}
    record["loop"] = {k: v for k, v in record["loop"].items() if k not in free}
    for key in ("path", "resident", "prefetch"):
        record["data"].pop(key)
    for key in ("base", "vae"):  # folders move; the base's own identity is checked by its weights' names and shapes
        record["model"].pop(key)
    return record


def load_config(path: Path) -> TrainConfig:
    """Read a YAML (or JSON) configuration; InputError names the first wrong key or value."""
    import yaml

    path = Path(path)
    if not path.is_file():
        raise InputError(f"no configuration at {path}", "a YAML file", "recipes/ has examples")
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML ({error})", "a YAML mapping", "recipes/ has examples") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} holds no mapping", "sections data, model, objective, mixture, loop", "recipes/")
    return parse(TrainConfig, record, str(path))


def parse(cls: type, record: dict[str, Any], where: str) -> Any:
    """A dataclass from a mapping: unknown, missing and wrongly typed keys are InputErrors that name themselves."""
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(set(record) - set(known)):
        raise InputError(f"{where}: unknown key {unknown[0]!r}", f"one of {', '.join(known)}", f"remove {unknown[0]}")
    values = {}
    for name, f in known.items():
        if name in record:
            values[name] = _value(hints[name], record[name], f"{where}: {name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise InputError(f"{where}: {name} is missing", f"the key {name}", f"add {name}: ...")
    return cls(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise InputError(f"{where} is {value!r}", "a mapping of its keys", "recipes/ has examples")
        return parse(hint, value, where)
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise InputError(f"{where} is {value!r}", f"one of {', '.join(map(str, typing.get_args(hint)))}", "")
        return value
    if origin in (tuple, list):
        args = typing.get_args(hint)
        if not isinstance(value, list | tuple) or (args[-1] is not Ellipsis and len(value) != len(args)):
            raise InputError(f"{where} is {value!r}", f"a list of {len(args)} values", "")
        return tuple(
            _value(args[min(i, len(args) - 1) if args[-1] is not Ellipsis else 0], v, where)
            for i, v in enumerate(value)
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where} is {value!r}", "a mapping", "")
        inner = typing.get_args(hint)[1]
        return dict(value) if inner is Any else {k: _value(inner, v, f"{where}.{k}") for k, v in value.items()}
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _value(typing.get_args(hint)[0], value, where)
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    try:
        if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)  # YAML 1.1 reads 1e-4 as text
        if hint is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if hint in (bool, str) and isinstance(value, hint):
            return value
    except ValueError:
        pass
    raise InputError(f"{where} is {value!r}", wanted.get(hint, str(hint)), "")
