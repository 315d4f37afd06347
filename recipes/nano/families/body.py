"""Pose a body of the pool: joint directions to vertices, by forward kinematics and linear blend skinning."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from families.assets import rig
from families.shapes import turn

SIDES = ("L", "R")


class Posed(NamedTuple):
    """vertices [T, V, 3]; per bone orientation [T, B, 3, 3] and joint [T, B, 3]. Feet on y = 0."""

    vertices: np.ndarray
    orientation: np.ndarray
    joint: np.ndarray


class Pose(NamedTuple):
    """Directions in the trunk's frame (x left, y down, -z ahead), each [T, 3] for left and right; turns of trunk and head [T, 3, 3]."""

    thigh: tuple[np.ndarray, np.ndarray]
    shin: tuple[np.ndarray, np.ndarray]
    upper_arm: tuple[np.ndarray, np.ndarray]
    forearm: tuple[np.ndarray, np.ndarray]
    trunk: np.ndarray
    head: np.ndarray


@cache
def bone(name: str) -> int:
    """Index of a bone."""
    return rig().names.index(name)


def align(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Least rotation [T, 3, 3] that takes direction a [3] to b [T, 3]."""
    a = a / np.linalg.norm(a)
    b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    v, c = np.cross(a, b), b @ a
    K = np.zeros((len(b), 3, 3))
    K[:, 0, 1], K[:, 0, 2], K[:, 1, 2] = -v[:, 2], v[:, 1], -v[:, 0]
    K -= np.swapaxes(K, 1, 2)
    return np.eye(3) + K + K @ K / np.maximum(1 + c, 1e-3)[:, None, None]


def skin(body: int, pose: Pose, fingers: float = 0.3) -> Posed:
    """Vertices of a posed body; `fingers` curls them, radians a joint."""
    r = rig()
    h, frames = r.joints[body], len(pose.trunk)
    goal: dict[int, np.ndarray] = {}
    for k, side in enumerate(SIDES):
        for first, last, way in (
            ("upperleg01", "lowerleg01", pose.thigh[k]), ("lowerleg01", "foot", pose.shin[k]),
            ("upperarm01", "lowerarm01", pose.upper_arm[k]), ("lowerarm01", "wrist", pose.forearm[k]),
        ):  # fmt: skip
            a, b = bone(f"{first}.{side}"), bone(f"{last}.{side}")
            goal[a] = align(h[b] - h[a], way)
        goal[bone(f"foot.{side}")] = np.broadcast_to(np.eye(3), (frames, 3, 3))
    goal[bone("head")] = pose.head
    bend = {bone(n): pose.trunk for n in ("spine04", "spine02")}
    curl = {
        bone(f"finger{f}-{j}.{side}"): turn(0, np.full(frames, 0.0)) @ _curl(h, f, side, fingers, frames)
        for side in SIDES for f in range(2, 6) for j in (1, 2, 3)
    }  # fmt: skip
    G = np.empty((frames, len(h), 3, 3))
    P = np.empty((frames, len(h), 3))
    above: dict[int, int] = {}
    trunk = np.broadcast_to(np.eye(3), (frames, 3, 3))
    for b, parent in enumerate(r.parents):
        if parent < 0:
            G[:, b], P[:, b] = trunk, h[b]
            continue
        G[:, b] = G[:, parent]
        P[:, b] = P[:, parent] + np.einsum("tij,j->ti", G[:, parent], h[b] - h[parent])
        above[b] = above.get(parent, 0) + (b in bend)
        if b in bend:
            G[:, b] = G[:, parent] @ bend[b]
        elif b in curl:
            G[:, b] = G[:, parent] @ curl[b]
        elif b in goal:
            arms = rig().names[b].startswith(("upperarm", "lowerarm", "head"))
            base = G[:, bone("spine01")] if arms else trunk
            G[:, b] = base @ goal[b]
    A = G.astype(np.float32)
    shift = (P - np.einsum("tbij,bj->tbi", G, h)).astype(np.float32)
    v = np.zeros((frames, len(r.bone), 3), np.float32)
    rest = r.rest[body]
    for k in range(r.bone.shape[1]):
        b, w = r.bone[:, k], r.weight[:, k, None]
        v += w * (np.einsum("tvij,vj->tvi", A[:, b], rest) + shift[:, b])
    drop = v[..., 1].max(1)
    v[..., 1] -= drop[:, None]
    P[..., 1] -= drop[:, None]
    return Posed(v, G, P)


def _curl(h: np.ndarray, finger: int, side: str, angle: float, frames: int) -> np.ndarray:
    """Rotation about the axis across the palm."""
    across = h[bone(f"finger5-1.{side}")] - h[bone(f"finger2-1.{side}")]
    along = h[bone(f"finger{finger}-2.{side}")] - h[bone(f"finger{finger}-1.{side}")]
    axis = across - along * (across @ along) / (along @ along)
    axis /= np.linalg.norm(axis)
    if side == "R":
        axis = -axis
    K = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    R = np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K
    return np.broadcast_to(R, (frames, 3, 3))
