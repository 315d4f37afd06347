"""Textures: a pool of procedural ones made once a process, uint8 [256, 256, 3] sRGB, and plain colours."""

from __future__ import annotations

import colorsys
from functools import cache

import numpy as np

#: How many procedural textures a process keeps.
POOL = 96

#: Texture side of plain colours.
PLAIN_PX = 4


@cache
def pool() -> tuple[np.ndarray, ...]:
    """Procedural textures of many kinds, always the same ones."""
    from ex4d.scenes import textures as tex

    rng = np.random.default_rng((20261126, 1))
    makers = (
        tex.plaster, tex.plaid, tex.spots, tex.poster, tex.marble, tex.planks, tex.tiles, tex.stone, tex.bricks,
        tex.grass,
    )  # fmt: skip
    return tuple(to_uint8(makers[k % len(makers)](rng)) for k in range(POOL))


def of_kind(rng: np.random.Generator, *kinds: str) -> np.ndarray:
    """A procedural texture of one of some kinds (names in `scenes.textures`), from the pool."""
    names = ("plaster", "plaid", "spots", "poster", "marble", "planks", "tiles", "stone", "bricks", "grass")
    first = names.index(kinds[rng.integers(len(kinds))])
    return pool()[first + len(names) * int(rng.integers((POOL - first + len(names) - 1) // len(names)))]


def to_uint8(texture: np.ndarray) -> np.ndarray:
    """0..1 to uint8."""
    return (np.clip(texture, 0, 1) * 255 + 0.5).astype(np.uint8)


def color(rng: np.random.Generator) -> np.ndarray:
    """A colour [3] in 0..1 as things have: many greys, browns and muted tones, few loud ones."""
    if rng.random() < 0.4:
        grey = rng.choice([0.1, 0.22, 0.45, 0.7, 0.9]) * rng.uniform(0.8, 1.1)
        return np.clip(grey * (1 + rng.normal(0, 0.04, 3)), 0.02, 1)
    hue, strong = rng.random(), np.clip(rng.normal(0.4, 0.25), 0.05, 0.95)
    return np.array(colorsys.hsv_to_rgb(hue, strong, np.clip(rng.normal(0.6, 0.22), 0.1, 0.98)))


def plain(rgb: np.ndarray) -> np.ndarray:
    """A texture of one colour."""
    return np.broadcast_to(to_uint8(np.asarray(rgb)), (PLAIN_PX, PLAIN_PX, 3)).copy()


def tinted(texture: np.ndarray, rgb: np.ndarray, share: float = 0.7) -> np.ndarray:
    """A texture's light and dark in another colour; `share` of its own hue goes."""
    t = texture.astype(np.float32) / 255
    grey = t.mean(-1, keepdims=True)
    grey = grey / max(float(grey.mean()), 0.05)
    return to_uint8((1 - share) * t + share * grey * np.asarray(rgb, np.float32))


def surface(rng: np.random.Generator, textured: float = 0.6) -> np.ndarray:
    """Any texture: from the pool, recoloured, or plain."""
    if rng.random() > textured:
        return plain(color(rng))
    base = pool()[rng.integers(POOL)]
    return base if rng.random() < 0.5 else tinted(base, color(rng))
