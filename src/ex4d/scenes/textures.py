"""Procedural, tileable textures with natural (about 1/f) statistics, and their filtered lookup.

A texture is linear-light RGB float32 [SIZE, SIZE, 3]; a scene packs all of its textures with their mip levels into one
`TextureBank`, so that one gather serves every pixel of a frame. Everything is a function of the generator it is given.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

#: Side of a texture in texels; a power of two, so that wrapping is a bit mask.
SIZE = 256

#: Mip levels kept: 256, 128, ..., 4 texels.
NUM_LEVELS = 7


def fbm(rng: np.random.Generator, beta: float = 1.0, stretch: float = 1.0, size: int = SIZE) -> np.ndarray:
    """Tileable Gaussian noise with amplitude 1/f^beta, mapped to 0..1 by its 1st and 99th percentile.

    `stretch` > 1 draws the grain out along x (wood, brushed metal).
    """
    fy = np.fft.fftfreq(size)[:, None] * size
    fx = np.fft.rfftfreq(size)[None, :] * size * stretch
    f = np.hypot(fx, fy)
    f[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / f**beta
    noise = np.fft.irfft2(spectrum, s=(size, size))
    low, high = np.percentile(noise, [1, 99])
    return np.clip((noise - low) / (high - low), 0, 1).astype(np.float32)


def palette(rng: np.random.Generator, n: int = 4, saturation: float = 0.35, value: float = 0.6) -> np.ndarray:
    """n display-referred colours around one hue; muted by default, as most surfaces are."""
    hue, spread = rng.uniform(), rng.choice([0.04, 0.1, 0.5])
    colors = []
    for _ in range(n):
        h = (hue + rng.normal(0, spread)) % 1
        s = np.clip(0.8 * rng.normal(saturation, 0.18), 0.02, 0.95)
        v = np.clip(rng.normal(value, 0.2), 0.12, 0.95)
        colors.append(colorsys.hsv_to_rgb(h, s, v))
    return np.array(colors, np.float32)


def ramp(values: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Colours looked up along 0..1, linear between the entries."""
    x = np.clip(values, 0, 1) * (len(colors) - 1)
    i = np.minimum(x.astype(np.int32), len(colors) - 2)
    w = (x - i)[..., None]
    return (colors[i] * (1 - w) + colors[i + 1] * w).astype(np.float32)


def _grid(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    return x, y


def plaster(rng: np.random.Generator, saturation: float = 0.3) -> np.ndarray:
    """Coloured noise: plaster, carpet, cloth, skin."""
    colors = palette(rng, 3, saturation)
    mixed = ramp(fbm(rng, rng.uniform(0.8, 1.6)), colors)
    return mixed * (0.85 + 0.3 * fbm(rng, 0.3)[..., None])


def ceiling(rng: np.random.Generator) -> np.ndarray:
    """Pale paint."""
    return 0.8 + 0.12 * ramp(fbm(rng, 1.3), palette(rng, 2, 0.2, 0.7))


def planks(rng: np.random.Generator) -> np.ndarray:
    """Wooden boards."""
    rows = int(rng.choice([4, 6, 8]))
    hue = rng.uniform(0.05, 0.11)
    dark, light = (np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.3, 0.7), v), np.float32) for v in (0.25, 0.75))
    _, y = _grid()
    row = (y * rows).astype(np.int32)
    grain = np.empty((SIZE, SIZE), np.float32)
    for r in range(rows):
        wood = np.roll(fbm(rng, 0.9, 8.0), rng.integers(SIZE), 1)
        grain = np.where(row == r, wood * 0.7 + rng.uniform(0, 0.3), grain)
    gap = np.abs((y * rows) % 1 - 0.5) > 0.47
    return ramp(grain, np.stack([dark, light])) * np.where(gap, 0.35, 1.0)[..., None]


def bricks(rng: np.random.Generator) -> np.ndarray:
    """Courses of bricks or blocks with mortar."""
    rows, cols = int(rng.choice([6, 8, 12])), int(rng.choice([3, 4, 6]))
    x, y = _grid()
    row = (y * rows).astype(np.int32)
    u = x * cols + 0.5 * (row % 2)
    tone = rng.uniform(0, 1, (rows, cols)).astype(np.float32)[row, u.astype(np.int32) % cols]
    face = ramp(0.7 * tone + 0.3 * fbm(rng, 0.8), palette(rng, 3, 0.45, 0.5))
    mortar = (np.abs(u % 1 - 0.5) > 0.46) | (np.abs((y * rows) % 1 - 0.5) > 0.42)
    return np.where(mortar[..., None], 0.6 + 0.15 * fbm(rng, 0.5)[..., None], face)


