"""DepthCrafter's overlapping windows: which frames, which noise, how they are joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ex4d.errors import InputError
from ex4d.models.depth.depth_crafter import CrafterParts, predict

#: Called after each denoising step with (window, step).
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Windows:
    """How a clip is cut: windows of `size` frames that share `overlap` with the one before. Released: 110 and 25."""

    size: int = 110
    overlap: int = 25

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            raise InputError(
                f"a window of {self.size} frames with an overlap of {self.overlap}",
                "0 <= overlap < window",
                "--window 110 --overlap 25",
            )

    def for_clip(self, num_frames: int) -> Windows:
        """A clip that fits in one window is one window."""
        return Windows(num_frames, 0) if num_frames <= self.size else self

    def starts(self, num_frames: int) -> list[int]:
        """First frame of each window; the last window may be shorter."""
        return list(range(0, max(num_frames - self.overlap, 1), self.size - self.overlap))


@dataclass(frozen=True)
class Denoiser:
    """Euler steps of one window at a time.

    Attributes:
        parts: The networks.
        num_steps: Denoising steps; released 5.
        guidance: Above 1, a second pass without image conditioning; released 1 (none).
    """

    parts: CrafterParts
    num_steps: int = 5
    guidance: float = 1.0

    def sigmas(self, device: torch.device | str) -> Tensor:
        """Noise levels of the steps, ending in 0; sets the scheduler up."""
        self.parts.scheduler.set_timesteps(self.num_steps, device=device)
        return self.parts.scheduler.sigmas

    def run(self, latents: Tensor, condition: Tensor, embeddings: Tensor, on_step: Callable[[int], None]) -> Tensor:
        """Final latents [1, time, 4, h, w].

        Args:
            latents: [1, time, 4, h, w], already at the first noise level.
            condition: VAE latents of the frames, same shape.
            embeddings: [1, time, channels].
        """
        scheduler, unet = self.parts.scheduler, self.parts.unet
        scheduler.set_timesteps(self.num_steps, device=latents.device)
        for index, timestep in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(latents, timestep)
            out = predict(unet, torch.cat([scaled, condition], dim=2), timestep, embeddings)
            if self.guidance > 1:
                blank = torch.cat([scaled, torch.zeros_like(condition)], dim=2)
                plain = predict(unet, blank, timestep, torch.zeros_like(embeddings))
                out = plain + self.guidance * (out - plain)
            latents = scheduler.step(out, timestep, latents, return_dict=False)[0]
            on_step(index)
        return latents


def denoise_windows(
    denoiser: Denoiser,
    windows: Windows,
    noise: Tensor,
    condition: Tensor,
    embeddings: Tensor,
    *,
    kept: Callable[[int], Tensor | None] = lambda _window: None,
    keep: Callable[[int, Tensor], None] = lambda _window, _latents: None,
    on_step: OnStep = lambda _window, _step: None,
) -> Iterator[Tensor]:
    """Stitched latents [n, 4, h, w] (on the CPU) as soon as no later window changes them, in order.

    Args:
        windows: Already fitted to the clip (`for_clip`).
        noise: [1, window, 4, h, w], unit variance, float32 or the networks' dtype, on the device.
        condition: [1, time, 4, h, w] on the CPU or the device.
        embeddings: [1, time, channels] likewise.
        kept, keep: Load and store a window's final latents, for resuming.
    """
    num_frames, device = condition.shape[1], noise.device
    sigma_first = denoiser.sigmas(device)[0]
    scale = denoiser.parts.scheduler.init_noise_sigma
    noise = noise * scale
    stride, overlap = windows.size - windows.overlap, windows.overlap
    weight = torch.linspace(0, 1, overlap, device=device, dtype=noise.dtype)[None, :, None, None, None]
    tail: Tensor | None = None  # stitched latents of the frames that the next window sees again
    for index, start in enumerate(windows.starts(num_frames)):
        stop = min(start + windows.size, num_frames)
        current = noise[:, : stop - start].clone()
        noise = torch.cat([noise[:, windows.size - overlap :], noise[:, :stride]], dim=1)
        if tail is not None and overlap:
            current[:, :overlap] = tail + current[:, :overlap] / scale * sigma_first
        done = kept(index)
        if done is None:
            done = denoiser.run(
                current,
                condition[:, start:stop].to(device),
                embeddings[:, start:stop].to(device),
                lambda step, window=index: on_step(window, step),
            )
            keep(index, done)
        done = done.to(device)
        if tail is not None and overlap:
            done[:, :overlap] = done[:, :overlap] * weight + tail * (1 - weight)
        last = stop == num_frames
        final = done if last or not overlap else done[:, :-overlap]
        tail = None if last or not overlap else done[:, -overlap:].clone()
        yield final[0].cpu()
