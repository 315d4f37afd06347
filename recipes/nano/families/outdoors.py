"""Streets and open land with plants, branches, fences, poles, wires and things that stand about; people and animals pass in some."""

from __future__ import annotations

import numpy as np

from families import animals, assets, cameras, people, settings, shapes, skies, surfaces
from families.floating import textured, thing
from families.shapes import Mesh
from families.types import FamilyClip, Textured


def branches(
    rng: np.random.Generator, start: np.ndarray, way: np.ndarray, length: float, depth: int
) -> tuple[list[Mesh], list[np.ndarray]]:
    """Tubes of a branching plant and where its twigs end."""
    steps = way + np.cumsum(rng.normal(0, 0.12, (5, 3)), 0)
    path = start + np.concatenate([np.zeros((1, 3)), np.cumsum(steps, 0)]) * length / 5
    thick = length * rng.uniform(0.02, 0.045)
    tubes, ends = [shapes.tube(path, np.linspace(thick, 0.5 * thick, 6), 6)], [path[-1]]
    if depth > 0:
        for _ in range(rng.integers(2, 5)):
            new = way + rng.normal(0, 0.6, 3)
            more, tips = branches(
                rng, path[rng.integers(2, 6)], new / np.linalg.norm(new), length * rng.uniform(0.45, 0.75), depth - 1
            )
            tubes, ends = tubes + more, ends + tips
    return tubes, ends


def plant(rng: np.random.Generator, at: np.ndarray, high: float, object_id: int) -> list[Textured]:
    """Bare branches, a leafy shrub, or a tuft of blades."""
    leaf = surfaces.tinted(surfaces.of_kind(rng, "grass"), np.array([0.22, rng.uniform(0.3, 0.55), 0.13]))
    if rng.random() < 0.25:
        blades = []
        for _ in range(rng.integers(12, 40)):
            out = np.array([rng.normal(0, 0.35), -1, rng.normal(0, 0.35)])
            u = np.linspace(0, 1, 5)[:, None]
            path = (
                at
                + rng.normal(0, 0.06, 3) * [1, 0, 1] * high
                + high * rng.uniform(0.5, 1) * (u * out + u**2 * out * [0.7, -0.3, 0.7] * [1, -1, 1])
            )
            blades.append(shapes.tube(path, np.linspace(0.02, 0.004, 5) * high, 4, 0.3))
        return [textured(shapes.joined(blades), 0.3, leaf, object_id)]
    tubes, ends = branches(rng, at, np.array([0, -1.0, 0]), 0.5 * high, 2)
    bark = surfaces.tinted(surfaces.of_kind(rng, "planks"), np.array([0.36, 0.27, 0.2]) * rng.uniform(0.5, 1.3))
    out = [textured(shapes.joined(tubes), 0.4, bark, object_id)]
    if rng.random() < 0.75:
        leaves = []
        for end in ends:
            for _ in range(rng.integers(2, 6)):
                size = high * rng.uniform(0.02, 0.06) * np.array([1, 0.15, 0.55])
                R = (
                    shapes.turn(1, rng.uniform(0, 6.3))
                    @ shapes.turn(0, rng.normal(0, 0.6))
                    @ shapes.turn(2, rng.normal(0, 0.6))
                )
                leaves.append(shapes.moved(shapes.ball(size, 4), R, end + rng.normal(0, 0.06 * high, 3)))
        out.append(textured(shapes.joined(leaves), 0.4, leaf, object_id))
    return out


def fence(rng: np.random.Generator, start: np.ndarray, way: np.ndarray) -> Mesh:
    """Posts and rails, or wires between poles."""
    count, gap, high = int(rng.integers(4, 14)), rng.uniform(0.12, 1.6), rng.uniform(0.6, 1.6)
    r = rng.uniform(0.01, 0.05)
    parts = [shapes.moved(shapes.cylinder(r, high, segments=8), np.eye(3), start + k * gap * way) for k in range(count)]
    for y in np.linspace(0.25, 0.95, rng.integers(1, 4)) * high:
        rail = start + np.linspace(0, 1, 6)[:, None] * (count - 1) * gap * way - [0, y, 0]
        parts.append(shapes.tube(rail, np.full(6, r * rng.uniform(0.2, 0.9)), 6))
    return shapes.joined(parts)


def make(rng: np.random.Generator, frames: int, size_hw: tuple[int, int], seed: int) -> FamilyClip:
    """A street or open land, seen from eye height, from low or from above."""
    fov = rng.uniform(35, 80) if rng.random() < 0.85 else rng.uniform(12, 25)
    distance = rng.uniform(1.5, 6) * (60 / fov if fov < 30 else 1)
    target = np.array([0, -rng.uniform(0.3, 1.8), 0])
    above = rng.uniform(-0.1, 0.25) if rng.random() < 0.8 else rng.uniform(0.3, 0.7)
    cams = cameras.around(rng, frames, target, distance, height=above * distance, yaw=rng.normal(0, 0.6))
    cams = cameras.above_ground(cams, 0.25)
    eye = cameras.eyes(cams)
    background = (settings.street if rng.random() < 0.45 else settings.open_land)(rng, eye)
    objects, number = [], 0
    t = np.linspace(0, rng.uniform(0.3, 1.5), frames)
    for _ in range(rng.integers(4, 12)):
        at = np.array([rng.normal(0, 0.45 * distance), 0, rng.normal(0, 0.7 * distance)])
        gap = float(np.linalg.norm((at - eye)[:, [0, 2]], axis=1).min())
        if gap < max(0.8, 0.25 * distance):
            continue
        number, kind = number + 1, rng.random()
        if kind < 0.4:
            more = plant(rng, at, min(np.exp(rng.uniform(np.log(0.3), np.log(3))), gap), number)
        elif kind < 0.55:
            a = rng.uniform(0, 6.3)
            mesh = fence(rng, at, np.array([np.cos(a), 0, np.sin(a)]))
            if np.linalg.norm(mesh.vertices[:, None] - eye, axis=-1).min() < 0.6:
                continue
            more = [textured(mesh, 0.3, surfaces.surface(rng, 0.4), number)]
        elif kind < 0.75:
            mesh, size = thing(rng), rng.uniform(0.2, 1.3)
            mesh = mesh._replace(vertices=mesh.vertices * size)
            mesh = shapes.moved(mesh, shapes.turn(1, rng.uniform(0, 6.3)), at - [0, mesh.vertices[:, 1].max(), 0])
            more = [textured(mesh, size, surfaces.surface(rng, 0.8), number)]
        elif kind < 0.88 and assets.available() and gap > 1.5:
            more, _, after = people.person(rng, frames, seed, at, rng.uniform(0, 6.3), number, float(t[-1]))
            number = after - 1
        else:
            more, _ = animals.animal(rng, t, at, rng.uniform(0, 6.3), number)
        if min(np.linalg.norm(o.vertices[:, ::5] - eye[:, None][: len(o.vertices)], axis=-1).min() for o in more) > 0.4:
            objects += more
    K = cameras.lens(rng, size_hw, fov)
    return FamilyClip((*objects, *background), skies.clear_sky(rng), True, cams, K, size_hw, "outdoors", seed)