def tiles(rng: np.random.Generator) -> np.ndarray:
    """A checkerboard of tiles with joints."""
    n = int(rng.choice([2, 4, 8]))
    x, y = _grid()
    i, j = (y * n).astype(np.int32), (x * n).astype(np.int32)
    colors = palette(rng, 2, rng.uniform(0.05, 0.5), 0.65)
    out = colors[(i + j) % 2] * (0.8 + 0.25 * rng.uniform(0, 1, (n, n))[i, j] + 0.15 * fbm(rng, 1.0))[..., None]
    joint = np.maximum(np.abs((x * n) % 1 - 0.5), np.abs((y * n) % 1 - 0.5)) > 0.48
    return out * np.where(joint, 0.5, 1)[..., None]


def plaid(rng: np.random.Generator) -> np.ndarray:
    """Woven stripes: cloth, wallpaper, awnings."""
    colors = palette(rng, 4, 0.55, 0.6)
    band = rng.integers(0, 4, 16)
    x, y = _grid()
    i, j = (y * 16).astype(np.int32), (x * 16).astype(np.int32)
    weave = rng.uniform() < 0.5
    out = colors[band[j]] if not weave else 0.5 * (colors[band[i]] + colors[band[j]])
    return out * (0.85 + 0.3 * fbm(rng, 0.4)[..., None])


def spots(rng: np.random.Generator) -> np.ndarray:
    """Dots of several sizes: animal skins, toys, terrazzo."""
    colors = palette(rng, 4, 0.5, 0.65)
    x, y = _grid()
    out = np.broadcast_to(colors[0], (SIZE, SIZE, 3)).copy()
    for _ in range(int(rng.integers(20, 70))):
        cx, cy = rng.uniform(size=2).astype(np.float32)
        dx, dy = np.abs(x - cx), np.abs(y - cy)
        inside = np.minimum(dx, 1 - dx) ** 2 + np.minimum(dy, 1 - dy) ** 2 < rng.uniform(0.015, 0.09) ** 2
        out[inside] = colors[rng.integers(1, 4)]
    return out * (0.8 + 0.35 * fbm(rng, 1.0)[..., None])


def stone(rng: np.random.Generator) -> np.ndarray:
    """Cells with cracks between them: paving, rock, scales."""
    n = int(rng.integers(12, 60))
    points = rng.uniform(size=(n, 2))
    x, y = _grid()
    first = np.full((SIZE, SIZE), 9.0, np.float32)
    second, owner = first.copy(), np.zeros((SIZE, SIZE), np.int32)
    for k, (px, py) in enumerate(points.astype(np.float32)):
        dx, dy = np.abs(x - px), np.abs(y - py)
        d = np.minimum(dx, 1 - dx) ** 2 + np.minimum(dy, 1 - dy) ** 2
        nearer = d < first
        owner[nearer] = k
        second = np.where(nearer, first, np.minimum(second, d))
        first = np.minimum(first, d)
    first, second = np.sqrt(first), np.sqrt(second)
    tone = rng.uniform(0, 1, n).astype(np.float32)[owner]
    out = ramp(0.6 * tone + 0.4 * fbm(rng, 1.0), palette(rng, 3, 0.15, 0.5))
    return out * np.clip((second - first) * 60, 0.35, 1)[..., None]


def poster(rng: np.random.Generator) -> np.ndarray:
    """A picture: gradient, shapes and rows of letter-like marks."""
    colors = palette(rng, 6, 0.55, 0.65)
    out = np.ascontiguousarray(ramp(0.6 * _grid()[1] + 0.4 * fbm(rng, 1.4), colors[:3]))
    for _ in range(int(rng.integers(4, 12))):
        color = tuple(float(c) for c in colors[rng.integers(6)])
        center = tuple(int(v) for v in rng.integers(0, SIZE, 2))
        if rng.uniform() < 0.5:
            cv2.circle(out, center, int(rng.integers(8, 60)), color, -1, cv2.LINE_AA)
        else:
            corners = rng.integers(0, SIZE, (int(rng.integers(3, 6)), 1, 2)).astype(np.int32)
            cv2.fillConvexPoly(out, cv2.convexHull(corners), color, cv2.LINE_AA)
    for line in range(int(rng.integers(0, 6))):
        y = 20 + 14 * line + int(rng.integers(0, 100))
        for x in range(20, 230, 9):
            if rng.uniform() < 0.8:
                cv2.rectangle(out, (x, y % SIZE), (x + int(rng.integers(2, 7)), y % SIZE + 6), (0.1, 0.1, 0.12), -1)
    return out


