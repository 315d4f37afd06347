"""Things of any shape at any scale before a far background, without a ground to stand on: place in the picture says nothing about depth."""

from __future__ import annotations

import numpy as np

from families import cameras, shapes, skies, surfaces
from families.shapes import Mesh
from families.types import FamilyClip, Textured


def thing(rng: np.random.Generator) -> Mesh:
    """A shape about the origin within about one metre: ball, box, vase, ring, bundle of tubes, crumpled ball."""
    kind = rng.integers(6)
    if kind == 0:
        return shapes.ball(rng.uniform(0.25, 0.5, 3), 12, rng.choice([1.3, 2.0, 2.0, 3.0, 6.0]))
    if kind == 1:
        return shapes.box(rng.uniform(0.05, 0.5, 3))
    if kind == 2:
        y = np.linspace(0.5, -0.5, 14)
        radius = np.abs(0.22 + 0.1 * np.sin(rng.uniform(2, 9) * y + rng.uniform(0, 6)) + rng.normal(0, 0.01, 14))
        radius[0], radius[-1] = 0, rng.choice([0.0, radius[-1]])
        return shapes.lathe(radius, y, 20)
    if kind == 3:
        a = np.linspace(0, 2 * np.pi * rng.uniform(0.5, 1), 28)
        ring = np.stack([np.cos(a), np.sin(a), 0.2 * np.sin(rng.integers(1, 4) * a)], 1) * rng.uniform(0.25, 0.45)
        return shapes.tube(ring, np.full(28, rng.uniform(0.03, 0.14)), 10)
    if kind == 4:
        parts = []
        for _ in range(rng.integers(2, 7)):
            steps = rng.normal(0, 0.12, (9, 3)) + rng.normal(0, 0.08, 3)
            path = np.cumsum(steps, 0) - steps.sum(0) / 2
            parts.append(shapes.tube(path, np.linspace(1, rng.uniform(0.2, 1), 9) * rng.uniform(0.02, 0.12), 8))
        return shapes.joined(parts)
    mesh = shapes.ball(rng.uniform(0.3, 0.5, 3), 16)
    bump = np.ones(len(mesh.vertices))
    for _ in range(4):
        bump += rng.uniform(0.03, 0.12) * np.sin(mesh.vertices @ rng.normal(0, 7, 3) + rng.uniform(0, 6))
    return mesh._replace(vertices=mesh.vertices * bump[:, None])


def spin(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Rotations [T, 3, 3]: some attitude, for half of the things turning slowly."""
    u = np.linspace(-0.5, 0.5, frames)
    turning = rng.normal(0, 1.2, 3) * (rng.random() < 0.5)
    start = rng.uniform(0, 2 * np.pi, 3)
    return (
        shapes.turn(1, start[0] + turning[0] * u)
        @ shapes.turn(0, start[1] + turning[1] * u)
        @ shapes.turn(2, start[2] + turning[2] * u)
    )


def make(rng: np.random.Generator, frames: int, size_hw: tuple[int, int], seed: int) -> FamilyClip:
    """Two to nine things drift before a sky."""
    K = cameras.lens(rng, size_hw, rng.uniform(30, 75))
    objects, cams = _drifting(rng, frames, size_hw, K)
    return FamilyClip(objects, skies.clear_sky(rng), True, cams, K, size_hw, "floating", seed)


def make_before_pictures(rng: np.random.Generator, frames: int, size_hw: tuple[int, int], seed: int) -> FamilyClip:
    """The same before real panoramas and photographs, in macro and tele shots too: the picture behind says nothing about the things."""
    from families import settings  # it builds on this module

    fov = np.exp(rng.uniform(np.log(8), np.log(80)))
    K = cameras.lens(rng, size_hw, fov)
    objects, cams = _drifting(rng, frames, size_hw, K)
    panorama, sky = settings.far(rng, seed, cams[0, 2, :3], 1.2 * fov)
    return FamilyClip(objects, panorama, sky, cams, K, size_hw, "backdrops", seed)


def _drifting(
    rng: np.random.Generator, frames: int, size_hw: tuple[int, int], K: np.ndarray
) -> tuple[tuple[Textured, ...], np.ndarray]:
    """Things in the picture and the cameras."""
    reach = np.exp(rng.uniform(np.log(0.6), np.log(8)))
    half = 0.5 * np.array([size_hw[1] / K[0, 0], size_hw[0] / K[1, 1]])
    narrow = min(1.8 * float(half.max()), 1.0)  # a long lens shows small things
    high = rng.normal(0, 0.4) * reach
    cams = cameras.around(rng, frames, np.zeros(3), reach, height=high, yaw=0.0, motion=narrow)
    objects = []
    for k in range(rng.integers(2, 10)):
        z = reach * np.exp(rng.normal(0, 0.45))
        size = z * narrow * np.exp(rng.normal(-1.0, 0.5))
        at = np.array([*(rng.uniform(-0.9, 0.9, 2) * half * z), z])
        at = at + np.linspace(-0.5, 0.5, frames)[:, None] * rng.normal(0, 0.25, 3) * z * narrow * (rng.random() < 0.5)
        if (at[:, 2] - size).min() < 0.15 * reach:
            continue
        world = (at - cams[0, :3, 3]) @ cams[0, :3, :3]
        mesh = thing(rng)
        mesh = shapes.moved(mesh._replace(vertices=mesh.vertices * size), spin(rng, frames), world)
        tile = size * np.exp(rng.uniform(np.log(0.3), np.log(2)))
        objects.append(textured(mesh, tile, surfaces.surface(rng, 0.85), k + 1))
    return tuple(objects), cams


def textured(mesh: Mesh, tile: float, texture: np.ndarray, object_id: int) -> Textured:
    """A mesh under a texture whose tile is `tile` metres wide."""
    v = mesh.vertices if mesh.vertices.ndim == 3 else mesh.vertices[None]
    uv = (mesh.uv / tile).astype(np.float32)
    return Textured(np.ascontiguousarray(v, np.float32), mesh.faces.astype(np.int32), uv, texture, object_id)
