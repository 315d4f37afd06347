"""Random furnished rooms (and some yards) of boxes, cylinders and ellipsoids, with a hand-held camera: numbers only, no pictures.

World: metres, x right, y DOWN (the floor is y = 0, up is negative), right-handed; cameras x right, y down, z forward. Endless: a scene is
a function of its generator. Made for the depth network, which needs to see desks, shelves and clutter at 0.4 to 5 m from any height
and pitch, so that nothing in the picture's layout (a ramp) gives the depth away.
"""

from __future__ import annotations

import numpy as np

BOX, CYLINDER, ELLIPSOID = 0, 1, 2

#: Room for so many primitives of each kind a scene; more are dropped at random.
SLOTS = (224, 64, 96)


def _yaw(a: float) -> np.ndarray:
    c, s = np.cos(a), np.sin(a)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _pitch(a: float) -> np.ndarray:
    c, s = np.cos(a), np.sin(a)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _roll(a: float) -> np.ndarray:
    c, s = np.cos(a), np.sin(a)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


class Builder:
    """Primitives of one scene: kind, centre, rotation (columns: local axes in the world), half sizes, material, mover."""

    def __init__(self, rng: np.random.Generator, num_textures: int) -> None:
        self.rng, self.num_textures = rng, num_textures
        self.parts: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, int, int]] = []
        self.materials: list[np.ndarray] = []
        self.place, self.turn, self.mover = np.zeros(3), np.eye(3), 0
        hue = rng.normal(0.1, 0.15)
        self.palette = [self._color(hue) for _ in range(6)]

    def _color(self, hue: float) -> np.ndarray:
        import colorsys

        rng = self.rng
        if rng.random() < 0.45:
            v = rng.choice([0.05, 0.12, 0.3, 0.6, 0.85]) * rng.uniform(0.7, 1.15)
            return np.clip(v * (1 + rng.normal(0, 0.03, 3)), 0.01, 1)
        h = (hue + rng.normal(0, 0.25)) % 1
        return np.array(
            colorsys.hsv_to_rgb(h, np.clip(rng.normal(0.45, 0.25), 0, 1), np.clip(rng.normal(0.55, 0.25), 0.05, 1))
        )

    def material(self, textured: float = 0.5, color: np.ndarray | None = None, glow: float = 0.0) -> int:
        """tint (3), share of the texture, its contrast's texture number, texels' metres, gloss, glow."""
        rng = self.rng
        if color is None:
            color = self.palette[rng.integers(6)] if rng.random() < 0.7 else self._color(rng.random())
        share = rng.uniform(0.5, 1) if rng.random() < textured else rng.uniform(0, 0.25)
        size = np.exp(rng.uniform(np.log(0.25), np.log(2.5)))
        gloss = rng.uniform(0.1, 0.7) if rng.random() < 0.35 else rng.uniform(0, 0.08)
        self.materials.append(np.array([*color, share, rng.integers(self.num_textures), size, gloss, glow], np.float32))
        return len(self.materials) - 1

    def add(self, kind: int, at, half, material: int, turn: np.ndarray | None = None) -> None:
        """One primitive, in the axes of the piece of furniture that is being placed."""
        R = self.turn if turn is None else self.turn @ turn
        half = np.maximum(np.asarray(half, float), 2e-3)
        self.parts.append((kind, self.place + self.turn @ np.asarray(at, float), R, half, material, self.mover))

    def box(
        self, x: float, top: float, z: float, w: float, h: float, d: float, m: int, turn: np.ndarray | None = None
    ) -> None:
        """A box by the middle of its base footprint, the height of its top above the floor and its full sizes."""
        self.add(BOX, (x, -(top - h / 2), z), (w / 2, h / 2, d / 2), m, turn)

    def post(self, x: float, top: float, z: float, r: float, h: float, m: int) -> None:
        """An upright cylinder."""
        self.add(CYLINDER, (x, -(top - h / 2), z), (r, h / 2, r), m)

    # --- furniture: local origin on the floor, front towards -z ---
    def legs(self, w: float, d: float, h: float, m: int, r: float, round_: bool) -> None:
        for x in (-1, 1):
            for z in (-1, 1):
                at = x * (w / 2 - r), h, z * (d / 2 - r)
                self.post(*at, r, h, m) if round_ else self.box(*at, 2 * r, h, 2 * r, m)

    def clutter(self, w: float, d: float, top: float, count: int) -> None:
        """Small things that stand on a surface."""
        for _ in range(count):
            self._small_thing(w, d, top)

    def _small_thing(self, w: float, d: float, top: float) -> None:  # noqa: C901
        rng = self.rng
        x, z = rng.uniform(-0.45, 0.45) * w, rng.uniform(-0.42, 0.42) * d
        kind = rng.integers(9)
        m = self.material(0.5)
        if kind == 0:  # books, lying
            y = top
            for _ in range(rng.integers(1, 5)):
                t = rng.uniform(0.015, 0.05)
                self.box(
                    x,
                    y + t,
                    z,
                    rng.uniform(0.14, 0.3),
                    t,
                    rng.uniform(0.12, 0.24),
                    self.material(0.4),
                    _yaw(rng.normal(0, 0.4)),
                )
                y += t
        elif kind == 1:  # cup, bottle, can
            r, h = rng.uniform(0.025, 0.06), rng.uniform(0.07, 0.3)
            self.post(x, top + h, z, r, h, m)
            if rng.random() < 0.4:
                self.post(x, top + 1.35 * h, z, 0.4 * r, 0.35 * h, m)
        elif kind == 2:  # carton
            w2, h, d2 = rng.uniform(0.06, 0.4, 3)
            self.box(x, top + h, z, w2, h, d2, self.material(0.6), _yaw(rng.uniform(0, 6.3)))
        elif kind == 3:  # monitor or laptop
            w2 = rng.uniform(0.3, 0.62)
            h = w2 * rng.uniform(0.55, 0.8)
            a = _yaw(rng.normal(0, 0.4)) @ _pitch(rng.normal(-0.1, 0.12))
            lift = rng.uniform(0.0, 0.16)
            dark = self.material(0.1, np.full(3, rng.choice([0.03, 0.06, 0.5, 0.8])))
            screen = self.material(0.9, glow=rng.choice([0.0, 0.5, 1.0]))
            self.box(x, top + lift + h, z, w2, h, 0.03, dark, a)
            self.add(BOX, (x, -(top + lift + h / 2), z) + a @ [0, 0, -0.016], (0.47 * w2, 0.46 * h, 0.003), screen, a)
            self.post(x, top + lift + 0.05, z + 0.02, 0.03, lift + 0.05, dark)
            self.box(x, top + 0.02, z - 0.08, 0.6 * w2, 0.02, 0.2, dark)
        elif kind == 4:  # ball, fruit, vase
            r = rng.uniform(0.03, 0.14)
            self.add(ELLIPSOID, (x, -top - r, z), (r, r * rng.uniform(0.7, 1.6), r), m)
        elif kind == 5:  # plant
            r = rng.uniform(0.05, 0.12)
            self.post(x, top + 2 * r, z, r, 2 * r, m)
            green = self.material(0.8, np.array([0.12, rng.uniform(0.25, 0.55), 0.1]))
            for _ in range(rng.integers(3, 10)):
                size = r * rng.uniform(0.3, 1.4, 3)
                at = np.array([x, -top - r * 3.4, z]) + rng.normal(0, 1.1 * r, 3)
                self.add(ELLIPSOID, at, size, green, _yaw(rng.uniform(0, 6)) @ _roll(rng.uniform(0, 3)))
        elif kind == 6:  # books, standing
            at = x
            for _ in range(rng.integers(3, 9)):
                t, h = rng.uniform(0.015, 0.05), rng.uniform(0.15, 0.3)
                self.box(at, top + h, z, t, h, rng.uniform(0.1, 0.2), self.material(0.3))
                at += t + rng.exponential(0.003)
        elif kind == 7:  # lamp
            h = rng.uniform(0.25, 0.5)
            self.post(x, top + h, z, 0.012, h, m)
            self.post(
                x, top + h + 0.05, z, rng.uniform(0.07, 0.16), 0.15, self.material(0.3, glow=rng.choice([0.0, 1.2]))
            )
        else:  # keyboard, tray, paper
            self.box(
                x,
                top + 0.02,
                z,
                rng.uniform(0.2, 0.45),
                rng.choice([0.003, 0.02]),
                rng.uniform(0.13, 0.3),
                m,
                _yaw(rng.normal(0, 0.3)),
            )

    def table(self) -> tuple[float, float]:
        rng = self.rng
        w, d, h = rng.uniform(0.5, 2.0), rng.uniform(0.45, 1.0), rng.uniform(0.4, 0.95)
        m, leg = self.material(0.6), self.material(0.2)
        t = rng.uniform(0.02, 0.06)
        if rng.random() < 0.2:
            r = d * 0.6
            (
                self.post(0, h, 0, r, t, m),
                self.post(0, h - t, 0, 0.05, h - t, leg),
                self.post(0, 0.03, 0, 0.6 * r, 0.03, leg),
            )
            w = d = 1.3 * r
        else:
            self.box(0, h, 0, w, t, d, m)
            self.legs(w, d, h - t, leg, rng.uniform(0.015, 0.045), rng.random() < 0.4)
            if rng.random() < 0.4:  # drawers
                self.box(w / 2 - 0.22, h - t, 0, 0.4, rng.uniform(0.3, h - t), 0.9 * d, self.material(0.5))
        self.clutter(w, d, h, rng.integers(2, 10))
        return w, d

    def chair(self) -> tuple[float, float]:
        rng = self.rng
        w, h = rng.uniform(0.38, 0.56), rng.uniform(0.4, 0.52)
        m, leg = self.material(0.5), self.material(0.2)
        back = rng.uniform(0.3, 0.6)
        self.box(0, h, 0, w, rng.uniform(0.03, 0.1), w, m)
        tilt = _pitch(rng.uniform(-0.2, 0.0))
        if rng.random() < 0.6:
            self.box(0, h + back, w / 2, w, back * rng.uniform(0.5, 0.95), 0.05, m, tilt)
        else:
            for x in np.linspace(-0.45, 0.45, rng.integers(3, 6)):
                self.box(x * w, h + back, w / 2, 0.03, back, 0.03, leg, tilt)
            self.box(0, h + back, w / 2 + 0.02, w, 0.08, 0.04, leg, tilt)
        if rng.random() < 0.35:  # office chair
            self.post(0, h, 0, 0.03, h, leg)
            for k in range(5):
                a = _yaw(k * 1.2566 + 0.3)
                self.add(BOX, a @ np.array([0.15, 0, 0]) + [0, -0.07, 0], (0.15, 0.02, 0.025), leg, a)
        else:
            self.legs(w, w, h - 0.03, leg, rng.uniform(0.012, 0.025), rng.random() < 0.5)
        if rng.random() < 0.3:
            for x in (-1, 1):
                (
                    self.box(x * w / 2, h + 0.24, 0, 0.05, 0.04, 0.7 * w, leg),
                    self.box(x * w / 2, h + 0.2, -0.1, 0.04, 0.2, 0.04, leg),
                )
        return w, w

    def shelf(self) -> tuple[float, float]:
        rng = self.rng
        w, h, d, n = rng.uniform(0.5, 1.8), rng.uniform(0.7, 2.3), rng.uniform(0.22, 0.45), int(rng.integers(2, 7))
        m = self.material(0.5)
        for k in range(n + 1):
            self.box(0, 0.06 + (h - 0.06) * k / n, 0, w, 0.025, d, m)
        for x in (-1, 1):
            self.box(x * w / 2, h, 0, 0.025, h, d, m)
        if rng.random() < 0.7:
            self.box(0, h, d / 2, w, h, 0.012, m)
        for k in range(n):
            base, room = 0.075 + (h - 0.06) * k / n, (h - 0.06) / n - 0.05
            x = -0.46 * w
            while x < 0.44 * w:
                kind = rng.random()
                if kind < 0.6:
                    t, tall = rng.uniform(0.015, 0.06), min(rng.uniform(0.15, 0.33), room)
                    self.box(
                        x + t / 2,
                        base + tall,
                        -rng.uniform(0, 0.06),
                        t,
                        tall,
                        rng.uniform(0.5, 0.9) * d,
                        self.material(0.3),
                    )
                    x += t + 0.002
                elif kind < 0.75:
                    t, tall = rng.uniform(0.08, 0.3), min(rng.uniform(0.05, 0.35), room)
                    self.box(x + t / 2, base + tall, 0, t, tall, rng.uniform(0.4, 0.9) * d, self.material(0.7))
                    x += t + 0.02
                elif kind < 0.82:
                    r = rng.uniform(0.03, 0.09)
                    self.add(
                        ELLIPSOID, (x + r, -base - min(r, room / 2), 0), (r, min(r, room / 2), r), self.material(0.5)
                    )
                    x += 2 * r + 0.02
                else:
                    x += rng.uniform(0.05, 0.35)
        return w, d

    def cabinet(self) -> tuple[float, float]:
        rng = self.rng
        w, h, d = (
            rng.uniform(0.4, 1.6),
            rng.choice([rng.uniform(0.5, 0.95), rng.uniform(1.2, 2.2)]),
            rng.uniform(0.35, 0.7),
        )
        m, front, knob = self.material(0.5), self.material(0.5), self.material(0.1)
        self.box(0, h, 0, w, h, d, m)
        cols, rows = int(rng.integers(1, 4)), int(rng.integers(1, 5))
        for i in range(cols):
            for j in range(rows):
                x, y = ((i + 0.5) / cols - 0.5) * w, h * (j + 1) / rows - 0.015
                self.box(x, y, -d / 2 - 0.008, w / cols - 0.02, h / rows - 0.02, 0.018, front)
                self.box(x, y - 0.5 * h / rows, -d / 2 - 0.025, 0.1, 0.012, 0.02, knob)
        if h < 1.2:
            self.clutter(w, d, h, rng.integers(1, 8))
        return w, d

    def sofa(self) -> tuple[float, float]:
        rng = self.rng
        w, d, h = rng.uniform(0.8, 2.2), rng.uniform(0.75, 1.0), rng.uniform(0.35, 0.48)
        m = self.material(0.5)
        self.box(0, h, 0, w, h - 0.08, d, m), self.box(0, h + 0.4, d / 2 - 0.1, w, 0.6, 0.2, m, _pitch(-0.12))
        for x in (-1, 1):
            self.box(x * (w / 2 - 0.08), h + 0.18, 0, 0.17, h + 0.1, d, m)
        for _ in range(rng.integers(0, 5)):
            r = rng.uniform(0.16, 0.26)
            at = rng.uniform(-0.4, 0.4) * w, -h - r * 0.8, d / 2 - 0.3
            self.add(ELLIPSOID, at, (r, r, 0.09), self.material(0.7), _pitch(-0.3) @ _roll(rng.uniform(0, 3)))
        return w, d

    def bed(self) -> tuple[float, float]:
        rng = self.rng
        w, d, h = rng.uniform(0.9, 1.8), 2.0, rng.uniform(0.4, 0.6)
        (
            self.box(0, h - 0.15, 0, w, h - 0.25, d, self.material(0.5)),
            self.box(0, h, 0, w * 0.98, 0.18, d * 0.98, self.material(0.3)),
        )
        (
            self.box(0, h + 0.05, -0.3, w * 1.02, 0.1, d * 0.6, self.material(0.7)),
            self.box(0, rng.uniform(0.7, 1.1), d / 2, w, 0.7, 0.06, self.material(0.5)),
        )
        for x in (-0.25, 0.25):
            self.add(ELLIPSOID, (x * w, -h - 0.08, d / 2 - 0.3), (0.2 * w, 0.1, 0.2), self.material(0.3))
        return w, d

    def stairs(self) -> tuple[float, float]:
        rng = self.rng
        w, rise, run, n = (
            rng.uniform(0.9, 1.6),
            rng.uniform(0.15, 0.2),
            rng.uniform(0.24, 0.32),
            int(rng.integers(4, 13)),
        )
        m, rail = self.material(0.6), self.material(0.2)
        for k in range(n):
            self.box(0, rise * (k + 1), (k - n / 2) * run, w, rise * (k + 1) if rng.random() < 2 else rise, run, m)
            if k % 2 == 0:
                self.post(w / 2, rise * (k + 1) + 0.9, (k - n / 2) * run, 0.012, 0.9, rail)
        slope = np.arctan2(rise, run)
        self.box(w / 2, rise * n / 2 + 0.95, 0, 0.05, 0.05, np.hypot(n * run, n * rise), rail, _pitch(slope))
        return w, n * run

    def person(self) -> tuple[float, float]:
        rng = self.rng
        s = rng.uniform(0.85, 1.1)
        skin = self.material(0.1, np.array([0.75, 0.52, 0.4]) * rng.uniform(0.4, 1.1))
        shirt, trousers, hair = (
            self.material(0.5),
            self.material(0.3),
            self.material(0.2, np.array([0.2, 0.13, 0.08]) * rng.uniform(0.2, 3)),
        )
        for x in (-1, 1):
            swing = rng.normal(0, 0.2)
            self.add(
                ELLIPSOID,
                (x * 0.1 * s, -0.45 * s, swing * 0.4),
                (0.085 * s, 0.48 * s, 0.095 * s),
                trousers,
                _pitch(swing),
            )
            arm = rng.normal(0, 0.5)
            self.add(
                ELLIPSOID,
                (x * 0.24 * s, -1.15 * s, -0.25 * np.sin(arm)),
                (0.055 * s, 0.32 * s, 0.06 * s),
                shirt,
                _pitch(arm) @ _roll(x * 0.15),
            )
            self.add(ELLIPSOID, (x * 0.26 * s, -0.85 * s, -0.45 * np.sin(arm)), (0.045, 0.07, 0.045), skin)
        self.add(ELLIPSOID, (0, -1.15 * s, 0), (0.2 * s, 0.34 * s, 0.14 * s), shirt)
        self.add(ELLIPSOID, (0, -1.62 * s, 0), (0.095 * s, 0.125 * s, 0.11 * s), skin)
        self.add(ELLIPSOID, (0, -1.67 * s, 0.02), (0.105 * s, 0.11 * s, 0.115 * s), hair)
        return 0.5, 0.4

    def heap(self) -> tuple[float, float]:
        """Anything: cartons, balls, tubes at random."""
        rng = self.rng
        size = rng.uniform(0.1, 0.6)
        for _ in range(rng.integers(1, 7)):
            half = size * rng.uniform(0.2, 1, 3)
            at = np.array([rng.normal(0, size), -half[1] - rng.uniform(0, 0.3) * size, rng.normal(0, size)])
            turn = (
                _yaw(rng.uniform(0, 6.3))
                if rng.random() < 0.7
                else _yaw(rng.uniform(0, 6)) @ _pitch(rng.uniform(0, 3)) @ _roll(rng.uniform(0, 3))
            )
            self.add(int(rng.integers(3)), at, half, self.material(0.6), turn)
        return 2 * size, 2 * size


