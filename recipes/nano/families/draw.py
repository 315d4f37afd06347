"""A FamilyClip through the CPU rasteriser: colour, depth, object. For looking at clips and for the held-out set."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ex4d.geometry.frames import look_at
from ex4d.geometry.pinhole import intrinsics
from ex4d.render.base import Rasterizer
from ex4d.types import WatertightMesh
from families.types import FamilyClip

#: Shadow map side; a point within this share of its distance to the light is lit.
SHADOW_PX, SHADOW_SLACK = 768, 0.004


class Drawn(NamedTuple):
    """color uint8 [T, H, W, 3]; depth float32 [T, H, W], metres along z, +inf where no mesh is; object_id int32 [T, H, W], -1 there."""

    color: np.ndarray
    depth: np.ndarray
    object_id: np.ndarray


class _Scene(NamedTuple):
    """All meshes of a clip in one: vertices come a frame at a time."""

    faces: np.ndarray
    uv: np.ndarray
    face_texture: np.ndarray
    face_object: np.ndarray
    textures: list[list[np.ndarray]]
    texels_per_uv: np.ndarray


def _mips(texture: np.ndarray) -> list[np.ndarray]:
    levels = [(texture.astype(np.float32) / 255) ** 2.2]
    while min(levels[-1].shape[:2]) > 1:
        h, w = levels[-1].shape[:2]
        levels.append(levels[-1].reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3)))
    return levels


def _gather(clip: FamilyClip) -> _Scene:
    counts = [o.vertices.shape[1] for o in clip.objects]
    starts = np.cumsum([0, *counts[:-1]])
    kinds: dict[int, int] = {}
    textures, which = [], []
    for o in clip.objects:
        if id(o.texture) not in kinds:
            kinds[id(o.texture)] = len(textures)
            textures.append(_mips(o.texture))
        which.append(kinds[id(o.texture)])
    return _Scene(
        np.concatenate([o.faces + s for o, s in zip(clip.objects, starts, strict=True)]).astype(np.int32),
        np.concatenate([o.uv for o in clip.objects]).astype(np.float32),
        np.concatenate([np.full(len(o.faces), k) for o, k in zip(clip.objects, which, strict=True)]),
        np.concatenate([np.full(len(o.faces), o.object_id) for o in clip.objects]).astype(np.int32),
        textures,
        np.array([np.sqrt(t[0].shape[0] * t[0].shape[1]) for t in textures]),
    )


def _vertices(clip: FamilyClip, t: int) -> np.ndarray:
    return np.concatenate([o.vertices[min(t, len(o.vertices) - 1)] for o in clip.objects]).astype(np.float32)


def _normals(v: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (v[faces[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    total = np.stack([np.bincount(faces.reshape(-1), np.repeat(flat[:, i], 3), len(v)) for i in range(3)], -1)
    return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _mesh(v: np.ndarray, faces: np.ndarray, rgba: np.ndarray) -> WatertightMesh:
    return WatertightMesh(v, faces, rgba.astype(np.float32), np.ones(len(faces), bool))


class Light(NamedTuple):
    """position [3] of a small far lamp, metres; share of its light at full incidence and of light from everywhere, linear RGB [3]."""

    position: np.ndarray
    direct: np.ndarray
    ambient: np.ndarray


def light_of(clip: FamilyClip) -> Light:
    """A light that fits: from above, from any side, warm or cold; a function of the clip's seed."""
    rng = np.random.default_rng((20261126, 99, clip.seed))
    yaw, high = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(25, 75))
    away = np.array([np.cos(yaw) * np.cos(high), -np.sin(high), np.sin(yaw) * np.cos(high)])
    warm = np.array([1, rng.uniform(0.85, 1), rng.uniform(0.7, 1.05)])
    share = rng.uniform(0.3, 0.75)
    return Light(away * 30, 1.35 * share * warm, (1 - share) * np.array([0.95, 1, 1.08]) * 1.1)


