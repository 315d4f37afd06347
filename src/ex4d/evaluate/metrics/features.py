"""Feature networks for FID, KID and FVD: a local TorchScript file, or ready features; never downloaded.

The field's own files work as they are: the TorchScript Inception of StyleGAN (`inception-2015-12-05.pt`, called with
`return_features=True` on uint8) and the TorchScript I3D of StyleGAN-V (`i3d_torchscript.pt`, called with `rescale=True,
resize=True, return_features=True`). Any other TorchScript file is called with one float tensor in 0..1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from ex4d.errors import InputError, WeightsError

#: Clips an I3D needs at least this many frames of.
FVD_FRAMES = 16


class Features(Protocol):
    """Turns clips into feature vectors; `name` goes into every report, for numbers of different networks never compare."""

    name: str

    def of_frames(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [T, H, W, 3] -> float [T, d]."""
        ...

    def of_clip(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [T, H, W, 3] -> float [d]."""
        ...


class TorchScriptFeatures:
    """A TorchScript module from a local file (see the module docstring)."""

    def __init__(self, path: Path | str, device: str = "cpu", batch: int = 16) -> None:
        import torch

        self.path, self.device, self.batch = Path(path), device, batch
        if not self.path.is_file():
            raise WeightsError(f"{path} does not exist", "a TorchScript feature network", "--features FILE.pt")
        try:
            self.module = torch.jit.load(str(self.path), map_location=device).eval()
        except RuntimeError as error:
            raise WeightsError(
                f"{path} is not TorchScript ({str(error).splitlines()[0][:80]})", "torch.jit.save'd weights"
            ) from error
        arguments = {a.name for a in self.module.forward.schema.arguments}
        self.kind = "i3d" if "rescale" in arguments else "inception" if "return_features" in arguments else "plain"
        self.name = f"{self.path.name} ({self.kind})"

    def _call(self, x) -> np.ndarray:
        import torch

        with torch.inference_mode():
            if self.kind == "i3d":
                out = self.module(x, rescale=True, resize=True, return_features=True)
            elif self.kind == "inception":
                out = self.module(x, return_features=True)
            else:
                out = self.module(x.float() / 255)
        return out.flatten(1).float().cpu().numpy()

    def of_frames(self, frames: np.ndarray) -> np.ndarray:
        """[T, d] (a clip network sees every frame as a still clip and is refused)."""
        import torch

        if self.kind == "i3d":
            raise InputError(
                f"{self.name} for single frames", "a picture network", "--features inception-2015-12-05.pt"
            )
        x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).to(self.device)
        return np.concatenate([self._call(part) for part in x.split(self.batch)])

    def of_clip(self, frames: np.ndarray) -> np.ndarray:
        """[d]; a picture network gives the mean over frames."""
        import torch

        if self.kind != "i3d":
            return self.of_frames(frames).mean(0)
        if len(frames) < FVD_FRAMES:
            raise InputError(f"a clip of {len(frames)} frames for FVD", f"{FVD_FRAMES} frames or more")
        x = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float().to(self.device)
        return self._call(x)[0]


class RandomFeatures:
    """An untrained convolution network with fixed weights: for tests and for watching one's own changes, offline.

    Its numbers order gross damage but are not anyone's FID or FVD; the name says so wherever they are shown.
    """

    name = "untrained network (not comparable to published numbers)"

    def __init__(self, width: int = 32) -> None:
        rng = np.random.Generator(np.random.PCG64(0))
        self.kernels = [
            (rng.standard_normal((width, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))).astype(np.float32)
            for inputs in (3, width, width)
        ]

    def of_frames(self, frames: np.ndarray) -> np.ndarray:
        """[T, 2 * width]: means and deviations of the last layer over the picture."""
        import torch
        import torch.nn.functional as F

        x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = F.interpolate(x, size=(96, 96), mode="area")
        for kernel in self.kernels:
            x = F.relu(F.conv2d(x, torch.from_numpy(kernel), stride=2, padding=1))
        return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1).numpy()

    def of_clip(self, frames: np.ndarray) -> np.ndarray:
        """[4 * width]: the frames' mean and the mean size of their changes."""
        features = self.of_frames(frames)
        change = np.abs(np.diff(features, axis=0)).mean(0) if len(features) > 1 else np.zeros_like(features[0])
        return np.concatenate([features.mean(0), change])


def load_features(spec: str) -> Features:
    """`random`, or the path of a TorchScript file."""
    return RandomFeatures() if spec == "random" else TorchScriptFeatures(spec)


def read_features(path: Path | str) -> np.ndarray:
    """Ready features [n, d] from .npy or .npz (key `features`)."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist", "a .npy or .npz of features [n, d]")
    data = np.load(path, allow_pickle=False)
    if isinstance(data, np.lib.npyio.NpzFile):
        if "features" not in data:
            raise InputError(f"{path} holds {', '.join(data.files)}", "an array named features")
        data = data["features"]
    if data.ndim != 2:
        raise InputError(f"{path} holds an array of shape {data.shape}", "features [n, d]")
    return data
