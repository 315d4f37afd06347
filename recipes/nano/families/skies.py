"""What lies behind everything: skies with clouds, made here."""

from __future__ import annotations

import numpy as np

from families.surfaces import to_uint8

#: Height of made panoramas.
SKY_PX = 256


def clear_sky(rng: np.random.Generator) -> np.ndarray:
    """A day, evening or overcast sky with clouds, uint8 [256, 512, 3]; below the horizon a haze."""
    from ex4d.scenes.textures import fbm

    h, w = SKY_PX, 2 * SKY_PX
    y = np.sin(np.pi * ((np.arange(h) + 0.5) / h - 0.5))[:, None]  # down
    up = np.clip(-y, 0, 1)
    kind = rng.integers(3)
    zenith = ((0.2, 0.42, 0.8), (0.35, 0.3, 0.5), (0.62, 0.66, 0.72))[kind] * rng.uniform(0.75, 1.15, 3)
    horizon = ((0.75, 0.83, 0.92), (0.95, 0.65, 0.4), (0.82, 0.84, 0.86))[kind] * rng.uniform(0.85, 1.1, 3)
    sky = horizon + (zenith - horizon) * up[..., None] ** rng.uniform(0.4, 0.8)
    noise = fbm(rng, rng.uniform(1.0, 1.6), rng.choice([1.0, 0.4]), 256)
    lon = 2 * np.pi * np.arange(w) / w
    flat = np.where(up > 0.02, 0.5 / np.maximum(up, 0.08), 0)
    u, v = flat * np.cos(lon) * 64, flat * np.sin(lon) * 64
    cover = noise[np.floor(v).astype(int) % 256, np.floor(u).astype(int) % 256]
    cover = np.clip((cover - rng.uniform(0.3, 0.75)) * 3, 0, 1) * np.clip(up * 5, 0, 1)
    sky = sky + (np.clip(horizon * 0.4 + 0.62, 0, 1) - sky) * cover[..., None] * rng.uniform(0.4, 1)
    haze = np.clip(y[..., None] * 4, 0, 1)
    return to_uint8(sky * (1 - haze) + horizon * 0.8 * haze)
