"""One frame at a time: transformers' depth models behind one face, each giving its own kind of map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from ex4d.depth.estimators.preprocess import Preprocess
from ex4d.errors import WeightsError
from ex4d.models.depth.cards import Family
from ex4d.types import DepthKind

#: Depth Pro's limits on its canonical inverse depth (transformers' post-processing): 0.1 mm to 10 km.
DEPTH_PRO_INVERSE = (1e-4, 1e4)

_CLASSES: dict[str, str] = {
    "depth_anything": "DepthAnythingForDepthEstimation",
    "depth_pro": "DepthProForDepthEstimation",
    "zoedepth": "ZoeDepthForDepthEstimation",
    "prompt_depth_anything": "PromptDepthAnythingForDepthEstimation",
}


@dataclass(frozen=True)
class FrameModel:
    """A network, its preprocessing, and what its numbers mean.

    Attributes:
        network: The transformers model, in eval mode.
        preprocess: From the same folder.
        family: Which of the known kinds it is.
        kind: disparity, or metric.
    """

    network: Any
    preprocess: Preprocess
    family: Family
    kind: DepthKind

    @torch.inference_mode()
    def __call__(
        self,
        frames: UInt8[np.ndarray, "n height width 3"],
        prompt: Float32[np.ndarray, "n h w"] | None = None,
        focal_px: float | None = None,
    ) -> tuple[Float32[np.ndarray, "n height width"], Float32[np.ndarray, " n"] | None]:
        """(maps at the frames' size, focal length in pixels per frame where the model says it).

        Args:
            prompt: Coarse metric depth of each frame, for models that take it.
            focal_px: Known focal length in pixels of the frames; Depth Pro's metres are then for that camera.
        """
        device, dtype = next(self.network.parameters()).device, self.network.dtype
        pixels = self.preprocess(torch.from_numpy(frames).permute(0, 3, 1, 2).to(device)).to(dtype)
        more = {} if prompt is None else {"prompt_depth": torch.from_numpy(prompt)[:, None].to(device, dtype)}
        out = self.network(pixel_values=pixels, **more)
        size_hw = (frames.shape[1], frames.shape[2])
        maps, focal = out.predicted_depth.float(), None
        if self.family == "depth_pro":
            maps, focal = depth_pro_inverse(maps, getattr(out, "field_of_view", None), size_hw[1], focal_px)
            maps = 1 / self.preprocess.back(maps, size_hw).clamp(*DEPTH_PRO_INVERSE)
        else:
            maps = self.preprocess.back(maps, size_hw)
        return maps.cpu().numpy(), None if focal is None else focal.cpu().numpy()


def depth_pro_inverse(
    canonical: Tensor, fov_deg: Tensor | None, width: int, focal_px: float | None
) -> tuple[Tensor, Tensor | None]:
    """(inverse depth in 1/metres, focal length in pixels): canonical inverse depth times width over focal length."""
    if focal_px is not None:
        focal = torch.full((len(canonical),), float(focal_px), device=canonical.device)
    elif fov_deg is not None:
        focal = 0.5 * width / torch.tan(0.5 * torch.deg2rad(fov_deg.float().reshape(-1)))
    else:
        return canonical, None
    return canonical * (width / focal)[:, None, None], focal


def load_frame_model(folder: Path, family: Family, device: str, dtype: torch.dtype) -> FrameModel:
    """From a folder in transformers' layout, offline.

    Raises:
        WeightsError: Missing files, weights of another model, or keys that do not fit.
    """
    import transformers

    cls = getattr(transformers, _CLASSES[family])
    try:
        network, info = cls.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
    except Exception as error:  # config checks, safetensors and torch each raise their own kind
        raise WeightsError(
            f"{folder} does not hold a {family} model ({str(error).strip().splitlines()[0]})",
            "config.json and model.safetensors of that model",
            "ex4d models list",
        ) from error
    wrong = [*info["missing_keys"], *(key for key in info["mismatched_keys"])]
    if wrong or network.config.model_type not in (family, family.replace("_", "")):
        raise WeightsError(
            f"{folder} holds a {network.config.model_type} that does not fit {family} ({len(wrong)} keys, first {wrong[:1]})",
            "weights of that model",
            "ex4d models list",
        )
    return FrameModel(network.to(device).eval(), Preprocess.load(folder), family, kind_of(network.config, family))


def kind_of(config: Any, family: Family) -> DepthKind:
    """What a model's numbers mean."""
    if family == "depth_anything" and config.depth_estimation_type == "relative":
        return "disparity"
    return "metric"
