"""Frames to network input and output back to the frame, as each model's own settings file says; no torchvision."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ex4d.errors import WeightsError

Style = Literal["dpt", "depth_pro", "zoedepth"]

#: Pillow's numbers for resampling filters, as settings files give them.
RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}

#: ZoeDepth pads by 3 sqrt(side / 2) pixels, mirrored, against artefacts at the border.
ZOE_PADDING = 3


@dataclass(frozen=True)
class Preprocess:
    """What `preprocessor_config.json` says.

    Attributes:
        style: dpt (Depth Anything and its prompted kin): antialiased resize, then normalise. depth_pro: normalise, then
            resize without antialiasing. zoedepth: mirror padding, then resize with aligned corners.
        size_hw: Target (height, width).
        keep_aspect: Fit the side that changes least and scale the other with it.
        multiple: Sides become multiples of this.
        resample: Filter.
        mean, std: Normalisation of RGB in 0..1.
    """

    style: Style
    size_hw: tuple[int, int]
    keep_aspect: bool
    multiple: int
    resample: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def load(cls, folder: Path) -> Preprocess:
        """From a model's folder; WeightsError when the file is missing or of another kind."""
        path = folder / "preprocessor_config.json"
        try:
            return cls.of(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{path} cannot be used ({type(error).__name__}: {error})",
                "the model's own settings",
                "a whole copy of it",
            ) from error

    @classmethod
    def of(cls, config: Mapping) -> Preprocess:
        """From the settings themselves."""
        kind = str(config.get("image_processor_type", config.get("feature_extractor_type", "DPT")))
        style: Style = "zoedepth" if "Zoe" in kind else "depth_pro" if "DepthPro" in kind else "dpt"
        size = config["size"]
        # ZoeDepth's own default is written 1/32: its resize multiplies where others divide.
        multiple = config.get("ensure_multiple_of", 32 if style == "zoedepth" else 1)
        return cls(
            style,
            (int(size["height"]), int(size["width"])),
            bool(config.get("keep_aspect_ratio", style == "zoedepth")),
            round(1 / multiple) if 0 < multiple < 1 else int(multiple),
            RESAMPLE[int(config.get("resample", 2 if style != "dpt" else 3))],
            tuple(config.get("image_mean", (0.5, 0.5, 0.5))),
            tuple(config.get("image_std", (0.5, 0.5, 0.5))),
        )

    def network_size(self, size_hw: Sequence[int]) -> tuple[int, int]:
        """(height, width) the network sees for frames of this size (after padding, where there is any)."""
        scale_h, scale_w = self.size_hw[0] / size_hw[0], self.size_hw[1] / size_hw[1]
        if self.keep_aspect:
            scale_h = scale_w = scale_w if abs(1 - scale_w) < abs(1 - scale_h) else scale_h
        sides = (scale_h * size_hw[0], scale_w * size_hw[1])
        return tuple(max(self.multiple, round(side / self.multiple) * self.multiple) for side in sides)  # type: ignore[return-value]

    def __call__(self, frames: Tensor) -> Tensor:
        """[n, 3, height, width] uint8 to float32 network input."""
        x = frames.float() / 255
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (self.mean, self.std))
        if self.style == "zoedepth":
            pad_h, pad_w = self.padding(x.shape[-2:])
            x = F.pad(x, (pad_w, pad_w, pad_h, pad_h), mode="reflect")
            x = F.interpolate(x, self.network_size(x.shape[-2:]), mode=self.resample, align_corners=True)
            return (x - mean) / std
        size = self.network_size(x.shape[-2:])
        if self.style == "depth_pro":
            return F.interpolate((x - mean) / std, size, mode=self.resample, align_corners=False)
        x = F.interpolate(x, size, mode=self.resample, align_corners=False, antialias=True)
        # Their resize works on bytes: cut off the overshoot of the cubic filter and round.
        return ((x * 255).round().clamp(0, 255) / 255 - mean) / std

    def back(self, out: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Network output [n, h, w] at the frames' own size."""
        x = out[:, None]
        if self.style == "zoedepth":
            pad_h, pad_w = self.padding(size_hw)
            padded = (size_hw[0] + 2 * pad_h, size_hw[1] + 2 * pad_w)
            x = F.interpolate(x, padded, mode="bicubic", align_corners=False)
            return x[:, 0, pad_h : pad_h + size_hw[0], pad_w : pad_w + size_hw[1]]
        how = "bilinear" if self.style == "depth_pro" else "bicubic"
        return F.interpolate(x, size_hw, mode=how, align_corners=False)[:, 0]

    def padding(self, size_hw: Sequence[int]) -> tuple[int, int]:
        """Mirrored rows and columns on each side (ZoeDepth); never more than the picture can give."""
        return tuple(min(int(math.sqrt(side / 2) * ZOE_PADDING), side - 1) for side in size_hw)  # type: ignore[return-value]
