"""Clips with depth on the training device: a ring of rendered scenes, a ring of ray cast rooms, and batches made from them there."""

from __future__ import annotations

import math
import threading
import zipfile
from collections import deque
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: Depths that count, metres: nearer and farther ones (sky) are clamped.
NEAREST, FARTHEST = 0.2, 60.0


class Ring:
    """The newest `limit` clips: uint8 [N, T, 3, H, W] and float16 depth [N, T, H, W]; older ones are overwritten."""

    def __init__(self, limit: int, frames: int, size_hw: tuple[int, int], device: str) -> None:
        self.color = torch.zeros(limit, frames, 3, *size_hw, dtype=torch.uint8, device=device)
        self.depth = torch.ones(limit, frames, *size_hw, dtype=torch.float16, device=device)
        self.limit, self.added = limit, 0

    def __len__(self) -> int:
        return min(self.added, self.limit)

    def add(self, color: Tensor, depth: Tensor) -> None:
        """uint8 [n, T, 3, H, W] and depth [n, T, H, W]."""
        at = (torch.arange(len(color)) + self.added) % self.limit
        at = at.to(self.color.device)
        self.color[at], self.depth[at] = color.to(self.color.device), depth.to(self.depth.device, torch.float16)
        self.added += len(color)

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        at = torch.randint(len(self), (n,), device=self.color.device)
        return self.color[at], self.depth[at]


class SceneFiles:
    """Reads the files of depth_scenes.py in a thread as they come; `take` hands over what is ready. A bad file is left out.

    Args:
        folder: Where they appear.
        share: (k, n): take every n-th file only, from the k-th on (one part for each process).
    """

    def __init__(self, folder: Path, frames: int, size_hw: tuple[int, int], share: tuple[int, int] = (0, 1)) -> None:
        self.folder, self.frames, self.size_hw, self.share = folder, frames, size_hw, share
        self.ready: deque[tuple[Tensor, Tensor]] = deque()
        self.read, self.bad = set[str](), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        tries: dict[str, int] = {}
        while not self._stop.is_set():
            new = [p for p in sorted(self.folder.glob("[0-9]*.npz")) if p.name not in self.read]
            new = [p for p in new if int(p.stem) % self.share[1] == self.share[0]]
            for path in new:
                while len(self.ready) > 200 and not self._stop.is_set():
                    self._stop.wait(0.02)
                if self._stop.is_set():
                    return
                try:
                    color, depth = read_scene(path)
                    if color.shape[1] != self.frames or tuple(color.shape[-2:]) != self.size_hw:
                        raise ValueError(f"shape {tuple(color.shape)}")
                except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                    tries[path.name] = tries.get(path.name, 0) + 1
                    if tries[path.name] >= 3:
                        self.read.add(path.name)
                        self.bad += 1
                        print(f"left out {path.name}: {error}", flush=True)
                    continue
                self.read.add(path.name)
                self.ready.append((color, depth))
            self._stop.wait(0.5)

    def take(self, ring: Ring, at_most: int) -> None:
        """Move up to `at_most` scenes into the ring."""
        for _ in range(min(at_most, len(self.ready))):
            ring.add(*self.ready.popleft())

    def stop(self) -> None:
        self._stop.set()


def read_scene(path: Path) -> tuple[Tensor, Tensor]:
    """uint8 [views, T, 3, px, px] and float16 depth [views, T, px, px] of one file."""
    with np.load(path) as data:
        color, depth = data["color"], data["depth"]
    if not (np.nan_to_num(depth.astype(np.float32), posinf=FARTHEST) > 0).all():
        raise ValueError("depth that is not positive")
    return torch.from_numpy(np.ascontiguousarray(color.transpose(0, 1, 4, 2, 3))), torch.from_numpy(depth)


def cropped(color: Tensor, depth: Tensor, size_hw: tuple[int, int], smallest: float = 0.5) -> tuple[Tensor, Tensor]:
    """One random window a clip (place, scale, aspect, a little roll, flip, direction of time), resampled to `size_hw`.

    color uint8 [B, T, 3, H, W], depth [B, T, H, W]; returns float [B, T, 3, h, w] in 0..1 and float32 depth [B, T, h, w], 0 where not known.
    Depth is along the optical axis, so a roll about it leaves the values as they are.
    """
    B, T, _, H, W = color.shape
    h, w = size_hw
    r = torch.rand(B, 8, device=color.device)
    aspect = torch.exp(0.25 * (r[:, 0] - 0.5)) * (w / h)
    angle = (r[:, 1] - 0.5) * math.radians(24) * (r[:, 2] < 0.5)
    # the largest window of this aspect and roll that lies inside the picture
    c, s = angle.cos().abs(), angle.sin().abs()
    high = torch.minimum(W / (aspect * c + s), H / (aspect * s + c))
    high = high * (smallest + (1 - smallest) * r[:, 3].sqrt())
    wide = high * aspect
    margin_x, margin_y = (W - (wide * c + high * s)).clamp_min(0) / 2, (H - (wide * s + high * c)).clamp_min(0) / 2
    cx, cy = W / 2 + (2 * r[:, 4] - 1) * margin_x, H / 2 + (2 * r[:, 5] - 1) * margin_y
    flip = torch.where(r[:, 6] < 0.5, -1.0, 1.0)
    ys = (torch.arange(h, device=color.device) + 0.5) / h - 0.5
    xs = (torch.arange(w, device=color.device) + 0.5) / w - 0.5
    u = (xs[None, None] * (wide * flip)[:, None, None]).expand(B, h, w)
    v = (ys[None, :, None] * high[:, None, None]).expand(B, h, w)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x, y = cx[:, None, None] + cos * u - sin * v, cy[:, None, None] + sin * u + cos * v
    grid = torch.stack([x / W * 2 - 1, y / H * 2 - 1], -1)
    back = (r[:, 7] < 0.5)[:, None, None, None]
    color = torch.where(back[..., None], color.flip(1), color)
    depth = torch.where(back, depth.flip(1), depth)
    video = F.grid_sample(color.flatten(1, 2).float() / 255, grid, padding_mode="border", align_corners=False)
    z = depth.float()
    z = torch.where(z > 0, z.clamp(NEAREST, FARTHEST), 0)  # not known: 0; nothing there, +inf: far
    z = F.grid_sample(z, grid, mode="nearest", padding_mode="border", align_corners=False)
    return video.unflatten(1, (T, 3)), z