def _walls(b: Builder, hx: float, hz: float, height: float) -> None:
    """Pictures, windows, doors, radiators, skirting and beams on the walls; 0..3: which wall."""
    rng = b.rng
    skirting = b.material(0.2)
    for wall in range(4):
        b.turn = _yaw(wall * np.pi / 2)
        far, side = (hz, hx) if wall % 2 == 0 else (hx, hz)
        b.place = b.turn @ np.array([0, 0, far])
        if rng.random() < 0.6:
            b.box(0, 0.1, -0.01, 2 * side, 0.1, 0.02, skirting)
        if rng.random() < 0.5:
            w, at = rng.uniform(0.75, 1.0), rng.uniform(-0.7, 0.7) * side
            (
                b.box(at, 2.05, -0.01, w, 2.05, 0.05, b.material(0.4)),
                b.box(at, 2.12, -0.005, w + 0.14, 2.12, 0.03, skirting),
            )
            b.add(ELLIPSOID, (at + 0.4 * w, -1.0, -0.07), (0.05, 0.02, 0.03), b.material(0.0))
        for _ in range(rng.integers(0, 6)):
            w, h, y = rng.uniform(0.2, 1.4), rng.uniform(0.2, 1.0), rng.uniform(1.2, 1.9)
            at = rng.uniform(-0.85, 0.85) * side
            if rng.random() < 0.3:  # window with frame
                b.box(at, y + h / 2 + 0.05, -0.01, w + 0.1, h + 0.1, 0.06, skirting)
                b.box(
                    at,
                    y + h / 2,
                    -0.02,
                    w,
                    h,
                    0.06,
                    b.material(0.5, np.array([0.8, 0.9, 1.0]), glow=rng.uniform(0.3, 2.0)),
                )
                b.box(at, y + h / 2, -0.03, 0.04, h, 0.06, skirting)
            else:
                b.box(at, y + h / 2, -0.01, w, h, rng.choice([0.01, 0.03, 0.05]), b.material(1.0))
        if rng.random() < 0.3:  # radiator
            at, w = rng.uniform(-0.6, 0.6) * side, rng.uniform(0.5, 1.2)
            m = b.material(0.1)
            for x in np.linspace(-0.5, 0.5, 8):
                b.box(at + x * w, 0.7, -0.06, w / 11, 0.55, 0.08, m)
        if rng.random() < 0.35:  # curtains
            m = b.material(0.6)
            at = rng.uniform(-0.7, 0.7) * side
            for k in range(rng.integers(3, 8)):
                b.post(at + 0.09 * k, rng.uniform(2.0, 2.3), -0.08, 0.055, 2.0, m)
    b.turn, b.place = np.eye(3), np.zeros(3)


