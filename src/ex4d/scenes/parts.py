"""Building blocks of the procedural scenes: meshes with texture coordinates, rigid motions, and articulated movers.

Scene axes: x right, y DOWN (the ground is y = 0, up is -y), z away from the source camera; metres. A part has a rest shape;
`motion(time)` places it and `deform(vertices, time)` bends it; time is in frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Part:
    """One mesh with one material.

    Attributes:
        vertices: Rest positions [V, 3], metres.
        faces: [F, 3] vertex indices.
        uv: [V, 2], 1 = one texture tile.
        material: Index into the scene's materials.
        smooth: Whether normals are averaged over the faces of a vertex.
        motion: time -> scene_from_part [4, 4]; None is the identity.
        deform: (rest vertices, time) -> vertices, in the part's own frame.
        casts_shadow: False for shells (walls, sky, terrain).
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    material: int = 0
    smooth: bool = True
    motion: Callable[[float], np.ndarray] | None = None
    deform: Callable[[np.ndarray, float], np.ndarray] | None = None
    casts_shadow: bool = True

    def moved(self, matrix: np.ndarray) -> Part:
        """The same part with its rest shape transformed by a 4x4 matrix."""
        return replace(self, vertices=self.vertices @ matrix[:3, :3].T + matrix[:3, 3])

    def at(self, time: float) -> np.ndarray:
        """Scene positions [V, 3] at a time."""
        v = self.vertices if self.deform is None else self.deform(self.vertices, time)
        if self.motion is not None:
            m = self.motion(time)
            v = v @ m[:3, :3].T + m[:3, 3]
        return v


def translation(x: float, y: float, z: float) -> np.ndarray:
    """4x4 translation."""
    m = np.eye(4)
    m[:3, 3] = x, y, z
    return m


