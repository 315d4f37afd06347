"""Training a Wan denoiser on cached latents: the EX-4D adapter on a frozen base, or every weight of a small model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ex4d.errors import InputError
from ex4d.train.config import TrainConfig
from ex4d.train.data.batches import Batches, Draw, derived_generator
from ex4d.train.data.shards import Sample, fingerprint, split
from ex4d.train.mixture import draw_weights
from ex4d.train.objective import Noised, draw_noised, flow_loss, noised_at, schedule_table

if TYPE_CHECKING:
    import numpy as np

#: Fields of a sample, with T latent frames, K cached conditions and L text tokens:
#: `latents` [16, T, h, w] the clip; `image_latents` [16, T, h, w] its first frame followed by grey; `text` [L, D];
#: `image_tokens` [257, D]; `color_latents`, `mask_latents` [K, 16, T, h, w] of each masked copy; `hole` uint8 [K, T, h, w], the
#: unseen share of each cell in 255ths; `kind` uint8 [K]; `coverage` float32 [K].
CONDITION_FIELDS = ("color_latents", "mask_latents", "hole", "kind", "coverage")

#: Noise levels at which held-out loss is measured, unweighted: early, middle and late in a generation.
VALIDATION_SIGMAS = (0.95, 0.8, 0.5, 0.2)


class FlowModule(nn.Module):
    """Denoiser and, where there is one, geometry encoder: one forward pass through both, so that wrappers see every weight."""

    def __init__(self, transformer: nn.Module, geometry_encoder: nn.Module | None) -> None:
        super().__init__()
        self.transformer = transformer
        self.geometry_encoder = geometry_encoder

    def forward(
        self,
        x_t: Tensor,
        timestep: Tensor,
        image_condition: Tensor | None,
        text: Tensor,
        image_tokens: Tensor | None,
        color_latents: Tensor | None,
        mask_latents: Tensor | None,
    ) -> Tensor:
        """Velocity (noise - clean) of [B, 16, T, h, w]; `image_condition` is the 20-channel y."""
        kwargs = None
        if self.geometry_encoder is not None:
            kwargs = {"geometry": self.geometry_encoder(color_latents, mask_latents)}
        hidden = x_t if image_condition is None else torch.cat([x_t, image_condition.to(x_t.dtype)], dim=1)
        out = self.transformer(hidden, timestep, text, image_tokens, return_dict=False, attention_kwargs=kwargs)
        return out[0]


def image_condition(image_latents: Tensor) -> Tensor:
    """The 20-channel y [B, 20, T, h, w]: four mask channels, one in the first latent frame, then the latents (METHOD 6.3)."""
    b, _, t, h, w = image_latents.shape
    mask = torch.zeros(b, 4, t, h, w, dtype=image_latents.dtype, device=image_latents.device)
    mask[:, :, 0] = 1
    return torch.cat([mask, image_latents], dim=1)


class FlowTask:
    """Flow matching on cached latents, with a condition drawn from the mask mixture at every step.

    Args:
        module: Denoiser and encoder with gradients required exactly where they are trained.
        samples: Cached clips; a share is held out by the hash of their source.
        device: Where batches go.
        decoder: Scaled latents [B, 16, T, h, w] to RGB in -1..1 [B, 3, T', H, W], for sample videos; None shows none.
    """

    def __init__(
        self,
        module: FlowModule,
        samples: list[Sample],
        config: TrainConfig,
        device: torch.device,
        decoder: Any = None,
    ) -> None:
        self.module, self.config, self.device, self.decoder = module, config, device, decoder
        model: Any = module.transformer.config
        self.needs_image = int(model["in_channels"]) > int(model["out_channels"])
        self.needs_tokens = model["image_dim"] is not None
        self.needs_condition = module.geometry_encoder is not None
        fields = ["latents", "text"] + ["image_latents"] * self.needs_image + ["image_tokens"] * self.needs_tokens
        if self.needs_condition:
            fields += CONDITION_FIELDS
        elif config.objective.hole_weight != 1:
            fields += ["hole", "kind", "coverage"]
        self.fingerprint = fingerprint(samples)
        train, held = split(samples, config.data.held_out)
        data = config.data
        self.train_set = Batches(train, fields, device, resident=data.resident, prefetch=data.prefetch)
        self.held_set = Batches(held, fields, device, resident="stream") if held else None
        _check_sizes(train[0], model, self)

    def batch(self, draw: Draw) -> dict[str, Tensor]:
        """A batch with its condition drawn, floating fields in float32 (bf16 under autocast happens in the model)."""
        raw = self.train_set.at(draw, self.config.loop.batch)
        return self._chosen(raw, draw.generator(self.device, "condition"), draw.step)

    def loss(self, module: nn.Module, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted flow-matching loss."""
        objective = self.config.objective
        noised = draw_noised(batch["latents"], objective, draw.generator(self.device, "noise"))
        per_example = flow_loss(self._predict(module, batch, noised), noised, batch.get("hole"), objective.hole_weight)
        return per_example.mean(), {}

    def validate(self, module: nn.Module, examples: int) -> dict[str, float]:
        """Mean squared error at fixed noise levels on the held-out clips, over all cells and over unseen ones."""
        if self.held_set is None:
            return {}
        totals: dict[str, list[float]] = {}
        for i in range(min(examples, len(self.held_set))):
            raw = self.held_set.take(_index(i))
            batch = self._chosen(
                raw, derived_generator(self.device, "held out", i), self.config.mixture.curriculum_steps
            )
            noise = torch.randn(
                batch["latents"].shape, generator=derived_generator(self.device, "held noise", i), device=self.device
            )
            for sigma in VALIDATION_SIGMAS:
                level = torch.full((1,), sigma, device=self.device)
                noised = noised_at(batch["latents"], noise, level, torch.ones_like(level))
                error = (self._predict(module, batch, noised).float() - noised.target).square().mean(dim=1)
                totals.setdefault(f"mse_{sigma}", []).append(float(error.mean()))
                if "hole" in batch and float(batch["hole"].sum()) > 0:
                    hole = batch["hole"]
                    totals.setdefault(f"hole_mse_{sigma}", []).append(float((error * hole).sum() / hole.sum()))
        scores = {name: sum(v) / len(v) for name, v in totals.items()}
        return scores | {"mse": sum(scores[f"mse_{s}"] for s in VALIDATION_SIGMAS) / len(VALIDATION_SIGMAS)}

    def sample(self, module: nn.Module, step: int, steps: int = 10) -> dict[str, np.ndarray]:
        """What the model makes of the first held-out clip: condition, result and truth side by side."""
        if self.decoder is None or self.held_set is None:
            return {}
        import numpy as np

        batch = self._chosen(self.held_set.take(_index(0)), derived_generator(self.device, "sample"), step)
        latents = denoise(
            lambda n: self._predict(module, batch, n), batch["latents"], self.config.objective.shift, steps
        )
        shown = [batch["color_latents"]] if "color_latents" in batch else []
        videos = [self.decoder(z.float()) for z in (*shown, latents, batch["latents"])]
        row = torch.cat([v[0].float().clamp(-1, 1) for v in videos], dim=-1)
        return {
            "condition_result_truth": ((row + 1) * 127.5)
            .round()
            .byte()
            .permute(1, 2, 3, 0)
            .cpu()
            .numpy()
            .astype(np.uint8)
        }

    def export(self, weights: Mapping[str, Tensor], out: Path) -> list[Path]:
        """The adapter's or the model's files, from trained tensors by name."""
        from ex4d.train.export import export_flow

        return export_flow(self.module, weights, out, self.config)

    def _predict(self, module: nn.Module, batch: dict[str, Tensor], noised: Noised) -> Tensor:
        return module(
            noised.x_t,
            noised.timestep,
            image_condition(batch["image_latents"]) if self.needs_image else None,
            batch["text"],
            batch.get("image_tokens"),
            batch.get("color_latents") if self.needs_condition else None,
            batch.get("mask_latents") if self.needs_condition else None,
        )

    def _chosen(self, raw: dict[str, Tensor], generator: torch.Generator, step: int) -> dict[str, Tensor]:
        batch = {n: raw[n].float() for n in ("latents", "text", "image_latents", "image_tokens") if n in raw}
        if self.config.model.text_dropout > 0:
            drop = (
                torch.rand(len(batch["text"]), generator=generator, device=self.device) < self.config.model.text_dropout
            )
            batch["text"] = batch["text"] * (~drop)[:, None, None]
        if "kind" in raw:
            weight = draw_weights(raw["kind"], raw["coverage"], self.config.mixture, step)
            waiting = torch.empty_like(weight).exponential_(generator=generator)
            k = (weight / waiting).argmax(dim=1)  # torch.multinomial would wait for the device
            rows = torch.arange(len(k), device=k.device)
            batch |= {n: raw[n][rows, k].float() for n in ("color_latents", "mask_latents", "hole") if n in raw}
            batch["hole"] = batch["hole"] / 255
        return batch


@torch.no_grad()
def denoise(predict: Any, like: Tensor, shift: float, steps: int, seed: int = 0) -> Tensor:
    """Euler steps of the released schedule from seeded noise; `predict` takes a `Noised` and returns the velocity."""
    sigma = schedule_table(shift)[0][:: max(1, 1000 // steps)].to(like.device)
    x = torch.randn(like.shape, generator=derived_generator(like.device, "sampling", seed), device=like.device)
    for now, after in zip(sigma, [*sigma[1:], sigma.new_zeros(())], strict=True):
        level = now.expand(len(like))
        x = x + predict(Noised(x, x, 1000 * level, level)).float() * (after - now)
    return x


def _index(i: int) -> np.ndarray:
    import numpy as np

    return np.array([i])


def _check_sizes(sample: Sample, model: Any, task: FlowTask) -> None:
    latents, text = sample.arrays["latents"], sample.arrays["text"]
    if latents.ndim != 4 or latents.shape[0] != model["out_channels"]:
        raise InputError(
            f"latents of shape {list(latents.shape)}",
            f"[{model['out_channels']}, T, h, w] for this model",
            "run prepare with the model's VAE",
        )
    patch = model["patch_size"]
    if any(s % p for s, p in zip(latents.shape[1:], patch, strict=True)):
        raise InputError(
            f"latents of {list(latents.shape[1:])} cells",
            f"multiples of the patch {list(patch)}",
            "prepare with another --size",
        )
    if text.shape[-1] != model["text_dim"]:
        raise InputError(
            f"text embeddings {text.shape[-1]} wide",
            f"{model['text_dim']} for this model",
            "run prepare with the model's text encoder",
        )
    if task.needs_tokens and sample.arrays["image_tokens"].shape[-1] != model["image_dim"]:
        raise InputError(
            f"image tokens {sample.arrays['image_tokens'].shape[-1]} wide",
            f"{model['image_dim']}",
            "run prepare with the model's image encoder",
        )