def _lit(clip: FamilyClip, v: np.ndarray, scene: _Scene, light: Light, rasterizer: Rasterizer, center: np.ndarray):
    """Shadow map (depth, light_from_world, K) about `center`."""
    where = center + light.position
    radius = 6.0
    light_from_world = look_at(where, center)
    K = intrinsics((SHADOW_PX, SHADOW_PX), float(0.5 * SHADOW_PX * np.linalg.norm(light.position) / radius))
    mesh = _mesh(v, scene.faces, np.zeros((len(v), 4)))
    return (
        rasterizer.draw(mesh, light_from_world, K.astype(np.float32), (SHADOW_PX, SHADOW_PX)).depth,
        light_from_world,
        K,
    )


def _shadow(points: np.ndarray, shadow_map) -> np.ndarray:
    depth, light_from_world, K = shadow_map
    p = points @ light_from_world[:3, :3].T + light_from_world[:3, 3]
    xy = p[:, :2] / np.maximum(p[:, 2:], 1e-6) * K[0, 0] + K[0, 2] - 0.5
    size = len(depth)
    inside = (xy >= 0).all(1) & (xy < size - 1).all(1) & (p[:, 2] > 0)
    low = np.clip(np.floor(np.where(inside[:, None], xy, 0)).astype(np.int64), 0, size - 2)
    f = np.clip(xy - low, 0, 1)
    seen = [
        (depth[low[:, 1] + dy, low[:, 0] + dx] > p[:, 2] * (1 - SHADOW_SLACK)).astype(np.float32)
        for dy in (0, 1)
        for dx in (0, 1)
    ]
    top, low_ = seen[0] + (seen[1] - seen[0]) * f[:, 0], seen[2] + (seen[3] - seen[2]) * f[:, 0]
    return np.where(inside, top + (low_ - top) * f[:, 1], 1.0).astype(np.float32)


def _sample(levels: list[np.ndarray], uv: np.ndarray, level: np.ndarray) -> np.ndarray:
    out = np.empty((len(uv), 3), np.float32)
    level = np.clip(np.round(level), 0, len(levels) - 1).astype(int)
    for k in np.unique(level):
        at = level == k
        t = levels[k]
        h, w = t.shape[:2]
        xy = (uv[at] - np.floor(uv[at])) * [w, h] - 0.5
        low = np.floor(xy).astype(np.int64)
        f = (xy - low).astype(np.float32)
        x0, x1, y0, y1 = low[:, 0] % w, (low[:, 0] + 1) % w, low[:, 1] % h, (low[:, 1] + 1) % h
        top = t[y0, x0] * (1 - f[:, :1]) + t[y0, x1] * f[:, :1]
        out[at] = top + (t[y1, x0] * (1 - f[:, :1]) + t[y1, x1] * f[:, :1] - top) * f[:, 1:]
    return out