def changed(video: Tensor) -> Tensor:
    """Gamma, gain, tint, saturation, light falloff; blur, noise, blocks of a third each: the look must not tell the renderer.

    [B, T, 3, h, w] in 0..1. What is damaged stays readable: heavier blur and noise hid the shading and the small things that depth is
    read from, and learning stood still.
    """
    B, T, _, h, w = video.shape
    device = video.device

    def rand(*shape: int) -> Tensor:
        return torch.rand(B, *shape, device=device).view(B, *[1] * (5 - 1 - len(shape)), *shape)

    video = video.clamp(0, 1) ** torch.exp(0.9 * (rand() - 0.5))
    video = video * (1 + 0.3 * (torch.rand(B, 1, 3, 1, 1, device=device) - 0.5))
    grey = video.mean(2, keepdim=True)
    video = grey + (video - grey) * torch.where(rand() < 0.1, 0.0, 1.5 * rand())
    order = torch.rand(B, 3, device=device).argsort(1)
    order = torch.where(torch.rand(B, 1, device=device) < 0.25, order, torch.arange(3, device=device))
    video = video.gather(2, order.view(B, 1, 3, 1, 1).expand_as(video))
    mean = video.mean((1, 2, 3, 4), keepdim=True)
    video = (video - mean) * (0.6 + 0.8 * rand()) + mean + 0.25 * (rand() - 0.5)
    # uneven light over the picture, drifting exposure over time
    y = torch.linspace(-1, 1, h, device=device).view(1, 1, 1, h, 1)
    x = torch.linspace(-1, 1, w, device=device).view(1, 1, 1, 1, w)
    slope = 0.3 * (torch.rand(B, 2, 1, 1, 1, 1, device=device) - 0.5)
    video = video * (1 + slope[:, 0] * x + slope[:, 1] * y - 0.25 * rand() * (x * x + y * y) / 2)
    time = torch.linspace(-1, 1, T, device=device).view(1, T, 1, 1, 1)
    video = video * (1 + 0.12 * (rand() - 0.5) * time)
    # blur: one strength a clip
    sigma = 0.3 + 1.0 * torch.rand(B, device=device) ** 2
    taps = torch.exp(-0.5 * (torch.arange(-3, 4, device=device) / sigma[:, None]) ** 2)
    taps = taps / taps.sum(1, keepdim=True)
    groups = video.reshape(B, T * 3, h, w).transpose(0, 1)  # [T*3, B, h, w]: a kernel a clip
    groups = F.pad(groups, (3, 3, 3, 3), mode="replicate")  # zeros would frame blurred clips in black
    soft = F.conv2d(F.conv2d(groups, taps.view(B, 1, 1, 7), groups=B), taps.view(B, 1, 7, 1), groups=B)
    video = torch.where(rand() < 0.35, soft.transpose(0, 1).reshape(B, T, 3, h, w), video)
    # noise, fine and coarse
    amount = 0.045 * rand() ** 2 * (rand() < 0.5)
    coarse = F.interpolate(torch.randn(B * T, 3, h // 4, w // 4, device=device), (h, w), mode="bilinear").view_as(video)
    video = video + amount * torch.randn_like(video) + 0.4 * amount * coarse
    return torch.where(rand() < 0.25, _blocks(video, 0.01 + 0.05 * rand() ** 2), video).clamp(0, 1)


def _blocks(video: Tensor, step: Tensor) -> Tensor:
    """Rounds the 8x8 cosine coefficients, high frequencies coarser, as JPEG does. Sides divisible by 8."""
    k = torch.arange(8, device=video.device, dtype=video.dtype)
    basis = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    basis[0] /= math.sqrt(2)
    h, w = video.shape[-2:]
    cells = video.unflatten(-1, (w // 8, 8)).unflatten(-3, (h // 8, 8)).transpose(-3, -2)  # [..., h/8, w/8, 8, 8]
    coarse = step[..., None, None, None] if step.ndim == 3 else step.view(-1, 1, 1, 1, 1, 1, 1)
    quantum = coarse * (1 + k[:, None] + k[None])
    spectrum = basis @ cells @ basis.T
    back = basis.T @ ((spectrum / quantum).round() * quantum) @ basis
    return back.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)
