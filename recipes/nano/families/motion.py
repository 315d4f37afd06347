"""How people move: walking, standing with gestures, sitting. Times in seconds; every motion is made here."""

from __future__ import annotations

import numpy as np

from families.body import Pose
from families.shapes import turn


def swing(angle: np.ndarray, aside: float) -> np.ndarray:
    """A limb's direction [T, 3]: angle 0 hangs down, positive goes ahead (-z); `aside` is its share of x."""
    return np.stack([np.full_like(angle, aside), np.cos(angle), -np.sin(angle)], -1)


def waves(rng: np.random.Generator, t: np.ndarray, size: float, period: float = 1.6) -> np.ndarray:
    """A smooth number [T] about 0."""
    out = np.zeros_like(t)
    for _ in range(3):
        out += rng.normal(0, size / 1.7) * np.sin(
            2 * np.pi * (t / (period * np.exp(rng.normal(0, 0.4))) + rng.random())
        )
    return out


def _head(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    return turn(1, rng.normal(0, 0.35) + waves(rng, t, 0.2)) @ turn(0, rng.normal(0, 0.15) + waves(rng, t, 0.08))


def _trunk(rng: np.random.Generator, t: np.ndarray, lean: float = 0.06) -> np.ndarray:
    return turn(1, waves(rng, t, 0.06)) @ turn(0, rng.normal(0, lean) + waves(rng, t, 0.02))


def walking(rng: np.random.Generator, t: np.ndarray) -> tuple[Pose, float]:
    """A gait and its speed, metres a second for a leg of 0.85 m."""
    reach, period = rng.uniform(0.25, 0.6), rng.uniform(0.85, 1.3)
    phase = 2 * np.pi * (t / period + rng.random())
    legs = []
    for offset in (0.0, np.pi):
        a = reach * np.sin(phase + offset)
        bend = 0.1 + 1.1 * reach * np.clip(np.cos(phase + offset), 0, 1) ** 1.5
        legs.append((swing(a, 0.03), swing(a - bend, 0.0)))
    arms, elbow = [], rng.uniform(0.1, 1.2)
    for side, offset in ((1, np.pi), (-1, 0.0)):
        a = 0.8 * reach * np.sin(phase + offset)
        arms.append((swing(a, side * 0.2), swing(a + elbow, side * 0.1)))
    return _pose(legs, arms, _trunk(rng, t), _head(rng, t)), 4 * 0.85 * np.sin(reach) / period


def standing(rng: np.random.Generator, t: np.ndarray) -> Pose:
    """Standing; arms hang, rest, point or gesture."""
    legs = [
        (swing(np.full_like(t, rng.normal(0, 0.06)), s * 0.06), swing(np.full_like(t, -0.05), s * 0.05))
        for s in (1, -1)
    ]
    return _pose(legs, _arms(rng, t), _trunk(rng, t), _head(rng, t))


def sitting(rng: np.random.Generator, t: np.ndarray) -> Pose:
    """Sitting on something at knee height."""
    up = np.full_like(t, rng.uniform(1.35, 1.6))
    legs = []
    for s in (1, -1):
        legs.append((swing(up, s * rng.uniform(0.03, 0.3)), swing(np.full_like(t, rng.uniform(-0.25, 0.35)), s * 0.03)))
    return _pose(legs, _arms(rng, t), _trunk(rng, t, 0.15), _head(rng, t))


def _arms(rng: np.random.Generator, t: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    arms = []
    for side in (1, -1):
        kind = rng.integers(4)
        raised = (0.05, 0.25, 0.6, 1.3)[kind] + waves(rng, t, (0.03, 0.15, 0.25, 0.25)[kind])
        elbow = (0.15, 1.5, 1.6, 0.4)[kind] + waves(rng, t, (0.03, 0.4, 0.5, 0.3)[kind])
        aside = side * rng.uniform(0.12, 0.5)
        fore = swing(raised + elbow, side * rng.uniform(-0.7, 0.3) if kind in (1, 2) else aside * 0.8)
        arms.append((swing(raised, aside), fore))
    return arms


def _pose(legs, arms, trunk: np.ndarray, head: np.ndarray) -> Pose:
    return Pose(
        (legs[0][0], legs[1][0]),
        (legs[0][1], legs[1][1]),
        (arms[0][0], arms[1][0]),
        (arms[0][1], arms[1][1]),
        trunk,
        head,
    )
