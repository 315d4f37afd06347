"""Hand-held, gliding and standing cameras around something to look at."""

from __future__ import annotations

import numpy as np

from ex4d.geometry.frames import eye_in_world, look_at
from ex4d.geometry.pinhole import focal_px, intrinsics


def lens(rng: np.random.Generator, size_hw: tuple[int, int], fov_deg: float) -> np.ndarray:
    """K float32 [3, 3] from a field of view over the longer side."""
    return intrinsics(size_hw, focal_px(float(max(size_hw)), float(np.radians(fov_deg)))).astype(np.float32)


def wander(rng: np.random.Generator, frames: int, sigma: float, slow: float = 12.0) -> np.ndarray:
    """A smooth random walk [T, 3] about 0, as of a hand: a few slow waves of about `slow` frames."""
    t = np.arange(frames)[:, None]
    out = np.zeros((frames, 3))
    for _ in range(4):
        period = slow * np.exp(rng.normal(0, 0.5))
        out += rng.normal(0, sigma / 2, 3) * np.sin(2 * np.pi * (t / period + rng.random(3)))
    return out


def around(
    rng: np.random.Generator,
    frames: int,
    target: np.ndarray,
    distance: float,
    *,
    height: float,
    yaw: float,
    motion: float = 1.0,
) -> np.ndarray:
    """cam_from_world [T, 4, 4] of a camera `distance` from `target` [3] at `height` over it, seen from `yaw` (0: from -z).

    A third stands on a tripod; the others glide sideways, forwards, up, or turn about the target, and all of these shake a little.
    `motion` scales how far they go in terms of the distance.
    """
    target = np.asarray(target, float)
    back = np.array([np.sin(yaw), 0, -np.cos(yaw)])
    flat = np.sqrt(max(distance**2 - height**2, 0.04 * distance**2))
    eye = target + flat * back - [0, height, 0]
    u = np.linspace(-0.5, 0.5, frames)[:, None]
    aim = target + np.zeros((frames, 3)) + rng.normal(0, 0.04, 3) * distance
    eyes = np.repeat(eye[None], frames, 0)
    if rng.random() > 0.33:
        side = np.array([back[2], 0, -back[0]])
        go = side * rng.normal(0, 0.25) + back * rng.normal(0, 0.2) + np.array([0, rng.normal(0, 0.06), 0])
        eyes = eyes + u * go * distance * motion
        aim = aim + u * go * distance * motion * rng.choice([0.0, 0.0, 1.0, 0.6])
        hand = rng.choice([0.0, 0.004, 0.01])
        eyes = eyes + wander(rng, frames, hand * distance)
        aim = aim + wander(rng, frames, hand * distance)
    return look_at(eyes, aim) @ np.eye(4)


def rolled(cam_from_world: np.ndarray, angle: float) -> np.ndarray:
    """The same cameras turned about their own axis, radians."""
    c, s = np.cos(angle), np.sin(angle)
    R = np.eye(4)
    R[:2, :2] = [[c, -s], [s, c]]
    return R @ cam_from_world


def eyes(cam_from_world: np.ndarray) -> np.ndarray:
    """Camera centres [T, 3]."""
    return eye_in_world(cam_from_world)


def above_ground(cam_from_world: np.ndarray, least: float = 0.2) -> np.ndarray:
    """The same cameras lifted so that none is lower than `least` metres over y = 0."""
    low = float(eyes(cam_from_world)[:, 1].max()) + least
    lift = np.array([0, min(-low, 0.0), 0])
    out = cam_from_world.copy()
    out[:, :3, 3] -= out[:, :3, :3] @ lift
    return out


def kept_in_view(cam_from_world: np.ndarray, points: np.ndarray, fov_deg: float) -> np.ndarray:
    """The same path, but aimed at `points` [T, 3] all the way where they would leave the middle four fifths of the picture."""
    p = np.einsum("tij,tj->ti", cam_from_world[:, :3, :3], points) + cam_from_world[:, :3, 3]
    share = np.abs(p[:, :2]) / np.maximum(p[:, 2:], 1e-3) / np.tan(np.radians(fov_deg) / 2)
    if share.max() < 0.8 and p[:, 2].min() > 0:
        return cam_from_world
    return look_at(eyes(cam_from_world), points)
