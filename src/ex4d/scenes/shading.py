"""Colour of the surfaces that a rasteriser found: texture, soft ambient light, one shadowed lamp or sun, gloss, sky.

Everything is evaluated per pixel from the face id, in float64 geometry and float32 light; only gloss depends on the camera, so
that a matte point looks the same from everywhere and a comparison across cameras is fair.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ex4d.scenes.textures import SIZE, TextureBank
from ex4d.types import WatertightMesh

#: Pixels shaded at a time: their arrays stay in a core's own cache, which makes numpy about twice as fast.
BAND = 8192


@dataclass(frozen=True)
class Material:
    """How one kind of surface answers light.

    Attributes:
        texture: Index into the scene's textures.
        mirror: Share of light reflected as from polish, at normal incidence (0 = matte).
        emission: Light of its own as a multiple of its texture (lamps, windows).
        kind: "surface", "sky" (gradient and clouds by direction) or "glass" (shown over what is behind it).
    """

    texture: int
    mirror: float = 0.0
    emission: float = 0.0
    kind: str = "surface"


@dataclass(frozen=True)
class Light:
    """The scene's light. Colours are linear RGB.

    Attributes:
        position: Lamp or far-away sun, scene metres.
        color: Of the direct light at full incidence.
        ambient: Of the sky or the room, from above; 60 % of it comes from below.
        shadow_center: Point the shadow map looks at.
        shadow_radius: Metres around that point which the shadow map covers.
        horizon, zenith: Sky colours.
    """

    position: np.ndarray
    color: np.ndarray
    ambient: np.ndarray
    shadow_center: np.ndarray = field(default_factory=lambda: np.zeros(3))
    shadow_radius: float = 4.0
    horizon: np.ndarray = field(default_factory=lambda: np.array([0.7, 0.75, 0.8], np.float32))
    zenith: np.ndarray = field(default_factory=lambda: np.array([0.2, 0.4, 0.8], np.float32))


class Surface(NamedTuple):
    """The points seen through the pixels, one row each."""

    pixel: np.ndarray  # flat index of the pixel
    face: np.ndarray  # face id
    position: np.ndarray  # scene metres
    normal: np.ndarray  # unit, towards the camera
    uv: np.ndarray
    footprint: np.ndarray  # size of a pixel in texels
    ray: np.ndarray  # unit, from the camera to the point
    depth: np.ndarray  # camera z


@dataclass(frozen=True)
class Geometry:
    """All parts of a scene at one time, in scene axes.

    Attributes:
        mesh: World-axes mesh for the rasteriser; its colours are not used here.
        vertices: The same vertices in scene axes, float64 [V, 3].
        normals: Per corner of every face, float32 [F, 3, 3].
        uv: Per corner of every face, float32 [F, 3, 2].
        texels_per_m: Per face.
        material: Per face.
    """

    mesh: WatertightMesh
    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    texels_per_m: np.ndarray
    material: np.ndarray


def edge_planes(vertices_in_cam: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Per face [F, 3, 3]: b x c, c x a, a x b of its corners in the camera frame; a ray's weights are its products with them."""
    a, b, c = (vertices_in_cam[faces[:, k]] for k in range(3))
    return np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], 1)


