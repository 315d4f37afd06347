"""Four-legged animals and birds of swept tubes with gaits, under fur, hide or feathers; some on a leash."""

from __future__ import annotations

import numpy as np

from families import cameras, shapes, surfaces
from families.floating import textured
from families.settings import anywhere
from families.shapes import Mesh
from families.types import FamilyClip, Textured


def fur(rng: np.random.Generator) -> np.ndarray:
    """Fur, hide or feathers: a drawn-out grain in one or two natural colours, plain, spotted, striped or patched."""
    from ex4d.scenes.textures import fbm

    tones = np.array(
        [(0.12, 0.1, 0.09), (0.42, 0.28, 0.16), (0.7, 0.5, 0.3), (0.85, 0.8, 0.72), (0.45, 0.42, 0.4), (0.6, 0.3, 0.14)]
    )
    a, b = tones[rng.integers(6, size=2)] * rng.uniform(0.8, 1.15)
    grain = fbm(rng, rng.uniform(0.5, 0.9), 6.0, 128)[..., None]
    kind = rng.integers(4)
    if kind == 0:
        mix = np.zeros((128, 128, 1))
    elif kind == 1:
        y = np.arange(128)[:, None, None]
        mix = np.clip(4 * np.sin(2 * np.pi * (y / 128 * rng.integers(3, 8) + fbm(rng, 1.6, 1.0, 128)[..., None])), 0, 1)
    else:
        mix = np.clip((fbm(rng, (1.0, 1.7)[kind - 2], 1.0, 128)[..., None] - rng.uniform(0.4, 0.7)) * 9, 0, 1)
    return surfaces.to_uint8((a + (b - a) * mix) * (0.65 + 0.6 * grain))


def _limb(points: list[np.ndarray], radius: list[float], flat: float = 1.0) -> Mesh:
    """A tube through joints [T, 3] each, rounded between them."""
    p = np.stack(np.broadcast_arrays(*points), 1)
    s = np.linspace(0, p.shape[1] - 1, 4 * p.shape[1] - 3)
    low = np.minimum(s.astype(int), p.shape[1] - 2)
    f = (s - low)[None, :, None]
    path = p[:, low] * (1 - f) + p[:, low + 1] * f
    path[:, 1:-1] = 0.25 * path[:, :-2] + 0.5 * path[:, 1:-1] + 0.25 * path[:, 2:]
    return shapes.tube(path, np.interp(s, np.arange(len(radius)), radius), 10, flat)


def _at(frames: int, x, y, z) -> np.ndarray:
    return np.stack(np.broadcast_arrays(np.zeros(frames) + x, np.zeros(frames) + y, np.zeros(frames) + z), -1)


