"""The families of procedural scenes: what stands where, what moves, and how the source camera moves.

All scenes keep the ring that a camera on an orbit needs free: nothing tall stands between 0.6 and 1.25 times the camera's
distance from the middle of the scene, so that the truth can be rendered up to 180 degrees around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ex4d.geometry.frames import look_at
from ex4d.scenes import parts
from ex4d.scenes import textures as tex
from ex4d.scenes.parts import Part, rotation, translation
from ex4d.scenes.shading import Light, Material


@dataclass
class Layout:
    """A scene under construction: everything drawn from one generator, in a fixed order."""

    rng: np.random.Generator
    num_frames: int
    textures: list[np.ndarray] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    light: Light | None = None
    room_half: np.ndarray | None = None
    haze_m: float | None = None
    distance_m: float = 3.0
    camera: Callable[[float], np.ndarray] = field(default=lambda _t: np.eye(4))
    target: np.ndarray = field(default_factory=lambda: np.zeros(3))
    fov_deg: float = 55.0

    def material(
        self,
        makers: tuple[Callable[..., np.ndarray], ...],
        mirror: float = 0.0,
        emission: float = 0.0,
        kind: str = "surface",
    ) -> int:
        """A new material with a texture by one of `makers`; its index."""
        self.textures.append(makers[int(self.rng.integers(len(makers)))](self.rng))
        self.materials.append(Material(len(self.textures) - 1, mirror, emission, kind))
        return len(self.materials) - 1

    def add(self, part: Part | list[Part], matrix: np.ndarray | None = None) -> None:
        """Put parts into the scene, optionally moved at rest."""
        for p in part if isinstance(part, list) else [part]:
            self.parts.append(p if matrix is None else p.moved(matrix))

    def around(self, low: float, high: float) -> np.ndarray:
        """A random place on the ground between two distances from the middle, turned at random."""
        a, r = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(low, high)
        return translation(r * np.cos(a), 0, r * np.sin(a)) @ rotation("y", self.rng.uniform(0, 2 * np.pi))


def _room(s: Layout, gloss: float = 0.0) -> None:
    rng, d = s.rng, s.distance_m
    half_x, half_z, height = d * rng.uniform(1.5, 2.1), d * rng.uniform(1.5, 2.1), rng.uniform(2.4, 3.4)
    s.room_half = np.array([half_x, height, half_z])
    floor = s.material(tex.FLOORS, mirror=gloss)
    ceiling = s.material((tex.ceiling,))
    shell = parts.box((2 * half_x, height, 2 * half_z), rng.uniform(1.2, 2.5))
    for k, side in enumerate(["wall_x", "wall_x", "ceiling", "floor", "wall_z", "wall_z"]):
        material = {"floor": floor, "ceiling": ceiling}.get(side)
        if material is None:
            material = s.material(tex.WALLS) if k in (0, 4) else len(s.materials) - 1
        faces = shell.faces[2 * k : 2 * k + 2]
        s.add(replace(shell, faces=faces, material=material, casts_shadow=False))
    for _ in range(int(rng.integers(3, 8))):  # pictures and windows hang on the walls
        w, h = rng.uniform(0.5, 1.6), rng.uniform(0.4, 1.2)
        window = rng.uniform() < 0.3
        m = s.material((tex.poster,), emission=1.2 if window else 0.0)
        wall, along = int(rng.integers(4)), rng.uniform(-0.8, 0.8)
        at = translation(along * half_x, -rng.uniform(0.8, 1.3), -half_z + 0.03)
        if wall % 2:
            at = translation(along * half_z, -rng.uniform(0.8, 1.3), -half_x + 0.03)
        s.add(parts.box((w, h, 0.05), max(w, h), m), rotation("y", wall * np.pi / 2) @ at)
    for _ in range(int(rng.integers(4, 9))):  # furniture along the walls, beyond the ring of the cameras
        _furniture(s, s.around(1.28 * d, 1.45 * d), tall=True)
    rug = s.material((tex.plaid, tex.poster, tex.plaster))
    size = rng.uniform(0.8, 1.8)
    s.add(replace(parts.box((size * 1.4, 0.012, size), size * 1.4, rug), casts_shadow=False))
    for _ in range(int(rng.integers(1, 4))):  # low things near the middle
        _furniture(s, s.around(0.25 * d, 0.55 * d), tall=False)
    lamp = np.array([rng.uniform(-0.5, 0.5), -height + 0.15, rng.uniform(-0.5, 0.5)])
    warm = np.array([1.0, rng.uniform(0.85, 1.0), rng.uniform(0.65, 1.0)], np.float32)
    s.light = Light(
        lamp,
        warm * rng.uniform(0.5, 0.95),
        np.float32(rng.uniform(0.35, 0.6)) * (0.5 + 0.5 * warm[::-1]),
        np.array([lamp[0], 0, lamp[2]]),
        shadow_radius=0.85 * height * 1.6,
    )


def _furniture(s: Layout, place: np.ndarray, tall: bool) -> None:
    rng = s.rng
    kind = int(rng.integers(5 if tall else 4))
    scale = 1.0 if tall else 0.6
    m = s.material(tex.THINGS)
    if kind == 0:  # table or stool
        w, h, depth = rng.uniform(0.7, 1.4) * scale, rng.uniform(0.5, 0.8) * scale, rng.uniform(0.5, 0.9) * scale
        s.add(parts.box((w, 0.05, depth), 0.8, m), place @ translation(0, -h, 0))
        for x in (-1, 1):
            for z in (-1, 1):
                s.add(
                    parts.box((0.05, h, 0.05), 0.5, m),
                    place @ translation(x * (w / 2 - 0.05), 0, z * (depth / 2 - 0.05)),
                )
        top = s.material(tex.THINGS)
        s.add(
            parts.box((0.2 * w, rng.uniform(0.1, 0.3), 0.15), 0.4, top),
            place @ translation(rng.uniform(-0.3, 0.3) * w, -h - 0.05, 0),
        )
    elif kind == 1:  # chest, crate
        s.add(
            parts.box(
                (rng.uniform(0.4, 1.0) * scale, rng.uniform(0.3, 0.8) * scale, rng.uniform(0.4, 0.7) * scale),
                rng.uniform(0.5, 1.0),
                m,
            ),
            place,
        )
    elif kind == 2:  # vase with a plant
        r = rng.uniform(0.1, 0.18)
        s.add(
            parts.lathe(
                [(0, 0), (r, 0), (r * 1.4, -r * 1.5), (r * 0.6, -r * 3), (r * 0.9, -r * 3.3), (0, -r * 3.2)], 20, 0.5, m
            ),
            place,
        )
        green = s.material((tex.grass,))
        s.add(parts.leaves(rng, 60, np.array([0, -r * 5, 0]), 0.28 * (1.2 if tall else 0.8), 0.12, green), place)
    elif kind == 3:  # ball or cushion
        r = rng.uniform(0.12, 0.3)
        s.add(parts.ellipsoid((r, r * rng.uniform(0.5, 1), r), 0.5, m), place @ translation(0, -r * 0.8, 0))
    else:  # shelf
        w, h = rng.uniform(0.8, 1.4), rng.uniform(1.2, 2.0)
        for k in range(5):
            s.add(parts.box((w, 0.04, 0.3), 0.8, m), place @ translation(0, -k * h / 4, 0))
        for x in (-1, 1):
            s.add(parts.box((0.04, h, 0.3), 0.8, m), place @ translation(x * w / 2, 0, 0))
        for k in range(4):
            book = s.material(tex.THINGS)
            s.add(
                parts.box((rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.3), 0.2), 0.3, book),
                place @ translation(rng.uniform(-0.25, 0.25) * w, -k * h / 4 - 0.04, 0),
            )


def _terrain(s: Layout) -> None:
    rng, d = s.rng, s.distance_m
    ground = s.material((tex.grass, tex.grass, tex.grass, tex.stone, tex.plaster))
    sky = s.material((tex.marble,), kind="sky")
    waves = [
        (rng.uniform(0.08, 0.35), rng.uniform(0, 2 * np.pi), rng.uniform(0, 6.3), rng.uniform(0.3, 1)) for _ in range(6)
    ]
    relief = rng.uniform(0.5, 4.0)

    def height(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        r = np.hypot(x, z)
        h = sum(a * np.sin(k * (x * np.cos(t) + z * np.sin(t)) + p) for k, t, p, a in waves)
        return (h + 1.2) * relief * np.clip((r - 1.4 * d) / 14, 0, 1) ** 1.3

    s.add(parts.heightfield(38.0, 72, height, rng.uniform(1.5, 4.0), ground))
    dome = parts.lathe([(40 * np.sin(a), -40 * np.cos(a)) for a in np.linspace(0, np.pi, 13)], 24, 40.0, sky)
    s.add(replace(dome, casts_shadow=False))
    rock = s.material((tex.stone, tex.plaster))
    for _ in range(int(rng.integers(3, 9))):
        r = rng.uniform(0.2, 1.2)
        place = s.around(1.3 * d + r, 4.5 * d)
        y = -float(height(*np.array([[place[0, 3]], [place[2, 3]]]))[0])
        bumps = rng.standard_normal((5, 3)) * 3
        p = parts.ellipsoid((r, r * rng.uniform(0.5, 0.9), r * rng.uniform(0.6, 1.1)), 1.0, rock)
        swell = 1 + 0.1 * np.sin(p.vertices / r @ bumps.T).sum(1, keepdims=True)
        s.add(replace(p, vertices=p.vertices * swell), place @ translation(0, y - 0.2 * r, 0))
    bark, crown = s.material((tex.planks,)), s.material((tex.grass,))
    for _ in range(int(rng.integers(3, 10))):
        place = s.around(1.35 * d, 5 * d)
        y = -float(height(*np.array([[place[0, 3]], [place[2, 3]]]))[0])
        h = rng.uniform(1.2, 3.2)
        s.add(parts.cylinder(0.07 * h, h, 0.5, bark, 0.03 * h), place @ translation(0, y + 0.1, 0))
        s.add(parts.leaves(rng, 160, np.array([0, -h, 0]), 0.42 * h, 0.16 * h, crown), place @ translation(0, y, 0))
    if rng.uniform() < 0.6:
        wall, roof = s.material(tex.WALLS), s.material((tex.bricks, tex.planks))
        for _ in range(int(rng.integers(1, 4))):
            place = s.around(3 * d, 5 * d)
            y = -float(height(*np.array([[place[0, 3]], [place[2, 3]]]))[0]) + 0.5
            w, h = rng.uniform(2, 4), rng.uniform(2, 3.5)
            s.add(parts.box((w, h, w * 0.8), 2.0, wall), place @ translation(0, y, 0))
            pyramid = parts.lathe([(w * 0.85, 0), (0, -w * 0.5)], 4, 2.0, roof)
            s.add(replace(pyramid, smooth=False), place @ translation(0, y - h, 0))
    for _ in range(int(rng.integers(1, 3))):
        _furniture(s, s.around(0.3 * d, 0.55 * d), tall=False)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.2)
    sun = 30 * np.array([np.cos(azimuth) * np.cos(elevation), -np.sin(elevation), np.sin(azimuth) * np.cos(elevation)])
    warm = np.array([1.0, 0.75 + 0.2 * elevation / 1.2, 0.55 + 0.4 * elevation / 1.2], np.float32)
    zenith = np.array([0.18, 0.35, 0.75], np.float32) * rng.uniform(0.5, 1.1)
    horizon = np.array([0.65, 0.72, 0.8], np.float32) * (0.5 + 0.5 * warm)
    s.light = Light(
        sun,
        warm * np.float32(rng.uniform(0.7, 1.2)),
        (0.35 * (zenith + horizon)).astype(np.float32),
        shadow_radius=1.6 * d,
        horizon=horizon.astype(np.float32),
        zenith=zenith.astype(np.float32),
    )
    s.haze_m = float(rng.uniform(60, 300))


def _movers(s: Layout, count: int, kinds: tuple[str, ...]) -> None:
    """Moving things in the middle of the scene; several share the space at different phases."""
    rng, n = s.rng, s.num_frames
    for _ in range(count):
        kind = kinds[int(rng.integers(len(kinds)))]
        if kind == "walker":
            place, speed = parts.walk(rng, n, 0.3 * s.distance_m)
            s.add(
                parts.quadruped(
                    rng, place, speed, s.material(tex.ANIMALS), s.material(tex.ANIMALS), rng.uniform(1.0, 1.9)
                )
            )
        elif kind == "person":
            place, speed = parts.walk(rng, n, 0.3 * s.distance_m)
            clothes = (s.material((tex.plaid, tex.plaster)), s.material(tex.ANIMALS), s.material((tex.plaster,)))
            s.add(parts.humanoid(rng, place, speed, clothes, rng.uniform(0.65, 0.95)))
        elif kind == "ball":
            r = rng.uniform(0.2, 0.45)
            s.add(parts.bouncing(rng, parts.ellipsoid((r, r, r), 0.8, s.material(tex.THINGS)), n, r))
        elif kind == "crate":
            w = rng.uniform(0.3, 0.65)
            cube = parts.box((w, w * rng.uniform(0.6, 1.4), w), w, s.material(tex.THINGS)).moved(
                translation(0, w / 2, 0)
            )
            s.add(parts.bouncing(rng, cube, n, 0.75 * w))
        elif kind == "blob":
            r = rng.uniform(0.25, 0.5)
            at = (rng.uniform(-0.4, 0.4), -rng.uniform(1.0, 1.6) * r - 0.15, rng.uniform(-0.4, 0.4))
            s.add(parts.blob(rng, r, s.material(tex.ANIMALS), n, at))
        elif kind == "flag":
            pole = rng.uniform(1.2, 1.9)
            place = s.around(0.1, 0.4 * s.distance_m)
            s.add(parts.rod(np.zeros(3), np.array([0, -pole, 0]), 0.02, s.material((tex.plaster,))).moved(place))
            m = s.material((tex.poster, tex.plaid))
            s.add(parts.flag(rng, 0.9, 0.6, m, place @ translation(0.45, -pole + 0.6, 0)))


def _thin(s: Layout) -> None:
    """Railings, poles, a wheel and bare branches near the subject."""
    rng, d = s.rng, s.distance_m
    m = s.material((tex.plaster, tex.planks))
    z, width, height = rng.uniform(-0.45, 0.35) * d, rng.uniform(1.0, 1.8), rng.uniform(0.6, 1.0)
    place = rotation("y", rng.uniform(-0.4, 0.4)) @ translation(rng.uniform(-0.3, 0.3), 0, z)
    bars = [
        parts.rod(np.array([x, 0, 0]), np.array([x, -height, 0]), rng.uniform(0.008, 0.02), m)
        for x in np.linspace(-width / 2, width / 2, int(rng.integers(6, 13)))
    ]
    bars += [parts.rod(np.array([-width / 2, -y, 0]), np.array([width / 2, -y, 0]), 0.018, m) for y in (height, 0.15)]
    s.add(parts.merged(bars).moved(place))
    for _ in range(int(rng.integers(2, 5))):
        at = s.around(0.15 * d, 0.55 * d)
        s.add(
            parts.rod(
                np.zeros(3),
                np.array([rng.normal(0, 0.2), -rng.uniform(0.8, 2.0), rng.normal(0, 0.2)]),
                rng.uniform(0.01, 0.035),
                s.material((tex.plaid, tex.planks)),
            ).moved(at)
        )
    green = s.material((tex.grass,))
    at = s.around(0.3 * d, 0.55 * d)
    s.add(parts.leaves(rng, 120, np.array([0, -0.5, 0]), 0.4, 0.1, green), at)
    spokes, radius = int(rng.integers(5, 12)), rng.uniform(0.3, 0.5)
    ring = [np.array([np.cos(a), np.sin(a), 0]) * radius for a in np.linspace(0, 2 * np.pi, 25)]
    wheel = [parts.rod(a, b, 0.018, m) for a, b in zip(ring, ring[1:], strict=False)]
    wheel += [parts.rod(np.zeros(3), ring[(24 * k) // spokes] * 0.98, 0.009, m) for k in range(spokes)]
    turn, hub = rng.uniform(0.05, 0.2), s.around(0.1 * d, 0.45 * d) @ translation(0, -radius - 0.1, 0)
    s.add(replace(parts.merged(wheel), motion=lambda t: hub @ rotation("z", turn * t)))


def _glass(s: Layout) -> None:
    rng, d = s.rng, s.distance_m
    chrome = s.material((tex.plaster,), mirror=rng.uniform(0.5, 0.85))
    for _ in range(int(rng.integers(1, 4))):
        r = rng.uniform(0.15, 0.35)
        s.add(parts.ellipsoid((r, r, r), 0.5, chrome), s.around(0.15 * d, 0.5 * d) @ translation(0, -r, 0))
    clear = s.material((tex.plaster,), mirror=0.08, kind="glass")
    pane = rotation("y", rng.uniform(-0.8, 0.8)) @ translation(
        rng.uniform(-0.5, 0.5), -0.1, -rng.uniform(0.1, 0.45) * d
    )
    s.add(parts.box((rng.uniform(0.6, 1.0), rng.uniform(0.7, 1.1), 0.02), 1.0, clear).moved(pane))
    r = rng.uniform(0.07, 0.14)
    bottle = parts.lathe(
        [(0, 0), (r, 0), (r, -r * 3), (r * 0.35, -r * 4.5), (r * 0.35, -r * 6), (0, -r * 6)], 20, 0.5, clear
    )
    s.add(bottle, s.around(0.2 * d, 0.5 * d))


ALL_MOVERS = ("walker", "person", "ball", "crate", "blob", "flag")


def _moving_camera(s: Layout, eye: np.ndarray, target: np.ndarray) -> None:
    """Dolly, truck, crane or arc with hand-held sway, eased in and out; it stays within the free ring."""
    rng, n = s.rng, max(s.num_frames - 1, 1)
    reach = s.distance_m * rng.uniform(0.08, 0.2)
    heading = rng.standard_normal(3) * [1.0, 0.35, 0.6]
    heading *= reach / np.linalg.norm(heading)
    follow = rng.uniform(0, 1)
    sway = [(rng.uniform(0.05, 0.35), rng.uniform(0, 6.3), rng.standard_normal(3) * 0.006) for _ in range(3)]

    def camera(time: float) -> np.ndarray:
        u = time / n
        shift = heading * (u * u * (3 - 2 * u)) + sum(a * np.sin(w * time + p) for w, p, a in sway)
        return look_at(eye + shift, target + (1 - follow) * shift)

    s.camera = camera


def build(rng: np.random.Generator, family: str, num_frames: int) -> Layout:
    """Lay out one scene of a family."""
    s = Layout(rng, num_frames, distance_m=float(rng.uniform(2.6, 4.2)), fov_deg=float(rng.uniform(48, 62)))
    place = {"room": "room", "terrain": "terrain", "glossy": "room"}.get(family) or ("room", "terrain")[
        int(rng.integers(2))
    ]
    if place == "room":
        _room(s, gloss=rng.uniform(0.1, 0.25) if family == "glossy" else 0.0)
    else:
        _terrain(s)
    if family == "creature":
        _movers(s, int(rng.integers(2, 5)), ("walker", "person", "walker", "blob"))
    elif family == "thin":
        _thin(s)
        _movers(s, 1, ("walker", "person", "ball", "flag"))
    elif family == "glossy":
        _glass(s)
        _movers(s, 1, ("ball", "walker", "blob"))
    else:
        _movers(s, int(rng.integers(1, 4)), ALL_MOVERS)
    aim = rng.uniform(0.45, 0.75)
    yaw = rng.uniform(0, 2 * np.pi)
    eye = np.array([-np.sin(yaw) * s.distance_m, -aim - rng.uniform(0.05, 0.5), -np.cos(yaw) * s.distance_m])
    target = s.target = np.array([0.0, -aim, 0.0])
    if family == "moving":
        _moving_camera(s, eye, target)
    else:
        pose = look_at(eye, target)
        s.camera = lambda _t: pose
    clouds = tex.fbm(rng, 1.4)
    s.textures.append(np.repeat(clouds[..., None], 3, 2))
    return s