def rotation(axis: str, angle_rad: float) -> np.ndarray:
    """4x4 rotation about a coordinate axis."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    m = np.eye(4)
    m[i, i], m[i, j], m[j, i], m[j, j] = c, -s, s, c
    return m


def grid_faces(rows: int, cols: int) -> np.ndarray:
    """Two triangles for every cell of a rows x cols vertex grid."""
    i = (np.arange(rows - 1)[:, None] * cols + np.arange(cols - 1)).reshape(-1)
    a, b, c, d = i, i + 1, i + cols, i + cols + 1
    return np.concatenate([np.stack([c, a, b], 1), np.stack([c, b, d], 1)]).astype(np.int32)


def box(size: tuple[float, float, float], tile_m: float = 1.0, material: int = 0) -> Part:
    """A box that stands on y = 0, centred in x and z, with flat faces and textures of `tile_m` metres a tile."""
    sx, sy, sz = size
    v, uv, faces = [], [], []
    for axis in range(3):
        u_axis, v_axis = (axis + 1) % 3, (axis + 2) % 3
        for side in (-0.5, 0.5):
            corner = np.zeros((4, 3))
            corner[:, axis] = side
            corner[:, u_axis] = [-0.5, 0.5, -0.5, 0.5]
            corner[:, v_axis] = [-0.5, -0.5, 0.5, 0.5]
            faces.append(np.array([[2, 0, 1], [2, 1, 3]]) + 4 * len(faces))
            p = corner * [sx, sy, sz] + [0, -sy / 2, 0]
            v.append(p)
            flat = {0: (2, 1), 1: (0, 2), 2: (0, 1)}[axis]
            uv.append(p[:, flat] / tile_m)
    return Part(np.concatenate(v), np.concatenate(faces).astype(np.int32), np.concatenate(uv), material, smooth=False)


def lathe(profile: list[tuple[float, float]], segments: int = 20, tile_m: float = 1.0, material: int = 0) -> Part:
    """A surface of revolution about the y axis; `profile` lists (radius, y), and its ends should have radius 0."""
    p = np.array(profile, np.float64)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    v = np.stack(
        [p[:, :1] * np.cos(angle), np.broadcast_to(p[:, 1:], (len(p), segments + 1)), p[:, :1] * np.sin(angle)], -1
    )
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(p, axis=0).T))])
    around = max(1, round(2 * np.pi * p[:, 0].max() / tile_m))
    uv = np.stack(np.broadcast_arrays(angle / (2 * np.pi) * around, along[:, None] / tile_m), -1)
    return Part(v.reshape(-1, 3), grid_faces(len(p), segments + 1), uv.reshape(-1, 2), material)


def ellipsoid(radii: tuple[float, float, float], tile_m: float = 1.0, material: int = 0, rings: int = 14) -> Part:
    """An ellipsoid about the origin."""
    a = np.linspace(0, np.pi, rings + 1)
    unit = lathe([(float(np.sin(t)), float(-np.cos(t))) for t in a], 2 * rings, tile_m / max(radii), material)
    return replace(unit, vertices=unit.vertices * np.asarray(radii))


def capsule(length: float, radius: float, tile_m: float = 1.0, material: int = 0) -> Part:
    """A capsule hanging from the origin along +y (down), as a limb does from its joint."""
    a = np.linspace(0, np.pi / 2, 5)
    top = [(float(radius * np.sin(t)), float(-radius * np.cos(t))) for t in a]
    bottom = [(r, float(length - y)) for r, y in reversed(top)]
    return lathe(top + bottom, 12, tile_m, material)


def cylinder(
    radius: float, height: float, tile_m: float = 1.0, material: int = 0, top_radius: float | None = None
) -> Part:
    """A closed cylinder or cone frustum standing on y = 0."""
    t = radius if top_radius is None else top_radius
    part = lathe([(0, 0), (radius, 0), (radius, 0), (t, -height), (t, -height), (0, -height)], 20, tile_m, material)
    return part


def rod(start: np.ndarray, end: np.ndarray, radius: float, material: int = 0) -> Part:
    """A thin six-sided bar between two points."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    length = float(np.linalg.norm(end - start))
    part = lathe([(0, 0), (radius, 0), (radius, length), (0, length)], 6, max(0.2, radius * 6), material)
    y = (end - start) / length
    x = np.cross(y, [0.0, 0.0, 1.0] if abs(y[2]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    m = np.eye(4)
    m[:3, :3] = np.stack([x, y, np.cross(x, y)], 1)
    m[:3, 3] = start
    return part.moved(m)


def sheet(width: float, height: float, n: int = 2, tile_m: float = 1.0, material: int = 0) -> Part:
    """A vertical sheet in the xy plane, standing on y = 0: cloth, glass, pictures."""
    x, y = np.meshgrid(np.linspace(-width / 2, width / 2, n), np.linspace(-height, 0, n))
    v = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    return Part(v, grid_faces(n, n), v[:, :2] / tile_m, material, smooth=n > 2)


def merged(parts: list[Part]) -> Part:
    """Several static parts of one material as one."""
    offset, v, f, uv = 0, [], [], []
    for p in parts:
        v.append(p.vertices)
        f.append(p.faces + offset)
        uv.append(p.uv)
        offset += len(p.vertices)
    first = parts[0]
    return replace(first, vertices=np.concatenate(v), faces=np.concatenate(f).astype(np.int32), uv=np.concatenate(uv))


def leaves(
    rng: np.random.Generator, count: int, center: np.ndarray, spread: float, size_m: float, material: int = 0
) -> Part:
    """Two-triangle leaves with random directions in a ball: crowns of trees and plants."""
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    middle = center + directions * (spread * rng.uniform(0.25, 1, (count, 1)) ** 0.5)
    a = rng.standard_normal((count, 3))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = np.cross(a, directions)
    b /= np.linalg.norm(b, axis=1, keepdims=True) + 1e-9
    s = size_m * rng.uniform(0.6, 1.3, (count, 1))
    v = np.stack([middle - a * s, middle + b * s * 0.45, middle - b * s * 0.45, middle + a * s], 1).reshape(-1, 3)
    base = 4 * np.arange(count)[:, None]
    faces = np.concatenate([base + [0, 1, 2], base + [1, 3, 2]]).astype(np.int32)
    uv = np.tile([[0.0, 0.0], [0.3, 0.5], [-0.3, 0.5], [0.0, 1.0]], (count, 1)) + rng.uniform(
        size=(count, 1, 2)
    ).repeat(4, 1).reshape(-1, 2)
    return Part(v, faces, uv, material, smooth=False)


def heightfield(
    extent: float, n: int, height: Callable[[np.ndarray, np.ndarray], np.ndarray], tile_m: float, material: int = 0
) -> Part:
    """Ground over [-extent, extent]^2, with vertices dense in the middle (squared spacing)."""
    s = np.linspace(-1, 1, n)
    x, z = np.meshgrid(np.sign(s) * np.abs(s) ** 1.7 * extent, np.sign(s) * np.abs(s) ** 1.7 * extent)
    v = np.stack([x, -height(x, z), z], -1).reshape(-1, 3)
    return Part(v, grid_faces(n, n), v[:, [0, 2]] / tile_m, material, casts_shadow=False)


def walk(rng: np.random.Generator, num_frames: int, radius: float = 0.9) -> tuple[Callable[[float], np.ndarray], float]:
    """A ground path about the origin (ellipse or line with turns): time -> 4x4 with +z of the mover ahead, and speed in m/frame."""
    turn = rng.uniform(0.35, 1.0) * 2 * np.pi * rng.choice([-1, 1])
    phase, ax, az = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.5, 1), radius * rng.uniform(0.35, 1)

    def place(time: float) -> np.ndarray:
        a = phase + turn * time / max(num_frames - 1, 1)
        dx, dz = -ax * np.sin(a) * np.sign(turn), az * np.cos(a) * np.sign(turn)
        return translation(ax * np.cos(a), 0, az * np.sin(a)) @ rotation("y", float(np.arctan2(dx, dz)))

    return place, abs(turn) * (ax + az) / 2 / max(num_frames - 1, 1)


def quadruped(
    rng: np.random.Generator,
    place: Callable[[float], np.ndarray],
    speed: float,
    body: int,
    detail: int,
    size: float = 1.0,
) -> list[Part]:
    """A four-legged walker of capsules with a swinging gait, head and tail; about 0.6 m tall at size 1."""
    leg, girth, length = 0.32 * size * rng.uniform(0.7, 1.4), 0.13 * size * rng.uniform(0.8, 1.3), 0.36 * size
    hip, stride = leg + 0.02, 2 * np.pi * speed / (0.5 * size)

    def bob(t: float) -> np.ndarray:
        return place(t) @ translation(0, -hip - girth * 0.5 + 0.015 * size * np.sin(2 * stride * t), 0)

    parts = [replace(ellipsoid((girth, girth, length), 0.35, body), motion=bob)]
    for k, (x, z) in enumerate([(-1, 1), (1, -1), (1, 1), (-1, -1)]):
        offset = translation(x * girth * 0.7, girth * 0.4, z * length * 0.62)

        def swing(t: float, offset: np.ndarray = offset, k: int = k) -> np.ndarray:
            return bob(t) @ offset @ rotation("x", 0.55 * np.sin(stride * t + np.pi * (k // 2)))

        parts.append(replace(capsule(leg, girth * 0.33, 0.3, body), motion=swing))
    neck = rng.uniform(0.1, 0.45) * size

    def nod(t: float) -> np.ndarray:
        return bob(t) @ translation(0, -neck, length * 0.95) @ rotation("x", 0.2 * np.sin(stride * t * 0.5))

    parts.append(replace(ellipsoid((girth * 0.62, girth * 0.62, girth * 0.95), 0.3, detail), motion=nod))
    neck_part = rod(np.array([0, 0, length * 0.7]), np.array([0, -neck, length * 0.95]), girth * 0.4, body)
    parts.append(replace(neck_part, motion=bob))

    def wag(t: float) -> np.ndarray:
        return (
            bob(t) @ translation(0, -girth * 0.3, -length) @ rotation("y", 0.6 * np.sin(0.5 * t)) @ rotation("x", -2.2)
        )

    parts.append(replace(capsule(0.28 * size, girth * 0.18, 0.3, detail), motion=wag))
    return parts


def humanoid(
    rng: np.random.Generator,
    place: Callable[[float], np.ndarray],
    speed: float,
    clothes: tuple[int, int, int],
    size: float = 1.0,
) -> list[Part]:
    """A walking figure of capsules, about 1.6 m tall at size 1; clothes = (trousers, shirt, skin) materials."""
    leg, torso, girth = 0.78 * size, 0.52 * size, 0.17 * size * rng.uniform(0.85, 1.2)
    stride = 2 * np.pi * speed / (1.1 * size)

    def bob(t: float) -> np.ndarray:
        return place(t) @ translation(0, -leg - 0.02 * size * np.abs(np.sin(stride * t)), 0)

    trousers, shirt, skin = clothes
    parts = [
        replace(
            ellipsoid((girth, torso / 2, girth * 0.65), 0.4, shirt).moved(translation(0, -torso / 2, 0)), motion=bob
        )
    ]
    head = ellipsoid((0.1 * size, 0.13 * size, 0.11 * size), 0.3, skin).moved(translation(0, -torso - 0.14 * size, 0))
    parts.append(replace(head, motion=bob))
    for side in (-1, 1):
        for joint, length, radius, material, sign, reach in (
            ((side * girth * 0.5, 0.0), leg, 0.075 * size, trousers, side, 0.55),
            ((side * girth * 1.15, -torso * 0.85), 0.58 * size, 0.05 * size, shirt, -side, 0.7),
        ):

            def swing(t: float, joint: tuple[float, float] = joint, sign: int = sign, reach: float = reach):
                return (
                    bob(t)
                    @ translation(joint[0], joint[1], 0)
                    @ rotation("x", sign * reach * np.sin(stride * t))
                    @ rotation("z", -0.08 * sign)
                )

            parts.append(replace(capsule(length, radius, 0.3, material), motion=swing))
    return parts


def blob(
    rng: np.random.Generator, radius: float, material: int, num_frames: int, center: tuple[float, float, float]
) -> Part:
    """A ball that breathes in travelling waves, hovering and drifting."""
    waves = [
        (rng.standard_normal(3) * rng.uniform(1.5, 4), rng.uniform(0.1, 0.4), rng.uniform(0, 6.3)) for _ in range(4)
    ]
    drift, phase = rng.uniform(0.1, 0.5), rng.uniform(0, 6.3)
    rest = ellipsoid((radius, radius, radius), 0.4, material, rings=20)

    def deform(v: np.ndarray, time: float) -> np.ndarray:
        unit = v / radius
        swell = np.ones(len(v))
        for k, w, p in waves:
            swell += 0.12 * np.sin(unit @ k + w * time + p)
        return v * swell[:, None]

    def motion(time: float) -> np.ndarray:
        a = phase + 2 * np.pi * time / num_frames
        return translation(
            center[0] + drift * np.cos(a), center[1] - 0.12 * np.sin(2 * a), center[2] + drift * np.sin(a)
        )

    return replace(rest, deform=deform, motion=motion)


def bouncing(rng: np.random.Generator, part: Part, num_frames: int, radius: float, reach: float = 0.8) -> Part:
    """A part (about its origin) that bounces along a line and spins."""
    heading, start, height = rng.uniform(0, 2 * np.pi), rng.uniform(-1, 0) * reach, rng.uniform(0.3, 0.9)
    period, spin, side = rng.uniform(14, 26), rng.uniform(0.05, 0.25) * rng.choice([-1, 1]), rng.uniform(-0.5, 0.5)

    def motion(time: float) -> np.ndarray:
        s = start + 1.6 * reach * time / max(num_frames - 1, 1)
        hop = height * abs(np.sin(np.pi * time / period))
        x, z = s * np.cos(heading) - side * np.sin(heading), s * np.sin(heading) + side * np.cos(heading)
        return translation(x, -radius - hop, z) @ rotation("z", spin * time) @ rotation("x", 0.7 * spin * time)

    return replace(part, motion=motion)


def flag(rng: np.random.Generator, width: float, height: float, material: int, place: np.ndarray) -> Part:
    """Cloth that waves from a pole at its left edge."""
    speed, phase, k = rng.uniform(0.2, 0.4), rng.uniform(0, 6.3), rng.uniform(3, 6)

    def deform(v: np.ndarray, time: float) -> np.ndarray:
        s = v[:, 0] / width + 0.5
        out = v.copy()
        out[:, 2] += 0.16 * s * np.sin(k * s - speed * time + phase + 1.5 * v[:, 1])
        return out

    return replace(sheet(width, height, 14, 0.8, material), deform=deform, motion=lambda _t: place)