def quadruped(rng: np.random.Generator, t: np.ndarray) -> tuple[list[tuple[Mesh, str]], float]:
    """Meshes in metres (looks along -z, feet on y = 0) with what covers them, and its speed. Shoulder height is 1; scale it."""
    n, still = len(t), rng.random() < 0.35
    long_, leg = rng.uniform(0.9, 1.5), rng.uniform(0.45, 0.68)
    fat, neck, head = rng.uniform(0.14, 0.27), rng.uniform(0.15, 0.65), rng.uniform(0.1, 0.17)
    period, reach = rng.uniform(0.5, 1.1), 0.0 if still else rng.uniform(0.2, 0.5)
    phase = 2 * np.pi * (t / period + rng.random())
    bob = 0.02 * np.sin(2 * phase) * (not still)
    back = -(leg + fat)
    spine = [
        _at(n, 0, back + 0.02 + bob, long_ / 2),
        _at(n, 0, back - 0.02 + bob, 0),
        _at(n, 0, back + bob, -long_ / 2),
    ]
    turn_, nod = 0.3 * np.sin(0.7 * phase + 1) + rng.normal(0, 0.4), rng.uniform(-0.5, 1.1)
    up = np.stack([np.sin(turn_), -np.sin(nod) + np.zeros(n), -np.cos(nod) * np.cos(turn_)], -1)
    shoulder = spine[2] + [0, -0.3 * fat, -0.3 * fat]
    crown = shoulder + neck * up
    nose_way = np.stack([np.sin(turn_), np.full(n, 0.35), -np.cos(turn_)], -1)
    nose = crown + rng.uniform(1.2, 2.6) * head * nose_way
    parts: list[tuple[Mesh, str]] = [
        (_limb(spine, [fat * rng.uniform(0.85, 1.1), fat, fat * rng.uniform(0.9, 1.2)], rng.uniform(0.9, 1.2)), "fur"),
        (_limb([spine[2], shoulder, crown], [0.9 * fat, 0.7 * fat, 0.8 * head]), "fur"),
        (_limb([crown, 0.5 * (crown + nose), nose], [head, 0.8 * head, 0.45 * head]), "fur"),
        (_limb([nose, nose + 0.12 * head * nose_way], [0.25 * head, 0.2 * head]), "dark"),
    ]
    droop = rng.choice([-1.0, 0.4])
    for side in (-1, 1):
        ear = crown + [side * 0.7 * head, -0.5 * head, 0.2 * head]
        tip = ear + np.array([side * 0.5, 1.2 * droop, 0]) * head * rng.uniform(0.6, 1.6)
        parts.append((_limb([ear, tip], [0.3 * head, 0.12 * head], 0.5), "fur"))
        eye = crown + 0.25 * (nose - crown) + np.array([side * 0.75 * head, -0.45 * head, 0])
        parts.append((_limb([eye, eye + [side * 0.02, 0, -0.02]], [0.14 * head, 0.1 * head]), "dark"))
        for z, offset, bend in ((long_ / 2, 0.0, -0.25), (-long_ / 2, np.pi, 0.18)):
            swing = reach * np.sin(phase + offset + (np.pi if side > 0 else 0))
            lift = 0.12 * np.clip(np.cos(phase + offset + (np.pi if side > 0 else 0)), 0, 1) * (reach > 0)
            hip = _at(n, side * 0.6 * fat, back + 0.4 * fat + bob, z)
            foot = _at(n, side * 0.55 * fat, -0.04 - lift, z - swing * leg)
            knee = 0.5 * (hip + foot) + _at(n, 0, 0, bend * leg * 0.5 - 0.15 * lift)
            thick = fat * rng.uniform(0.25, 0.4)
            toe = foot + [0, 0.01, -0.08]
            parts.append((_limb([hip, knee, foot, toe], [1.7 * thick, 0.85 * thick, 0.6 * thick, 0.6 * thick]), "fur"))
    wag = 0.4 * np.sin(3 * phase + 1)
    root, length, lift_ = spine[0] + [0, -0.3 * fat, 0.6 * fat], rng.uniform(0.15, 0.8), rng.uniform(-0.8, 0.9)
    tail = [
        root + length * k * np.stack([wag * k, -lift_ * k + 0 * wag, np.full(n, 0.6)], -1)
        for k in (0.0, 0.35, 0.7, 1.0)
    ]
    width = rng.uniform(0.02, 0.07)
    parts.append((_limb(tail, [width * 1.3, width, width * 0.9, width * 0.5]), "fur"))
    if rng.random() < 0.2:  # horns
        for side in (-1, 1):
            a = crown + [side * 0.5 * head, -0.8 * head, 0]
            b, c = a + [side * 0.9 * head, -0.8 * head, 0], a + [side * 0.9 * head, -2 * head, -0.3 * head]
            parts.append((_limb([a, b, c], [0.2 * head, 0.15 * head, 0.05 * head]), "horn"))
    return parts, 4 * leg * reach / period


def bird(rng: np.random.Generator, t: np.ndarray) -> tuple[list[tuple[Mesh, str]], float]:
    """A standing or flying bird of length about 1 that looks along -z."""
    n, flying = len(t), rng.random() < 0.5
    fat, leg = rng.uniform(0.16, 0.26), rng.uniform(0.15, 0.7)
    high = -leg - fat
    body = [_at(n, 0, high + 0.1, 0.4), _at(n, 0, high, 0), _at(n, 0, high - 0.12, -0.3)]
    peck = 0.15 * np.clip(np.sin(2 * np.pi * t / 1.3 + rng.uniform(0, 6)), 0, 1)
    head = body[2] + _at(n, 0.05 * np.sin(3 * t), -rng.uniform(0.08, 0.5) + peck, -0.15)
    parts = [
        (_limb(body, [0.3 * fat, fat, 0.6 * fat]), "fur"),
        (_limb([body[2], head], [0.55 * fat, 0.45 * fat]), "fur"),
        (_limb([head, head + [0, 0.03, -rng.uniform(0.12, 0.35)]], [0.18 * fat, 0.03]), "horn"),
        (_limb([body[0], body[0] + [0, 0.05, rng.uniform(0.2, 0.6)]], [0.3 * fat, 0.45 * fat], 0.25), "fur"),
    ]
    flap = 0.9 * np.sin(2 * np.pi * t / rng.uniform(0.25, 0.7)) if flying else np.full(n, -1.2)
    for side in (-1, 1):
        root = body[1] + [side * 0.7 * fat, -0.4 * fat, -0.1]
        span = 0.75 if flying else 0.3
        tip = root + span * np.stack([side * np.cos(flap), -np.sin(flap), np.full(n, 0.1 if flying else 1.2)], -1)
        mid = 0.5 * (root + tip) + [0, -0.03, -0.06]
        parts.append((_limb([root, mid, tip], [0.16, 0.2, 0.07], 0.2), "fur"))
        if not flying:
            foot = _at(n, side * 0.08, -0.02, 0.0)
            parts.append(
                (_limb([body[1] + [side * 0.08, 0.7 * fat, 0], foot, foot + [0, 0, -0.12]], [0.05, 0.02, 0.02]), "horn")
            )
    return parts, 0.0


