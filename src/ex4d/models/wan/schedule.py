"""The release's noise schedule: flow matching, shift 5, plain Euler (METHOD 6.6).

Stock `set_timesteps(n)` shifts `sigma_min` twice and ends 0.15 off in sigma, so the subclass hands the spacing over itself.
"""

from __future__ import annotations

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from ex4d.errors import InputError

#: EX-4D release: the time shift its sampler uses for every size and length.
SHIFT = 5.0
#: Sigma 1 is called timestep 1000 by the Wan denoiser.
TIMESTEPS_PER_SIGMA = 1000.0


def check_steps(num_steps: int) -> None:
    """Raise InputError unless at least one step is asked for."""
    if num_steps < 1:
        raise InputError(f"{num_steps} denoising steps", "1 or more", "--steps 25, or 4 with a distilled LoRA")


def flow_sigmas(num_steps: int, shift: float = SHIFT) -> torch.Tensor:
    """Noise levels float32 [num_steps + 1]: 1 first, the final 0 included.

    Source: s = linspace(1, 0, n + 1) without its last, sigma = shift s / (1 + (shift - 1) s).
    """
    check_steps(num_steps)
    s = torch.linspace(1, 0, num_steps + 1, dtype=torch.float32)[:-1]
    return torch.cat([shift * s / (1 + (shift - 1) * s), torch.zeros(1)])


def flow_timesteps(sigmas: torch.Tensor) -> torch.Tensor:
    """What the denoiser is told: 1000 sigma, float32, not rounded; the final 0 is left out."""
    return sigmas[:-1] * TIMESTEPS_PER_SIGMA


def euler_step(latents: torch.Tensor, velocity: torch.Tensor, sigma: torch.Tensor, sigma_next: torch.Tensor):
    """One step along `velocity` = noise - clean, in the latents' own float32."""
    return latents + velocity.to(latents.dtype) * (sigma_next - sigma)


class Ex4dScheduler(FlowMatchEulerDiscreteScheduler):
    """The same schedule for stock diffusers pipelines: `set_timesteps(n)` gives the release's sigmas."""

    @classmethod
    def released(cls) -> Ex4dScheduler:
        """With the release's shift."""
        return cls(num_train_timesteps=int(TIMESTEPS_PER_SIGMA), shift=SHIFT)

    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None, timesteps=None):
        """As the parent, with evenly spaced unshifted sigmas where none are given."""
        if sigmas is None and num_inference_steps is not None:
            sigmas = torch.linspace(1, 0, num_inference_steps + 1)[:-1].tolist()
            num_inference_steps = None
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu, timesteps=timesteps)