def _indoors(b: Builder) -> tuple[np.ndarray, np.ndarray]:
    """The shell's centre and half sizes after furnishing."""
    rng = b.rng
    hx, hz, height = rng.uniform(1.1, 4.0), rng.uniform(1.1, 4.0), rng.uniform(2.2, 3.4)
    _walls(b, hx, hz, height)
    if rng.random() < 0.4:  # pillar, chimney breast, partition
        b.box(
            rng.uniform(-1, 1) * hx,
            height,
            rng.uniform(-1, 1) * hz,
            *[rng.uniform(0.2, 0.6), height, rng.uniform(0.2, 1.5)],
            b.material(0.4),
        )
    if rng.random() < 0.4:
        m = b.material(0.4)
        for x in np.linspace(-0.8, 0.8, rng.integers(2, 5)):  # beams, lamps at the ceiling
            b.box(x * hx, height, 0, 0.15, rng.uniform(0.05, 0.2), 2 * hz, m)
    for _ in range(rng.integers(0, 3)):
        b.box(
            rng.uniform(-0.5, 0.5) * hx,
            0.012,
            rng.uniform(-0.5, 0.5) * hz,
            rng.uniform(0.6, 2),
            0.012,
            rng.uniform(0.6, 2),
            b.material(1.0),
        )
    along = [b.shelf, b.cabinet, b.table, b.sofa, b.bed, b.table, b.shelf, b.cabinet]
    for wall in range(4):
        side, far = (hx, hz) if wall % 2 == 0 else (hz, hx)
        x = -side
        while x < side - 0.5 and rng.random() < 0.85:
            before = len(b.parts)
            w, d = along[rng.integers(len(along))]()
            if x + w > side + 0.1:
                del b.parts[before:]
                break
            turn = _yaw(wall * np.pi / 2)
            at = turn @ np.array([x + w / 2, 0, far - d / 2 - rng.exponential(0.03) - 0.02])
            _move(b, before, at, turn @ _yaw(rng.normal(0, 0.02)))
            x += w + rng.exponential(0.3)
    free = [b.chair, b.table, b.chair, b.heap, b.heap, b.sofa, b.shelf]
    for _ in range(rng.integers(2, 9)):
        before = len(b.parts)
        (free[rng.integers(len(free))] if rng.random() < 0.97 else b.stairs)()
        _move(
            b,
            before,
            np.array([rng.uniform(-0.9, 0.9) * hx, 0, rng.uniform(-0.9, 0.9) * hz]),
            _yaw(rng.uniform(0, 6.3)),
        )
    return np.array([0, -height / 2, 0]), np.array([hx, height / 2, hz])