def animal(
    rng: np.random.Generator, t: np.ndarray, at: np.ndarray, yaw: float, object_id: int
) -> tuple[list[Textured], float]:
    """Meshes of one animal at a place, and its height in metres."""
    flies = rng.random() < 0.25
    parts, speed = (bird if flies else quadruped)(rng, t)
    size = np.exp(rng.uniform(np.log(0.15), np.log(0.6))) if flies else np.exp(rng.uniform(np.log(0.2), np.log(1.5)))
    R = shapes.turn(1, yaw)
    shift = at + (t - t.mean())[:, None] * speed * size * (R @ np.array([0, 0, -1.0]))
    cover = {
        "fur": fur(rng),
        "dark": surfaces.plain(np.full(3, 0.05)),
        "horn": surfaces.plain(np.array([0.5, 0.42, 0.3]) * rng.uniform(0.4, 1.5)),
    }
    out = []
    for kind in ("fur", "dark", "horn"):
        chosen = [m for m, k in parts if k == kind]
        if chosen:
            whole = shapes.joined(chosen)
            whole = whole._replace(vertices=whole.vertices * size)
            out.append(textured(shapes.moved(whole, R, shift), rng.uniform(0.25, 0.8) * size, cover[kind], object_id))
    return out, size * 1.1


def make(rng: np.random.Generator, frames: int, size_hw: tuple[int, int], seed: int) -> FamilyClip:
    """One to five animals, from across a meadow to nose to nose."""
    t = np.linspace(0, rng.uniform(0.2, 1.5), frames)
    objects, size = animal(rng, t, np.zeros(3), rng.uniform(0, 6.3), 1)
    body = np.concatenate([o.vertices[:, ::7] for o in objects], 1)
    target = body.mean((0, 1))
    fov = rng.uniform(28, 65)
    distance = size * np.exp(rng.uniform(np.log(1.3), np.log(5))) + 0.5 * float(np.ptp(body.mean(0), axis=0).max())
    cams = cameras.around(
        rng, frames, target, distance, height=distance * rng.uniform(-0.05, 0.5), yaw=rng.uniform(0, 6.3)
    )
    cams = cameras.above_ground(cameras.kept_in_view(cams, body.mean(1), fov), 0.1)
    eye = cameras.eyes(cams)
    number = 1
    for _ in range(rng.integers(0, 5)):
        at = np.array([rng.normal(0, 2 * size), 0, rng.normal(0, 2 * size)])
        more, _ = animal(rng, t, at, rng.uniform(0, 6.3), number + 1)
        near = min(np.linalg.norm(o.vertices[:, ::9] - eye[:, None], axis=-1).min() for o in more)
        if near > 0.45 * distance and np.linalg.norm(at) > 0.9 * size:
            number, objects = number + 1, objects + more
    if rng.random() < 0.25:  # a leash
        neck = body[:, :1].mean(1)
        hand = target + [rng.normal(0, 0.8), -1.0, rng.normal(0, 0.8)]
        sag = np.linspace(0, 1, 14)[None, :, None]
        path = neck[:, None] * (1 - sag) + hand * sag + [0, 0.2 * size, 0] * (4 * sag * (1 - sag))
        objects.append(
            textured(shapes.tube(path, np.full(14, 0.008), 6), 0.2, surfaces.plain(surfaces.color(rng)), number + 1)
        )
    setting = anywhere(rng, seed, target - eye[0], fov * 1.25, eye)
    K = cameras.lens(rng, size_hw, fov)
    return FamilyClip(
        (*objects, *setting.objects), setting.panorama, setting.sky, cams, K, size_hw, "animals", seed
    )  # fmt: skip
