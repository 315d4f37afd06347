"""What a finished run hands to the rest of the package: an adapter that `generate` loads at once, or a whole small model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ex4d.errors import InputError
from ex4d.models.wan.files.adapter import AdapterConfig, adapter_from_models, save_adapter
from ex4d.system.atomic import written_whole
from ex4d.train.task import like, trained_parameters, with_weights

if TYPE_CHECKING:
    from torch import Tensor

    from ex4d.train.config import TrainConfig
    from ex4d.train.flow import FlowModule


def export_flow(module: FlowModule, weights: Mapping[str, Tensor], out: Path, config: TrainConfig) -> list[Path]:
    """Write OUT/adapter.safetensors, or OUT/transformer/ and OUT/geometry_encoder.safetensors of a whole model (bfloat16).

    Args:
        weights: Trained tensors by name, usually the averaged ones.
    """
    from safetensors.torch import save_file

    parameters = trained_parameters(module)
    if any(hasattr(p, "device_mesh") for p in parameters.values()):
        raise InputError("export of a sharded model", "one process", "ex4d train export RUN")
    laid_out = {name: like(weights[name].float(), p) for name, p in parameters.items()}
    files = []
    with with_weights(parameters, laid_out):
        if config.model.train == "adapter":
            path = Path(out) / "adapter.safetensors"
            extra = {"objective": asdict(config.objective), "mixture": asdict(config.mixture)}
            settings = AdapterConfig(
                config.model.lora_rank, config.model.lora_alpha, base=config.model.base, extra=extra
            )
            save_adapter(path, adapter_from_models(module.transformer, module.geometry_encoder, settings))  # type: ignore[arg-type]
            return [path]
        folder = Path(out) / "transformer"
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / "config.json", folder / "diffusion_pytorch_model.safetensors"]
        with written_whole(files[1]) as temporary:
            save_file(_bf16(module.transformer), temporary, metadata={"format": "pt"})
        module.transformer.save_config(folder)  # type: ignore[operator]
        if module.geometry_encoder is not None:
            files.append(Path(out) / "geometry_encoder.safetensors")
            with written_whole(files[-1]) as temporary:
                save_file(_bf16(module.geometry_encoder), temporary)
    return files


def _bf16(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().to("cpu", torch.bfloat16).contiguous() for name, t in module.state_dict().items()}