def _outdoors(b: Builder) -> tuple[np.ndarray, np.ndarray]:
    rng = b.rng
    m = [b.material(0.7) for _ in range(4)]
    green = b.material(0.9, np.array([0.15, 0.3, 0.1]))
    for _ in range(rng.integers(2, 9)):  # houses
        r, a = rng.uniform(7, 40), rng.uniform(0, 6.3)
        w, h, d = rng.uniform(3, 12), rng.uniform(2.5, 14), rng.uniform(3, 12)
        b.place, b.turn = np.array([r * np.cos(a), 0, r * np.sin(a)]), _yaw(rng.uniform(0, 6.3))
        b.box(0, h, 0, w, h, d, m[rng.integers(4)])
        window = b.material(0.5, np.full(3, 0.1))
        for _ in range(rng.integers(0, 7)):
            b.box(rng.uniform(-0.4, 0.4) * w, rng.uniform(1, h), 0, 1.0, 1.3, d + 0.06, window)
    b.turn = np.eye(3)
    for _ in range(rng.integers(2, 14)):  # trees, bushes
        r, a = rng.uniform(2, 25), rng.uniform(0, 6.3)
        b.place = np.array([r * np.cos(a), 0, r * np.sin(a)])
        h = rng.uniform(0.3, 4)
        if rng.random() < 0.6:
            b.post(0, h, 0, rng.uniform(0.05, 0.25), h, m[0])
        for _ in range(rng.integers(2, 7)):
            b.add(
                ELLIPSOID,
                (rng.normal(0, 0.3 * h), -h + rng.normal(0, 0.2 * h), rng.normal(0, 0.3 * h)),
                0.5 * h * rng.uniform(0.3, 1, 3),
                green,
            )
    for _ in range(rng.integers(0, 5)):  # hills
        r, a, s = rng.uniform(20, 55), rng.uniform(0, 6.3), rng.uniform(5, 20)
        b.place = np.array([r * np.cos(a), 0, r * np.sin(a)])
        b.add(ELLIPSOID, (0, 0, 0), (s, s * rng.uniform(0.1, 0.5), s), green)
    b.place = np.zeros(3)
    free = [b.heap, b.heap, b.table, b.chair, b.person, b.cabinet, b.stairs]
    for _ in range(rng.integers(3, 12)):
        before = len(b.parts)
        free[rng.integers(len(free))]()
        _move(b, before, np.array([rng.normal(0, 3), 0, rng.normal(0, 3)]), _yaw(rng.uniform(0, 6.3)))
    return np.array([0, -90.0, 0]), np.array([120, 90.0, 120])


