"""LPIPS from a local weights file: AlexNet or VGG16 features, unit-normalised, squared difference, learned channel weights.

The file is a state dict (.pt, .pth or .safetensors) in the naming of the `lpips` package: `net.slice1.0.weight` ...,
`lin0.model.1.weight` ... (Zhang et al. 2018). Which network it is shows in the shape of the first kernel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.errors import InputError, WeightsError
from ex4d.evaluate.metrics.image import check_pair

#: Layers of each slice: (convolution index in the file, stride, padding) or "pool".
ALEX = [
    [(0, 4, 2)],
    ["pool3", (3, 1, 2)],
    ["pool3", (6, 1, 1)],
    [(8, 1, 1)],
    [(10, 1, 1)],
]
VGG = [
    [(0, 1, 1), (2, 1, 1)],
    ["pool2", (5, 1, 1), (7, 1, 1)],
    ["pool2", (10, 1, 1), (12, 1, 1), (14, 1, 1)],
    ["pool2", (17, 1, 1), (19, 1, 1), (21, 1, 1)],
    ["pool2", (24, 1, 1), (26, 1, 1), (28, 1, 1)],
]

#: The package's input scaling, for pictures in -1..1.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips:
    """Perceptual distance; `name` says which file and network."""

    def __init__(self, path: Path | str) -> None:
        self.state = _read(Path(path))
        first = self.state.get("net.slice1.0.weight")
        if first is None:
            raise WeightsError(f"{path} has no net.slice1.0.weight", "LPIPS weights in the lpips package's naming")
        self.slices = ALEX if tuple(first.shape[2:]) == (11, 11) else VGG
        wanted = [
            f"net.slice{i + 1}.{layer[0]}.{part}"
            for i, s in enumerate(self.slices)
            for layer in s
            if not isinstance(layer, str)
            for part in ("weight", "bias")
        ]
        wanted += [f"lin{i}.model.1.weight" for i in range(5)]
        missing = [key for key in wanted if key not in self.state]
        if missing:
            raise WeightsError(
                f"{path} lacks {len(missing)} LPIPS tensors, first {missing[0]}", "the whole network and its lin layers"
            )
        self.name = f"{Path(path).name} ({'AlexNet' if self.slices is ALEX else 'VGG16'})"

    def __call__(self, a: np.ndarray, b: np.ndarray) -> float:
        """Distance of two uint8 RGB pictures [H, W, 3] of one size (0 = identical)."""
        import torch

        check_pair(a, b)
        least = 63 if self.slices is ALEX else 16
        if min(a.shape[:2]) < least:
            raise InputError(f"pictures of {a.shape[1]}x{a.shape[0]} for LPIPS", f"sides of {least} px or more")
        with torch.inference_mode():
            total = 0.0
            for i, (x, y) in enumerate(zip(self._features(a), self._features(b), strict=True)):
                difference = (x - y) ** 2
                total += float((difference * self.state[f"lin{i}.model.1.weight"][0]).sum(0).mean())
        return total

    def _features(self, picture: np.ndarray):
        import torch
        import torch.nn.functional as F

        x = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float()[None] / 127.5 - 1
        x = (x - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
        for i, layers in enumerate(self.slices):
            for layer in layers:
                if isinstance(layer, str):
                    x = F.max_pool2d(x, int(layer[-1]), 2)
                    continue
                index, stride, padding = layer
                key = f"net.slice{i + 1}.{index}"
                x = F.relu(F.conv2d(x, self.state[f"{key}.weight"], self.state[f"{key}.bias"], stride, padding))
            norm = torch.sqrt((x**2).sum(1, keepdim=True))
            yield (x / (norm + 1e-10))[0]


def _read(path: Path) -> dict:
    import torch

    if not path.is_file():
        raise WeightsError(f"{path} does not exist", "an LPIPS weights file", "--lpips FILE")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(str(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path} cannot be read ({type(error).__name__})", "a plain state dict") from error
    return {k: v.float() for k, v in state.items()}