def corner_weights(
    planes: np.ndarray, corner_depth: np.ndarray, px: np.ndarray, K: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Perspective-correct barycentric weights under pixels, from the `edge_planes` of their faces.

    Args:
        planes: Of the face of each pixel, [N, 3, 3].
        corner_depth: Camera z of the corners of the face of each pixel, [N, 3].
        px: [N, 2].
        K: Intrinsics.

    Returns:
        Weights [N, 3] that sum to 1, depth along z [N], and rays [N, 3] with z = 1.
    """
    ray = np.concatenate([px, np.ones_like(px[:, :1])], 1) @ np.linalg.inv(K.astype(np.float64)).T
    w = np.einsum("nki,ni->nk", planes, ray)
    total = w.sum(1, keepdims=True)
    w = w / np.where(total == 0, 1.0, total)
    return w, np.einsum("nk,nk->n", w, corner_depth), ray


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ni,ni->n", a, b)


def surface(
    geometry: Geometry,
    face_id: np.ndarray,
    pixel: np.ndarray,
    width: int,
    cam_from_scene: np.ndarray,
    K: np.ndarray,
    planes: np.ndarray,
    corner_depth: np.ndarray,
) -> Surface:
    """What some pixels see: `face_id` and `pixel` are flat lists, `planes` and `corner_depth` belong to all faces."""
    face = face_id
    px = np.stack([pixel % width + 0.5, pixel // width + 0.5], 1)
    R, t = cam_from_scene[:3, :3], cam_from_scene[:3, 3]
    weights, depth, ray = corner_weights(planes[face], corner_depth[face], px, K)
    position = (ray * depth[:, None] - t) @ R
    direction = ray @ R
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    weights32 = weights.astype(np.float32)
    normal = np.einsum("nk,nki->ni", weights32, geometry.normals[face])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    cosine = _dot(normal, direction.astype(np.float32))
    normal = np.where(cosine[:, None] > 0, -normal, normal)
    uv = np.einsum("nk,nki->ni", weights32, geometry.uv[face])
    tilt = np.sqrt(np.clip(np.abs(cosine), 0.1, 1))
    footprint = depth / K[0, 0] * geometry.texels_per_m[face] / tilt
    return Surface(pixel, face, position, normal, uv, footprint, direction, depth)


def sky_color(direction: np.ndarray, light: Light, bank: TextureBank, clouds: int) -> np.ndarray:
    """Gradient, clouds and the glow of the sun along unit directions [N, 3]; linear RGB."""
    up = np.clip(-direction[:, 1:2], 0, 1).astype(np.float32)
    base = light.horizon + (light.zenith - light.horizon) * up**0.6
    plane = direction[:, [0, 2]] / np.maximum(up + 0.12, 0.12) * 0.35
    cover = bank.sample(np.full(len(direction), clouds), plane, np.full(len(direction), 1.5))[:, :1]
    white = light.horizon * 0.35 + 0.75
    sky = base + (white - base) * np.clip(cover * 1.6 - 0.35, 0, 1) * np.clip(up * 4, 0, 1)
    to_sun = light.position / np.linalg.norm(light.position)
    glow = np.clip(direction @ to_sun, 0, 1).astype(np.float32)[:, None]
    return sky + light.color * 0.3 * glow**64


def shadow_factor(position: np.ndarray, shadow_map: tuple[np.ndarray, np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Share of direct light, 0..1 float32 [N], by four filtered looks into a depth map drawn from the light."""
    if shadow_map is None:
        return np.ones(len(position), np.float32)
    depth, light_from_scene, K = shadow_map
    p = position @ light_from_scene[:3, :3].T + light_from_scene[:3, 3]
    z = np.maximum(p[:, 2], 1e-6)
    size = depth.shape[0]
    xy = p[:, :2] / z[:, None] * K[0, 0] + K[0, 2] - 0.5
    low = np.floor(xy).astype(np.int64)
    w = (xy - low).astype(np.float32)
    inside = (low >= 1).all(1) & (low < size - 2).all(1) & (p[:, 2] > 0)
    low = np.clip(low, 0, size - 2)
    limit = z * 0.993 - 0.02
    flat, start = depth.reshape(-1), low[:, 1] * size + low[:, 0]
    lit = [(flat[start + o] > limit).astype(np.float32) for o in (0, 1, size, size + 1)]
    top, bottom = lit[0] + (lit[1] - lit[0]) * w[:, 0], lit[2] + (lit[3] - lit[2]) * w[:, 0]
    return np.where(inside, top + (bottom - top) * w[:, 1], 1.0).astype(np.float32)


def ambient_share(s: Surface, spheres: np.ndarray, room_half: np.ndarray | None) -> np.ndarray:
    """Ambient occlusion, float32 [N]: sphere stand-ins for compact things, and the corners of a room.

    A sphere of radius r at distance d above a point hides about cos * (r / d)^2 of its hemisphere.
    """
    share = np.ones(len(s.face), np.float32)
    position = s.position.astype(np.float32)
    for x, y, z, r in spheres.astype(np.float32):
        to = np.array([x, y, z]) - position
        d2 = np.maximum(_dot(to, to), r * r)
        cosine = np.maximum(_dot(to, s.normal), 0) / np.sqrt(d2)
        share *= 1 - np.float32(0.85) * cosine * (r * r) / d2
    if room_half is not None:  # [half x, height, half z]: walls at +-x and +-z, floor at 0, ceiling at -height
        p, half_x, height, half_z = position, *room_half.astype(np.float32)
        gaps = (half_x - np.abs(p[:, 0]), -p[:, 1], height + p[:, 1], half_z - np.abs(p[:, 2]))
        normals = (s.normal[:, 0], s.normal[:, 1], s.normal[:, 1], s.normal[:, 2])
        for gap, n in zip(gaps, normals, strict=True):
            share *= 1 - np.float32(0.4) * np.exp(-np.maximum(gap, 0) / np.float32(0.35)) * (1 - np.abs(n))
    return share


@dataclass(frozen=True)
class Shader:
    """All that shading needs besides the geometry of one moment."""

    materials: list[Material]
    bank: TextureBank
    light: Light
    clouds: int
    room_half: np.ndarray | None = None
    haze_m: float | None = None

    def linear(
        self,
        geometry: Geometry,
        face_id: np.ndarray,
        cam_from_scene: np.ndarray,
        K: np.ndarray,
        shadow_map: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
        spheres: np.ndarray,
    ) -> np.ndarray:
        """Linear RGB float32 [H, W, 3]; pixels without a face show the horizon."""
        out = np.broadcast_to(self.light.horizon, (face_id.size, 3)).astype(np.float32).copy()
        vertices_in_cam = geometry.vertices @ cam_from_scene[:3, :3].T + cam_from_scene[:3, 3]
        planes = edge_planes(vertices_in_cam, geometry.mesh.faces)
        corner_depth = vertices_in_cam[geometry.mesh.faces, 2]
        flat = face_id.reshape(-1)
        covered = np.flatnonzero(flat >= 0)
        for start in range(0, len(covered), BAND):
            pixel = covered[start : start + BAND]
            width = face_id.shape[1]
            s = surface(geometry, flat[pixel], pixel, width, cam_from_scene, K, planes, corner_depth)
            out[pixel] = self._band(geometry, s, shadow_map, spheres)
        return out.reshape(*face_id.shape, 3)

    def _band(
        self,
        geometry: Geometry,
        s: Surface,
        shadow_map: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
        spheres: np.ndarray,
    ) -> np.ndarray:
        m = geometry.material[s.face]
        albedo = self.bank.sample(np.array([x.texture for x in self.materials])[m], s.uv, s.footprint)
        light = self.light
        to_light = light.position - s.position
        distance = np.linalg.norm(to_light, axis=1, keepdims=True)
        to_light = (to_light / distance).astype(np.float32)
        direct = np.clip(_dot(s.normal, to_light), 0, 1) * shadow_factor(s.position, shadow_map)
        tilt = 0.2 if self.room_half is None else 0.05  # indoors the floor and the walls light the ceiling
        from_above = (1 - tilt - tilt * s.normal[:, 1:2]).astype(np.float32)
        ambient = light.ambient * from_above * ambient_share(s, spheres, self.room_half)[:, None]
        emission = np.array([x.emission for x in self.materials], np.float32)[m][:, None]
        color = albedo * (ambient + light.color * direct[:, None] + emission)
        color = self._polish(color, s, m, to_light, direct)
        if self.haze_m is not None:
            far = 1 - np.exp(-np.linalg.norm(s.position, axis=1, keepdims=True).astype(np.float32) / self.haze_m)
            color += (light.horizon - color) * far
        sky = np.array([x.kind == "sky" for x in self.materials])[m]
        if sky.any():  # the dome is a surface like any other: its colour belongs to the point, not to the ray
            from_middle = s.position[sky] / np.linalg.norm(s.position[sky], axis=1, keepdims=True)
            color[sky] = sky_color(from_middle, light, self.bank, self.clouds)
        return color

    def _polish(
        self, color: np.ndarray, s: Surface, m: np.ndarray, to_light: np.ndarray, direct: np.ndarray
    ) -> np.ndarray:
        mirror = np.array([x.mirror for x in self.materials], np.float32)[m]
        shiny = np.flatnonzero(mirror > 0)
        if not len(shiny):
            return color
        n, d = s.normal[shiny], s.ray[shiny].astype(np.float32)
        facing = -_dot(n, d)
        r = d + 2 * facing[:, None] * n
        share = mirror[shiny] + (1 - mirror[shiny]) * np.clip(1 - facing, 0, 1) ** 5 * np.minimum(1, 4 * mirror[shiny])
        seen = sky_color(r, self.light, self.bank, self.clouds)
        seen = np.where(r[:, 1:2] > 0, self.light.ambient * 0.25, seen * (0.45 if self.room_half is not None else 1))
        spark = (
            np.clip(_dot(r, to_light[shiny]), 0, 1) ** 60 * (direct[shiny] > 0) * np.minimum(1, 3 * mirror[shiny]) * 3
        )
        color[shiny] = color[shiny] * (1 - share)[:, None] + seen * share[:, None] + self.light.color * spark[:, None]
        return color


def display(linear: np.ndarray) -> np.ndarray:
    """uint8 display-referred RGB: a soft shoulder above 0.7, gamma 2.2, rounding."""
    x = np.maximum(linear, 0)
    x = np.where(x > 0.7, 0.7 + 0.3 * (1 - np.exp(-(x - 0.7) / 0.3)), x).astype(np.float32)
    return (x ** np.float32(1 / 2.2) * 255 + 0.5).astype(np.uint8)


def texels_per_metre(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Per face, from its rest shape: the square root of texture area over surface area, in texels."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    (ax, ay), (bx, by), (cx, cy) = (uv[faces[:, k]].T for k in range(3))
    texture_area = np.abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) * SIZE**2
    return np.sqrt(np.maximum(texture_area, 1e-12) / np.maximum(area, 1e-12))