def _move(b: Builder, first: int, at: np.ndarray, turn: np.ndarray) -> None:
    b.parts[first:] = [(k, at + turn @ c, turn @ R, h, m, v) for k, c, R, h, m, v in b.parts[first:]]


def _camera(
    b: Builder, shell: tuple[np.ndarray, np.ndarray], outdoors: bool, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Eyes [T, 3] and world_from_camera rotations [T, 3, 3] of a hand-held camera that looks at something."""
    rng = b.rng
    inner = np.minimum(shell[1] - 0.3, 4.0)
    eye = np.array([rng.uniform(-1, 1) * inner[0], -rng.uniform(0.35, 1.9), rng.uniform(-1, 1) * inner[2]])
    centers = np.stack([p[1] for p in b.parts]) if b.parts else np.zeros((1, 3))
    reach = np.linalg.norm(centers - eye, axis=1)
    near = np.nonzero((reach > 0.5) & (reach < (12 if outdoors else 6)))[0]
    look = centers[near[rng.integers(len(near))]] if len(near) else np.zeros(3)
    if not outdoors and rng.random() < 0.55 and len(near):  # close to it, as one who shows a desk
        back = eye - look
        back[1] = -abs(back[1]) if rng.random() < 0.8 else back[1]
        eye = look + back / np.linalg.norm(back) * rng.uniform(0.6, 2.6)
        eye = np.clip(eye, [-inner[0], -(2 * shell[1][1] - 0.25), -inner[2]], [inner[0], -0.2, inner[2]])
    ray = look + rng.normal(0, 0.25, 3) - eye
    yaw, pitch = np.arctan2(ray[0], ray[2]), np.arctan2(ray[1], np.hypot(ray[0], ray[2]))
    pitch = np.clip(pitch + rng.normal(0.05, 0.12), -0.7, 1.2)
    if outdoors:
        pitch = np.clip(pitch * 0.6, -0.3, 0.4)
    roll = rng.normal(0, 0.1)
    u = np.linspace(-0.5, 0.5, frames)[:, None] * np.exp(rng.uniform(np.log(0.05), np.log(1.2)))
    walk = u * rng.normal(0, 0.35, 3) * [1, 0.5, 1] + rng.normal(0, 0.004, (frames, 3))
    turns = u * rng.normal(0, [0.25, 0.12, 0.08]) + rng.normal(0, 0.003, (frames, 3))
    R = np.stack([_yaw(yaw + t[0]) @ _pitch(-(pitch + t[1])) @ _roll(roll + t[2]) for t in turns])
    return eye + walk, R


def _in_use(count: np.ndarray) -> np.ndarray:
    """Which slots hold a primitive, bool [P]."""
    return np.concatenate([np.arange(slots) < n for slots, n in zip(SLOTS, count, strict=True)])


def make_layout(seed: tuple[int, ...], num_textures: int, frames: int) -> dict[str, np.ndarray]:
    """One scene as float32 arrays.

    Returns:
        to_local [P, 3, 3], center [T, P, 3]: a point is in a primitive's unit box, cylinder (axis y) or ball after to_local @ (x - center).
        count [3]: primitives of each kind in use, each kind from the start of its `SLOTS`; half [P, 3]; material [P]
        materials [M, 8], a row for every one in use: see `Builder.material`
        shell [12]: the surrounding box, centre and half sizes, and its six materials (-x +x -y +y -z +z).
        eye [T, 3], rotation [T, 3, 3] (world_from_camera), focal (in picture widths), light [3 place, 3 color, 3 ambient, 1 outdoors]
    """
    rng = np.random.default_rng(seed)
    b = Builder(rng, num_textures)
    outdoors = rng.random() < 0.15
    walls = b.material(0.35)
    sides = [
        walls,
        walls if rng.random() < 0.7 else b.material(0.6),
        b.material(0.1, np.full(3, rng.uniform(0.6, 0.9))),
        b.material(0.75),
        walls,
    ]
    sides.append(walls if rng.random() < 0.7 else b.material(0.6))
    if outdoors:
        sky = b.material(0.0, np.array([0.6, 0.75, 1.0]) * rng.uniform(0.5, 1.0), glow=1.0)
        sides = [sky, sky, sky, b.material(0.9, np.array([0.3, 0.4, 0.2])), sky, sky]
        b.materials[sides[3]][5] *= 3
    shell = (_outdoors if outdoors else _indoors)(b)
    movers = 1 + int(rng.integers(0, 4)) * (rng.random() < 0.6)
    motion = np.zeros((movers, frames, 3))
    for k in range(1, movers):
        b.mover, before = k, len(b.parts)
        [b.person, b.heap, b.chair, b.person][rng.integers(4)]()
        inner = np.minimum(shell[1], 4) * 0.8
        _move(
            b,
            before,
            np.array([rng.uniform(-1, 1) * inner[0], 0, rng.uniform(-1, 1) * inner[2]]),
            _yaw(rng.uniform(0, 6.3)),
        )
        speed = rng.normal(0, 0.5, 3) * [1, 0.1, 1]
        motion[k] = np.linspace(-0.5, 0.5, frames)[:, None] * speed
    eye, rotation = _camera(b, shell, outdoors, frames)
    # whatever the camera stands in goes
    kept: list[list[tuple]] = [[], [], []]
    for part in b.parts:
        _, c, R, half, _, v = part
        gap = np.abs((eye - c - motion[v]) @ R) - half
        if np.linalg.norm(np.maximum(gap, 0), axis=1).min() > 0.16:
            kept[part[0]].append(part)
    total = sum(SLOTS)
    out = {
        "to_local": np.zeros((total, 3, 3)),
        "center": np.zeros((frames, total, 3)),
        "half": np.ones((total, 3)),
        "material": np.zeros(total),
        "count": np.zeros(3),
    }
    base = 0
    for kind, slots in enumerate(SLOTS):
        parts = kept[kind]
        if len(parts) > slots:  # keep the large ones and those in front
            order = np.argsort([-np.prod(p[3]) / (0.3 + np.linalg.norm(p[1] - eye[0])) ** 3 for p in parts])
            parts = [parts[i] for i in order[:slots]]
        for i, (_, c, R, half, m, v) in enumerate(parts):
            out["to_local"][base + i] = R.T / half[:, None]
            out["center"][:, base + i] = c + motion[v]
            out["half"][base + i] = half
            out["material"][base + i] = m
        out["count"][kind] = len(parts)
        base += slots
    # a crowded room throws away more materials than it keeps: only those in use get a row
    used, rows = np.unique([*out["material"][_in_use(out["count"])].astype(int), *sides], return_inverse=True)
    out["material"][_in_use(out["count"])] = rows[: -len(sides)]
    sides = rows[-len(sides) :]
    materials = np.zeros((total + 6, 8))
    materials[: len(used)] = np.stack(b.materials)[used]
    lamp = np.array(
        [
            rng.uniform(-0.8, 0.8) * shell[1][0],
            -2 * shell[1][1] * rng.uniform(0.75, 0.97),
            rng.uniform(-0.8, 0.8) * shell[1][2],
        ]
    )
    if outdoors:
        lamp = np.array([*(rng.normal(0, 40, 2)), 0])[[0, 2, 1]] + [0, -60, 0]
    warm = np.array([1, rng.uniform(0.8, 1.05), rng.uniform(0.6, 1.2)]) * rng.uniform(0.3, 1.2)
    ambient = np.array([1, rng.uniform(0.9, 1.1), rng.uniform(0.8, 1.2)]) * rng.uniform(0.15, 0.7)
    out |= {
        "materials": materials,
        "shell": np.concatenate([shell[0], shell[1], sides]),
        "eye": eye,
        "rotation": rotation,
        "focal": np.array(0.5 / np.tan(np.radians(rng.uniform(42, 75)) / 2)),
        "light": np.concatenate([lamp, warm, ambient, [float(outdoors)]]),
    }
    return {k: v.astype(np.float32) for k, v in out.items()}
