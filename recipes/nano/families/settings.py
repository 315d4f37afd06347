"""Where things happen: before a panorama or a photograph, on open ground under a sky, in a street, in a bare room. Object 0 throughout."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from families import assets, shapes, skies, surfaces
from families.floating import textured
from families.types import Textured


class Setting(NamedTuple):
    """Meshes, what is behind them, whether that is sky, whether there is a ground at y = 0."""

    objects: list[Textured]
    panorama: np.ndarray | None
    sky: bool
    ground: bool


#: Height of the panoramas a clip carries.
PANORAMA_PX = 512


def far(rng: np.random.Generator, seed: int, ahead: np.ndarray, fov_deg: float) -> tuple[np.ndarray, bool]:
    """A panorama and whether it is sky: a real one, a photograph where the camera looks (`ahead` [3]), or a made sky."""
    kind = rng.random()
    real, photos = assets.names("panorama-"), assets.names("photo-")
    if real and kind < 0.5:
        found = assets.picture(real[assets.pick(rng, len(real), seed)])
        found = np.roll(found, int(rng.integers(found.shape[1])), 1)
        if rng.random() < 0.5:
            found = found[:, ::-1]
        return np.ascontiguousarray(_graded(rng, found)), False
    if photos and kind < 0.8:
        return around(_graded(rng, assets.picture(photos[assets.pick(rng, len(photos), seed)])), ahead, fov_deg), False
    return skies.clear_sky(rng), True


def _graded(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    gain = rng.uniform(0.75, 1.2) * (1 + rng.normal(0, 0.05, 3))
    table = np.clip(np.arange(256)[:, None] * gain, 0, 255).astype(np.uint8)
    return np.stack([table[picture[..., c], c] for c in range(3)], -1)


def around(photo: np.ndarray, ahead: np.ndarray, fov_deg: float) -> np.ndarray:
    """A photograph as a panorama [256, 512]: undistorted about `ahead`, filling `fov_deg`, mirrored on beyond its edges."""
    h, w = 256, 512
    lon = (np.arange(w) + 0.5) / w * 2 * np.pi - np.pi - np.arctan2(ahead[0], ahead[2])
    lat = (np.arange(h) + 0.5) / h * np.pi - np.pi / 2
    pitch = np.arctan2(ahead[1], np.hypot(ahead[0], ahead[2]))
    lon = np.arctan2(np.sin(lon), np.cos(lon))
    scale = photo.shape[1] / np.radians(fov_deg)
    x, y = np.meshgrid(lon * scale + photo.shape[1] / 2, (lat - pitch) * scale + photo.shape[0] / 2)
    return cv2.remap(photo, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def floor(rng: np.random.Generator, half: float, kinds: tuple[str, ...], hills: float = 0.0) -> Textured:
    """Ground about the origin; `hills` metres of roll, flat near the middle."""
    cells = 24
    height = None
    if hills:
        u = half * np.sign(np.linspace(-1, 1, cells + 1)) * np.linspace(-1, 1, cells + 1) ** 2
        x, z = np.meshgrid(u, u)
        height = np.zeros_like(x)
        for _ in range(4):
            k = rng.normal(0, 6 / half, 2)
            height += hills * np.sin(k[0] * x + k[1] * z + rng.uniform(0, 6))
        height = np.maximum(height, -0.3 * hills) * np.clip((np.hypot(x, z) - 5) / 20, 0, 1)
    texture = surfaces.of_kind(rng, *kinds)
    if rng.random() < 0.6:
        texture = surfaces.tinted(texture, surfaces.color(rng))
    return textured(shapes.ground(half, cells, height), rng.uniform(0.6, 3), texture, 0)


def open_land(rng: np.random.Generator, eyes: np.ndarray) -> list[Textured]:
    """Grass, sand or paving, hills far off, some trees, none of them within 4 m of the camera."""
    out = [floor(rng, 150.0, ("grass", "grass", "stone", "plaster"), rng.choice([0.0, 2.0, 6.0]))]
    leaf = surfaces.tinted(surfaces.of_kind(rng, "grass"), np.array([0.2, rng.uniform(0.3, 0.5), 0.12]))
    bark = surfaces.tinted(surfaces.of_kind(rng, "planks"), np.array([0.35, 0.25, 0.17]))
    crowns, trunks = [], []
    for _ in range(rng.integers(0, 12)):
        r, a, h = rng.uniform(6, 50), rng.uniform(0, 6.3), rng.uniform(2, 9)
        at = np.array([r * np.cos(a), 0, r * np.sin(a)])
        if np.linalg.norm((at - eyes)[:, [0, 2]], axis=1).min() < 4 + 0.5 * h:
            continue
        trunks.append(shapes.moved(shapes.cylinder(0.04 * h, 0.6 * h, 0.02 * h, 8), np.eye(3), at))
        for _ in range(rng.integers(1, 5)):
            lump = shapes.ball(h * rng.uniform(0.12, 0.3, 3), 7)
            crowns.append(
                shapes.moved(
                    lump, np.eye(3), at + [*(rng.normal(0, 0.12 * h, 2)), 0] @ np.eye(3)[[0, 2, 1]] - [0, 0.75 * h, 0]
                )
            )
    if trunks:
        out += [textured(shapes.joined(trunks), 0.8, bark, 0), textured(shapes.joined(crowns), 1.2, leaf, 0)]
    return out


def street(rng: np.random.Generator, eyes: np.ndarray) -> list[Textured]:
    """Houses with windows on both sides of a road along z, poles, kerbs."""
    out = [floor(rng, 120.0, ("stone", "plaster", "tiles", "bricks"))]
    width = max(rng.uniform(4, 10), float(np.abs(eyes[:, 0]).max()) + 2.5)
    houses: dict[int, list] = {0: [], 1: [], 2: []}
    panes, poles = [], []
    for side in (-1, 1):
        z = -25.0
        while z < 60:
            w, h, deep = rng.uniform(5, 14), rng.uniform(4, 16), rng.uniform(6, 10)
            back = width + rng.uniform(0, 2)
            at = np.array([side * (back + deep / 2), -h / 2, z + w / 2])
            houses[int(rng.integers(3))].append(shapes.moved(shapes.box(np.array([deep, h, w]) / 2), np.eye(3), at))
            rows, cols = max(int(h / 3), 1), max(int(w / rng.uniform(2, 4)), 1)
            for i in range(rows):
                for j in range(cols):
                    pane = shapes.box(np.array([0.05, 0.7, 0.5]))
                    place = [side * back, -(i + 0.55) * h / rows, z + (j + 0.5) * w / cols]
                    panes.append(shapes.moved(pane, np.eye(3), np.array(place)))
            z += w + rng.choice([0.0, 0.0, 2.0])
        for z in np.arange(-20, 50, rng.uniform(8, 18)):
            if rng.random() < 0.6:
                poles.append(
                    shapes.moved(
                        shapes.cylinder(0.07, rng.uniform(2.5, 6)), np.eye(3), np.array([side * (width - 1), 0, z])
                    )
                )
    for group in houses.values():
        if group:
            out.append(textured(shapes.joined(group), rng.uniform(1, 3), surfaces.surface(rng, 0.8), 0))
    out.append(
        textured(shapes.joined(panes), 1.0, surfaces.plain(rng.uniform(0.08, 0.5) * np.array([0.8, 0.95, 1.1])), 0)
    )
    if poles:
        out.append(textured(shapes.joined(poles), 1.0, surfaces.plain(surfaces.color(rng)), 0))
    return out


def room(rng: np.random.Generator, eyes: np.ndarray) -> list[Textured]:
    """Four walls that the camera stays within, floor, ceiling, pictures, boxes along the walls."""
    half = np.maximum([rng.uniform(2.5, 6), 0, rng.uniform(2.5, 6)], np.abs(eyes).max(0) + 0.9)
    high = max(rng.uniform(2.4, 3.6), 0.4 - float(eyes[:, 1].min()))
    out = [floor(rng, float(half.max()) + 1, ("planks", "tiles", "stone", "plaid", "marble"))]
    wall = surfaces.surface(rng, 0.5)
    walls = [
        shapes.moved(shapes.sheet(2 * (half[0] if k % 2 == 0 else half[2]), high, 2, 2),
                     shapes.turn(1, k * np.pi / 2), shapes.turn(1, k * np.pi / 2) @ [0, 0, half[2] if k % 2 == 0 else half[0]])
        for k in range(4)
    ]  # fmt: skip
    out.append(textured(shapes.joined(walls), rng.uniform(0.8, 3), wall, 0))
    lid = shapes.ground(float(half.max()) + 1, 4)
    out.append(textured(shapes.moved(lid, np.eye(3), np.array([0, -high, 0])), 2.0, surfaces.plain(np.full(3, 0.8)), 0))
    for _ in range(rng.integers(4, 14)):
        k = int(rng.integers(4))
        reach, side = (half[2], half[0]) if k % 2 == 0 else (half[0], half[2])
        size = np.array([rng.uniform(0.2, 1.0), rng.uniform(0.2, 1.0), rng.uniform(0.03, 0.35)])
        y = -size[1] if rng.random() < 0.6 else -rng.uniform(1.2, 1.9)
        if y != -size[1]:
            size[2] = 0.02
        at = shapes.turn(1, k * np.pi / 2) @ [rng.uniform(-0.85, 0.85) * side, y, reach - size[2]]
        mesh = shapes.moved(shapes.box(size), shapes.turn(1, k * np.pi / 2), at)
        out.append(textured(mesh, rng.uniform(0.3, 1.5), surfaces.surface(rng, 0.7), 0))
    return out


def anywhere(rng: np.random.Generator, seed: int, ahead: np.ndarray, fov_deg: float, eyes: np.ndarray) -> Setting:
    """One of all these around cameras at `eyes` [T, 3]; in two of five there is no ground and nothing stands anywhere."""
    kind = rng.random()
    wide = np.abs(eyes[:, [0, 2]]).max() > 9
    if kind < 0.4 or (kind >= 0.8 and wide):
        return Setting([], *far(rng, seed, ahead, fov_deg), ground=False)
    if kind < 0.6:
        return Setting(open_land(rng, eyes), skies.clear_sky(rng), True, True)
    if kind < 0.8:
        return Setting(street(rng, eyes), skies.clear_sky(rng), True, True)
    return Setting(room(rng, eyes), None, False, True)