def grass(rng: np.random.Generator) -> np.ndarray:
    """Vegetation or soil seen from above."""
    hue, tones = rng.uniform(0.09, 0.33), [(0.0, 0.5, 0.2), (0.02, 0.45, 0.42), (-0.03, 0.4, 0.65)]
    colors = np.array([colorsys.hsv_to_rgb(hue + d, s, v) for d, s, v in tones])
    return ramp(0.5 * fbm(rng, 1.1) + 0.5 * fbm(rng, 0.35), colors.astype(np.float32))


def marble(rng: np.random.Generator) -> np.ndarray:
    """Veins along warped bands."""
    x, y = _grid()
    bands = 0.5 + 0.5 * np.sin(2 * np.pi * (2 * x + 1 * y + 1.5 * fbm(rng, 1.5)))
    return ramp(bands**2, palette(rng, 3, 0.15, 0.7)) * (0.85 + 0.2 * fbm(rng, 0.8)[..., None])


WALLS = (plaster, plaster, bricks, plaid, planks, stone, tiles)
FLOORS = (planks, tiles, stone, plaster, marble, planks)
THINGS = (plaster, plaid, spots, poster, marble, planks, tiles, stone)
ANIMALS = (spots, plaster, plaid, grass, poster)


def _uint8(texture: np.ndarray) -> np.ndarray:
    return (np.clip(texture, 0, 1) * 255 + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class TextureBank:
    """All textures of a scene with their mip levels in one array [texels, 3], linear light."""

    texels: np.ndarray
    num_textures: int

    @staticmethod
    def pack(textures: list[np.ndarray]) -> TextureBank:
        """Textures are display-referred (gamma 2.2) RGB in 0..1; they are stored linear."""
        to_linear = (np.arange(256) / 255) ** 2.2
        stack = to_linear.astype(np.float32)[np.stack([_uint8(t) for t in textures])]
        levels = []
        for _ in range(NUM_LEVELS):
            levels.append(stack.reshape(-1, 3))
            n, s = stack.shape[:2]
            stack = stack.reshape(n, s // 2, 2, s // 2, 2, 3).mean((2, 4))
        return TextureBank(np.concatenate(levels), len(textures))

    def mean(self) -> np.ndarray:
        """Mean linear colour of every texture, [n, 3]."""
        side = SIZE >> (NUM_LEVELS - 1)
        return self.texels[-self.num_textures * side * side :].reshape(self.num_textures, -1, 3).mean(1)

    def sample(self, texture: np.ndarray, uv: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Bilinear colour of `texture` [N] at `uv` [N, 2] (1 = one tile) from the mip level whose texel fits `footprint`.

        `footprint` [N] is the size of a pixel in texels of level 0. Returns float32 [N, 3].
        """
        level = np.clip(np.log2(np.maximum(footprint, 1e-6)) + 0.5, 0, NUM_LEVELS - 1).astype(np.int32)
        sizes = SIZE >> np.arange(NUM_LEVELS)
        starts = np.concatenate([[0], np.cumsum(self.num_textures * sizes**2)[:-1]])
        size = sizes[level]
        base = starts[level] + texture * size * size
        xy = (uv - np.floor(uv)) * size[:, None] - 0.5
        low = np.floor(xy).astype(np.int64)
        w = (xy - low).astype(np.float32)
        mask = size - 1
        x0, x1 = low[:, 0] & mask, (low[:, 0] + 1) & mask
        y0, y1 = base + (low[:, 1] & mask) * size, base + ((low[:, 1] + 1) & mask) * size
        wx, wy = w[:, :1], w[:, 1:]
        t = self.texels
        top = t[y0 + x0] * (1 - wx) + t[y0 + x1] * wx
        return top * (1 - wy) + (t[y1 + x0] * (1 - wx) + t[y1 + x1] * wx) * wy
