"""The sampling loop: Euler steps in float32, guidance one after the other, in one batch, or split over GPUs."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ex4d.models.wan.schedule import SHIFT, euler_step, flow_sigmas, flow_timesteps
from ex4d.models.wan.text import TextEmbeddings

GuidanceMode = Literal["sequential", "batched", "split"]


class GuidanceGroup(Protocol):
    """Two halves of a machine that share one guided step (parallel.py)."""

    index: int

    def gather(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """(positive, negative) predictions from this half's own."""
        ...


@dataclass(frozen=True)
class DenoiseInputs:
    """What stays the same over all steps.

    Attributes:
        noise: Initial latents, float32.
        y: Image condition joined to the latents on the channel axis, or None.
        text: Padded prompt embeddings.
        image_tokens: CLIP tokens, or None.
        geometry: Tokens of the geometry encoder.
    """

    noise: Float[Tensor, "1 c t h w"]
    y: Float[Tensor, "1 d t h w"] | None
    text: TextEmbeddings
    image_tokens: Float[Tensor, "1 n width"] | None
    geometry: Float[Tensor, "1 dim t h2 w2"] | None


@dataclass(frozen=True)
class DenoiseSettings:
    """How the loop runs.

    Attributes:
        steps: Euler steps.
        guidance: pred = negative + guidance (positive - negative); 1 skips the negative pass.
        shift: Time shift.
        mode: Where the two passes run.
        state: File that holds the latents after each step, so that a stopped run goes on; None keeps none.
    """

    steps: int = 25
    guidance: float = 5.0
    shift: float = SHIFT
    mode: GuidanceMode = "sequential"
    state: Path | None = None


@torch.no_grad()
def denoise(
    transformer,
    inputs: DenoiseInputs,
    settings: DenoiseSettings,
    on_step: Callable[[int, int], None] | None = None,
    group: GuidanceGroup | None = None,
    trace: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Float[Tensor, "1 c t h w"]:
    """Clean latents. `on_step(done, total)` may raise to stop; `trace(i, prediction, latents)` sees every step."""
    sigmas = flow_sigmas(settings.steps, settings.shift).to(inputs.noise.device)
    timesteps = flow_timesteps(sigmas)
    latents, first = _resume(settings, inputs.noise)
    predict = _predictor(transformer, inputs, settings, group)
    if on_step is not None:
        on_step(first, settings.steps)
    for i in range(first, settings.steps):
        prediction = predict(latents, timesteps[i])
        latents = euler_step(latents, prediction, sigmas[i], sigmas[i + 1])
        if trace is not None:
            trace(i, prediction, latents)
        _save(settings, i + 1, latents)
        if on_step is not None:
            on_step(i + 1, settings.steps)
    return latents


def _predictor(transformer, inputs: DenoiseInputs, settings: DenoiseSettings, group: GuidanceGroup | None):
    kwargs = {} if inputs.geometry is None else {"geometry": inputs.geometry}
    text = inputs.text
    guided = settings.guidance != 1.0 and text.negative is not None

    def run(latents: Tensor, t: Tensor, tokens: Tensor, name: str) -> Tensor:
        n = tokens.shape[0]
        x = latents if inputs.y is None else torch.cat([latents, inputs.y], dim=1)
        image = None if inputs.image_tokens is None else inputs.image_tokens.expand(n, -1, -1)
        context = transformer.cache_context(name) if getattr(transformer, "is_cache_enabled", False) else nullcontext()
        with context:
            out = transformer(
                x.expand(n, -1, -1, -1, -1),
                t.expand(n),
                tokens,
                image,
                return_dict=False,
                attention_kwargs=kwargs or None,
            )[0]
        return out.to(latents.dtype)

    def predict(latents: Tensor, t: Tensor) -> Tensor:
        if not guided:
            return run(latents, t, text.positive, "positive")
        assert text.negative is not None
        if group is not None:
            own, name = (text.positive, "positive") if group.index == 0 else (text.negative, "negative")
            positive, negative = group.gather(run(latents, t, own, name))
        elif settings.mode == "batched":
            both = run(latents, t, torch.cat([text.positive, text.negative]), "both")
            positive, negative = both.chunk(2)
        else:
            positive = run(latents, t, text.positive, "positive")
            negative = run(latents, t, text.negative, "negative")
        return negative + settings.guidance * (positive - negative)

    return predict


def _save(settings: DenoiseSettings, done: int, latents: Tensor) -> None:
    if settings.state is None:
        return
    from safetensors.torch import save_file

    temporary = settings.state.with_suffix(f".{os.getpid()}.tmp")
    save_file({"latents": latents.detach().cpu().contiguous()}, str(temporary), metadata={"done": str(done)})
    os.replace(temporary, settings.state)


def _resume(settings: DenoiseSettings, noise: Tensor) -> tuple[Tensor, int]:
    """(latents, steps already done): from the state file of a stopped run, else the noise."""
    if settings.state is None or not settings.state.is_file():
        return noise, 0
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(settings.state), "pt") as file:
            latents, done = file.get_tensor("latents"), int((file.metadata() or {})["done"])
    except (SafetensorError, KeyError, ValueError, OSError):
        return noise, 0
    return (latents.to(noise.device), done) if latents.shape == noise.shape else (noise, 0)
