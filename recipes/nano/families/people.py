"""People of many builds, dressed, walking, gesturing, sitting, holding things; whole and close."""

from __future__ import annotations

import numpy as np

from families import assets, cameras, motion, shapes, surfaces
from families.body import Posed, bone, skin
from families.dress import dressed
from families.floating import textured, thing
from families.settings import anywhere
from families.types import FamilyClip, Textured


def person(
    rng: np.random.Generator, frames: int, seed: int, at: np.ndarray, yaw: float, object_id: int, clip_seconds: float
) -> tuple[list[Textured], Posed, int]:
    """Meshes, the pose in the world, and the next free object id; the person stands at `at` [3] and looks along -z turned by yaw."""
    t = np.linspace(0, clip_seconds, frames)
    body = assets.pick(rng, len(assets.rig().rest), seed)
    kind, speed = rng.random(), 0.0
    if kind < 0.35:
        pose, speed = motion.walking(rng, t)
    elif kind < 0.75:
        pose = motion.standing(rng, t)
    else:
        pose = motion.sitting(rng, t)
    posed = skin(body, pose, rng.uniform(0.05, 0.9))
    R = shapes.turn(1, yaw)
    way = R @ np.array([0, 0, -1.0])
    shift = at + (t - t.mean())[:, None] * speed * way
    posed = Posed(
        (posed.vertices @ R.T.astype(np.float32) + shift[:, None]).astype(np.float32),
        R @ posed.orientation,
        posed.joint @ R.T + shift[:, None],
    )
    out = dressed(rng, body, posed, object_id)
    nxt = object_id + 1
    if kind >= 0.75:  # what they sit on
        hip = posed.joint[0, bone("root")]
        high = max(-hip[1] - 0.1 + at[1], 0.15)
        seat = shapes.box(np.array([rng.uniform(0.22, 0.5), high / 2, 0.22]))
        back = R @ np.array([0, 0, 0.08])
        seat = shapes.moved(seat, R, np.array([hip[0], at[1] - high / 2, hip[2]]) + back)
        out.append(textured(seat, 0.6, surfaces.surface(rng), nxt))
        nxt += 1
    if rng.random() < 0.45:
        out.append(_held(rng, posed, nxt))
        nxt += 1
    return out, posed, nxt


def _held(rng: np.random.Generator, posed: Posed, object_id: int) -> Textured:
    """A cup, box, stick, ball, phone or odd thing in a hand."""
    side = "L" if rng.random() < 0.5 else "R"
    k, finger = bone(f"wrist.{side}"), bone(f"finger3-2.{side}")
    kind = rng.integers(5)
    if kind == 0:
        mesh = shapes.box(np.array([0.038, 0.075, 0.005]) * rng.uniform(0.9, 2))
    elif kind == 1:
        mesh = shapes.cylinder(rng.uniform(0.03, 0.045), rng.uniform(0.08, 0.25))
    elif kind == 2:
        mesh = shapes.tube(np.linspace([0, -0.5, 0], [0, 0.6, 0], 4) * rng.uniform(0.3, 1.2), np.full(4, 0.012))
    elif kind == 3:
        mesh = shapes.ball(np.full(3, rng.uniform(0.04, 0.13)))
    else:
        mesh = thing(rng)
        mesh = mesh._replace(vertices=mesh.vertices * rng.uniform(0.1, 0.35))
    G = posed.orientation[:, k] @ shapes.turn(0, rng.uniform(-0.6, 0.6)) @ shapes.turn(2, rng.uniform(-0.6, 0.6))
    at = posed.joint[:, finger] * 0.7 + posed.joint[:, k] * 0.3
    return textured(shapes.moved(mesh, G, at), 0.12, surfaces.surface(rng, 0.8), object_id)


def make(rng: np.random.Generator, frames: int, size_hw: tuple[int, int], seed: int) -> FamilyClip:
    """One to five people; shots of the whole body, of the upper half, or of a face or hand."""
    shot = rng.choice(3, p=[0.45, 0.4, 0.15])
    seconds = rng.uniform(0.3, 1.8)
    objects, first, nxt = person(rng, frames, seed, np.zeros(3), rng.normal(0, 0.9), 1, seconds)
    v = first.vertices
    high = float(-v[..., 1].min())
    head, wrist = first.joint[:, bone("head")].mean(0), first.joint[:, bone("wrist.L")].mean(0)
    target = (np.array([0, -0.5 * high, 0]), head + [0, 0.2, 0], head if rng.random() < 0.6 else wrist)[shot]
    distance = (rng.uniform(1.6, 3.2) * high, rng.uniform(0.8, 1.8), rng.uniform(0.45, 0.8))[shot]
    fov = (rng.uniform(30, 70), rng.uniform(30, 65), rng.uniform(35, 60))[shot]
    if shot == 0 and rng.random() < 0.2:  # from afar, long lens
        distance, fov = distance * 4, fov / 3.5
    cams = cameras.around(
        rng, frames, target, distance, height=distance * rng.normal(0.08, 0.15), yaw=rng.normal(0, 0.5),
        motion=(1.0, 0.8, 0.5)[shot],
    )  # fmt: skip
    follow = first.vertices.mean(1) - first.vertices.mean((0, 1)) + target
    cams = cameras.kept_in_view(cams, follow, fov)
    cams = cameras.above_ground(cams)
    if rng.random() < 0.3:
        cams = cameras.rolled(cams, rng.normal(0, 0.15))
    eye = cameras.eyes(cams)
    for _ in range(rng.integers(0, 5) if shot < 2 else rng.integers(0, 2)):
        at = np.array([rng.normal(0, 1.8), 0, rng.normal(0.8, 2.2)])
        if np.linalg.norm((at - eye)[:, [0, 2]], axis=1).min() < max(0.9, 0.35 * distance) or np.linalg.norm(at) < 0.7:
            continue
        more, other, nxt = person(rng, frames, seed, at, rng.uniform(0, 6.3), nxt, seconds)
        if np.linalg.norm(other.vertices[:, ::20] - eye[:, None], axis=-1).min() > 0.45:
            objects += more
    setting = anywhere(rng, seed, target - eye[0], fov * 1.25, eye)
    K = cameras.lens(rng, size_hw, fov)
    return FamilyClip(
        (*objects, *setting.objects), setting.panorama, setting.sky, cams, K, size_hw, "people", seed
    )  # fmt: skip
