"""Rooms with furniture and clutter (the pieces of depth_layout.py as meshes), each piece one thing; people in some."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from depth_layout import BOX, CYLINDER, Builder

from families import assets, cameras, people, settings, shapes, surfaces
from families.floating import textured
from families.shapes import Mesh
from families.types import FamilyClip, Textured

#: Different textures a room has; its materials share them.
TEXTURES = 20


def primitive(kind: int, center: np.ndarray, R: np.ndarray, half: np.ndarray) -> Mesh:
    """A part of `depth_layout.Builder` as a mesh in metres."""
    if kind == BOX:
        mesh = shapes.box(half)
    elif kind == CYLINDER:
        mesh = shapes.moved(shapes.cylinder(1.0, 2 * half[1], segments=12), np.eye(3), np.array([0, half[1], 0]))
        mesh = mesh._replace(vertices=mesh.vertices * [half[0], 1, half[2]], uv=mesh.uv * [half[0], 1])
    else:
        mesh = shapes.ball(half, 8)
    return shapes.moved(mesh, R, center)


def piece(b: Builder, make_piece: Callable[[], object], at: np.ndarray, yaw: float) -> list[tuple]:
    """The parts of one piece of furniture, where it stands."""
    before = len(b.parts)
    make_piece()
    R = shapes.turn(1, yaw)
    found = [(kind, at + R @ c, R @ turn, half, m) for kind, c, turn, half, m, _ in b.parts[before:]]
    del b.parts[before:]
    return found


def meshes(
    rng: np.random.Generator, b: Builder, parts: list[tuple], bank: list[np.ndarray], object_id: int
) -> list[Textured]:
    """One mesh for every texture in use; a material is plain, or one of the room's textures."""
    plain: dict[int, list[Mesh]] = {}
    by: dict[int, list[Mesh]] = {}
    for kind, c, R, half, m in parts:
        share = b.materials[m][3]
        (by if share > 0.4 else plain).setdefault(int(m), []).append(primitive(kind, c, R, half))
    out = []
    for m, found in plain.items():
        texture = surfaces.plain(np.clip(b.materials[m][:3], 0, 1) ** (1 / 2.2))  # the tints are linear light
        out.append(textured(shapes.joined(found), 1.0, texture, object_id))
    for m, found in by.items():
        texture = bank[int(b.materials[m][4]) % len(bank)]
        out.append(textured(shapes.joined(found), float(b.materials[m][5]), texture, object_id))
    return out


def make(rng: np.random.Generator, frames: int, size_hw: tuple[int, int], seed: int) -> FamilyClip:
    """A room seen from within: a whole corner of it, or one table from close by."""
    fov = rng.uniform(45, 80)
    close = rng.random() < 0.5
    distance = rng.uniform(0.7, 1.8) if close else rng.uniform(1.8, 4)
    target = np.array([0, -rng.uniform(0.4, 1.0), 0])
    cams = cameras.around(
        rng, frames, target, distance, height=distance * rng.uniform(0.0, 0.6), yaw=rng.uniform(0, 6.3)
    )
    cams = cameras.above_ground(cams, 0.3)
    eye = cameras.eyes(cams)
    b = Builder(rng, TEXTURES)
    bank = [surfaces.surface(rng, 0.9) for _ in range(TEXTURES)]
    kinds = [b.table, b.table, b.chair, b.chair, b.shelf, b.cabinet, b.sofa, b.bed, b.heap]
    objects, number = [], 0
    for k in range(rng.integers(8, 16)):
        spread = 0.0 if k == 0 else 1.6
        at = np.array([rng.normal(0, spread), 0, rng.normal(0, spread)])
        chosen = b.table if close and k == 0 else kinds[rng.integers(len(kinds))]
        parts = piece(b, chosen, at, rng.choice([0, 1, 2, 3]) * np.pi / 2 + rng.normal(0, 0.2))
        gap = min(
            np.linalg.norm(np.maximum(np.abs((eye - c) @ R) - half, 0), axis=1).min() for _, c, R, half, _ in parts
        )
        if gap < 0.3:
            continue
        number += 1
        objects += meshes(rng, b, parts, bank, number)
    if assets.available() and rng.random() < 0.5:
        at = np.array([rng.normal(0, 1.5), 0, rng.normal(0, 1.5)])
        if np.linalg.norm((at - eye)[:, [0, 2]], axis=1).min() > 1.0:
            more, _, _ = people.person(rng, frames, seed, at, rng.uniform(0, 6.3), number + 1, rng.uniform(0.2, 1.5))
            objects += more
    shell = settings.room(rng, eye)
    K = cameras.lens(rng, size_hw, fov)
    return FamilyClip((*objects, *shell), None, False, cams, K, size_hw, "interiors", seed)