def background(
    panorama: np.ndarray | None, cam_from_world: np.ndarray, K: np.ndarray, size_hw: tuple[int, int]
) -> np.ndarray:
    """The panorama in every direction of a camera, linear light float32 [H, W, 3]."""
    h, w = size_hw
    if panorama is None:
        return np.zeros((h, w, 3), np.float32)
    x, y = np.meshgrid((np.arange(w) + 0.5 - K[0, 2]) / K[0, 0], (np.arange(h) + 0.5 - K[1, 2]) / K[1, 1])
    d = np.stack([x, y, np.ones_like(x)], -1) @ cam_from_world[:3, :3]
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    ph, pw = panorama.shape[:2]
    u = (0.5 + np.arctan2(d[..., 0], d[..., 2]) / (2 * np.pi)) * pw - 0.5
    v = (0.5 + np.arcsin(np.clip(d[..., 1], -1, 1)) / np.pi) * ph - 0.5
    wide = np.concatenate([panorama[:, -2:], panorama, panorama[:, :2]], 1)
    found = cv2.remap(
        wide, (u + 2).astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return (found.astype(np.float32) / 255) ** 2.2


def draw(clip: FamilyClip, rasterizer: Rasterizer | None = None, supersample: int = 2, shadows: bool = True) -> Drawn:
    """Every frame. Depth and object are those of pixel centres; colour is averaged over supersample^2 points."""
    from ex4d.render.make import get_rasterizer

    rasterizer = rasterizer or get_rasterizer("cpu")
    frames, (h, w), s = len(clip.cam_from_world), clip.size_hw, supersample
    color = np.empty((frames, h, w, 3), np.uint8)
    depth = np.full((frames, h, w), np.inf, np.float32)
    object_id = np.full((frames, h, w), -1, np.int32)
    fine_K = (clip.K * np.array([s, s, 1])[:, None]).astype(np.float32)
    scene, light = (_gather(clip) if clip.objects else None), light_of(clip)
    shadow_map = None
    for t in range(frames):
        cam = clip.cam_from_world[t]
        linear = background(clip.panorama, cam, fine_K, (h * s, w * s))
        if scene is not None:
            v = _vertices(clip, t)
            normal = _normals(v, scene.faces)
            exact = rasterizer.draw(_mesh(v, scene.faces, np.zeros((len(v), 4))), cam, clip.K, (h, w))
            hit = exact.face_id >= 0
            depth[t], object_id[t][hit] = exact.depth, scene.face_object[exact.face_id[hit]]
            if shadows and hit.any():
                near = np.median(exact.depth[hit])
                ahead = np.array([0, 0, min(float(near), 12.0)]) - cam[:3, 3]
                shadow_map = _lit(clip, v, scene, light, rasterizer, cam[:3, :3].T @ ahead)
            linear = _shade(scene, v, normal, cam, fine_K, linear, light, shadow_map, rasterizer)
        shown = np.clip(linear, 0, None)
        shown = np.where(shown > 0.7, 0.7 + 0.3 * (1 - np.exp(-(shown - 0.7) / 0.3)), shown) ** np.float32(1 / 2.2)
        color[t] = (shown.reshape(h, s, w, s, 3).mean((1, 3)) * 255 + 0.5).astype(np.uint8)
    return Drawn(color, depth, object_id)


def _shade(scene, v, normal, cam, K, linear, light, shadow_map, rasterizer) -> np.ndarray:
    """The meshes over a background, linear light; u, v and the normal's share ride on the rasteriser's four colour channels."""
    size = linear.shape[:2]
    found = rasterizer.draw(_mesh(v, scene.faces, np.concatenate([scene.uv, normal[:, :2]], 1)), cam, K, size)
    sign = rasterizer.draw(_mesh(v, scene.faces, np.repeat(normal[:, 2:], 4, 1)), cam, K, size).color[..., 0]
    y, x = np.nonzero(found.face_id >= 0)
    face, z = scene.faces[found.face_id[y, x]], found.depth[y, x].astype(np.float64)
    ray = np.stack([(x + 0.5 - K[0, 2]) / K[0, 0], (y + 0.5 - K[1, 2]) / K[1, 1], np.ones(len(x))], 1)
    world = (ray * z[:, None] - cam[:3, 3]) @ cam[:3, :3]
    n = np.concatenate([found.color[y, x, 2:], sign[y, x, None]], 1)
    n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-6)
    n = np.where((n * (ray @ cam[:3, :3])).sum(1, keepdims=True) > 0, -n, n)
    a, b, c = (v[face[:, k]] for k in range(3))
    ua, ub, uc = (scene.uv[face[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    p, q = ub - ua, uc - ua
    texels = scene.texels_per_uv[scene.face_texture[found.face_id[y, x]]]
    density = texels * np.sqrt(np.abs(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]) / np.maximum(area, 1e-12))
    tilt = np.sqrt(np.clip(np.abs((n * (ray @ cam[:3, :3])).sum(1)) / np.linalg.norm(ray, axis=1), 0.1, 1))
    level = np.log2(np.maximum(z / K[0, 0] * density / tilt, 1e-6))
    albedo = np.empty((len(x), 3), np.float32)
    kind = scene.face_texture[found.face_id[y, x]]
    for k in np.unique(kind):
        at = kind == k
        albedo[at] = _sample(scene.textures[k], found.color[y[at], x[at], :2], level[at])
    to = light.position / np.linalg.norm(light.position)
    direct = np.clip(n @ to, 0, 1)
    if shadow_map is not None:
        direct = direct * _shadow(world, shadow_map)
    above = 0.75 - 0.25 * n[:, 1:2]
    linear[y, x] = albedo * (light.ambient * above + light.direct * direct[:, None])
    return linear
