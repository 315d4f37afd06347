"""Rendered ground truth: seeded procedural dynamic scenes, seen from any camera at any time.

Families, from easy to hard (difficulty is about re-shooting from one view):

| family | place | what makes it hard |
| --- | --- | --- |
| room | furnished room | 1 to 3 movers; matte; the source camera stands still |
| terrain | hills, trees, sky | far background and sky behind near things |
| creature | either | 2 to 4 walking or deforming creatures that hide each other |
| thin | either | railings, poles, spokes and leaves a few pixels wide |
| glossy | room | polish, mirrors and glass: colour changes with the view, depth shows what is behind glass |
| moving | either | the source camera moves (dolly, truck, crane, hand-held) |

Seeds: 0 to 99,999 are for training, 100,000 to 199,999 for validation, 1,000,000 and above for tests; nothing (no
threshold of the mesh, no model) is tuned on test seeds. The families were frozen before anything was tuned on them; a change to them is
a new `VERSION`. One seed gives the same bytes in two runs on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np

from ex4d.errors import InputError
from ex4d.geometry.frames import invert_rigid, look_at
from ex4d.geometry.pinhole import focal_px, intrinsics, px_centers, unproject
from ex4d.render.base import NEAR, Rasterizer
from ex4d.scenes.families import Layout, build
from ex4d.scenes.parts import Part
from ex4d.scenes.shading import Geometry, Material, Shader, corner_weights, display, edge_planes, texels_per_metre
from ex4d.scenes.textures import TextureBank
from ex4d.types import CameraPath, DepthClip, VideoClip, WatertightMesh

#: Raised whenever a scene of any family and seed changes.
VERSION = 1

FAMILIES = ("room", "terrain", "creature", "thin", "glossy", "moving")
TRAIN_SEEDS, VALIDATION_SEEDS, FIRST_TEST_SEED = range(0, 100_000), range(100_000, 200_000), 1_000_000

#: A target pixel counts as seen when its point lies within this share of the source camera's own depth there.
DEPTH_TOLERANCE = 0.01

#: Side of the shadow map; the visibility truth looks at no fewer than 4 depth samples per pixel side and 1024 per picture.
SHADOW_SIZE, VISIBILITY_OVERSAMPLE, VISIBILITY_SIDE = 512, 4, 1024


class SceneFrame(NamedTuple):
    """A rendered picture: color uint8 [H, W, 3], depth float32 [H, W] (+inf where nothing is), face_id int32 [H, W]."""

    color: np.ndarray
    depth: np.ndarray
    face_id: np.ndarray


class _Moment(NamedTuple):
    opaque: Geometry
    glass: Geometry | None
    shadow_map: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    spheres: np.ndarray


@dataclass
class Scene:
    """A dynamic world with a source camera. The world frame is the source camera's frame at time 0; metres.

    Attributes:
        seed, family: What made it.
        num_frames: Length of the source clip; any time in [0, num_frames - 1] can be rendered.
        pivot_depth: Metres from the first source camera to the middle of the scene, along its axis; orbits turn about it.
        fov_deg: Horizontal field of view of the source camera.
    """

    seed: int
    family: str
    num_frames: int
    fps: Fraction
    pivot_depth: float
    fov_deg: float
    parts: list[Part]
    materials: list[Material]
    shader: Shader
    cam_from_scene: Callable[[float], np.ndarray]
    _moments: dict[float, _Moment] = field(default_factory=dict, repr=False)
    _static: dict[str, tuple[np.ndarray, ...]] = field(default_factory=dict, repr=False)

    # --- cameras ---
    def intrinsics(self, size_hw: tuple[int, int]) -> np.ndarray:
        """K [3, 3] of the source camera for a picture size."""
        return intrinsics(size_hw, focal_px(float(size_hw[1]), float(np.radians(self.fov_deg))))

    def source_camera(self, time: float) -> np.ndarray:
        """cam_from_world [4, 4] of the source camera; the identity at time 0."""
        return self.cam_from_scene(time) @ invert_rigid(self.cam_from_scene(0.0))

    def orbit(self, yaw_deg: float, size_hw: tuple[int, int], num_frames: int | None = None) -> CameraPath:
        """A path that turns from the source camera to `yaw_deg` about the middle of the scene (+ moves to the viewer's right)."""
        n = self.num_frames if num_frames is None else num_frames
        a = np.radians(np.linspace(0, yaw_deg, n))
        target = np.tile([0.0, 0.0, self.pivot_depth], (n, 1))
        eye = np.stack([self.pivot_depth * np.sin(a), np.zeros(n), self.pivot_depth * (1 - np.cos(a))], -1)
        K = np.repeat(self.intrinsics(size_hw)[None], n, 0)
        return CameraPath(
            look_at(eye, target), K, size_hw, np.linspace(0, self.num_frames - 1, n), f"orbit:{yaw_deg:g}"
        )

    # --- geometry ---
    def mesh(self, time: float) -> WatertightMesh:
        """All opaque surfaces as triangles in world axes, with the mean albedo of their material per vertex."""
        return self._moment(time, None).opaque.mesh

    def _parts_of(self, glass: bool) -> list[Part]:
        return [p for p in self.parts if (self.materials[p.material].kind == "glass") == glass]

    def _geometry(self, time: float, glass: bool) -> Geometry:
        chosen, key = self._parts_of(glass), "glass" if glass else "opaque"
        if key not in self._static:
            starts = np.cumsum([0] + [len(p.vertices) for p in chosen[:-1]])
            faces = np.concatenate([p.faces + s for p, s in zip(chosen, starts, strict=True)]).astype(np.int32)
            uv = np.concatenate([p.uv[p.faces] for p in chosen]).astype(np.float32)
            texels = np.concatenate([texels_per_metre(p.vertices, p.faces, p.uv) for p in chosen])
            material = np.concatenate([np.full(len(p.faces), p.material) for p in chosen])
            smooth = np.concatenate([np.full(len(p.faces), p.smooth) for p in chosen])
            weld = np.concatenate([_weld(p) + s for p, s in zip(chosen, starts, strict=True)])
            means = self.shader.bank.mean()[[self.materials[p.material].texture for p in chosen]]
            albedo = np.concatenate([np.broadcast_to(m, p.vertices.shape) for m, p in zip(means, chosen, strict=True)])
            rgba = np.concatenate([albedo ** (1 / 2.2) * 255, np.full((len(albedo), 1), 255.0)], 1).astype(np.float32)
            self._static[key] = faces, uv, texels, material, smooth, weld, rgba
        faces, uv, texels, material, smooth, weld, rgba = self._static[key]
        vertices = np.concatenate([p.at(time) for p in chosen])
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        flat = np.cross(b - a, c - a)
        corner = weld[faces]
        total = np.stack(
            [np.bincount(corner.reshape(-1), np.repeat(flat[:, i], 3), len(vertices)) for i in range(3)], -1
        )
        normals = np.where(smooth[:, None, None], total[corner], flat[:, None, :])
        normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        T = self.cam_from_scene(0.0)
        world = (vertices @ T[:3, :3].T + T[:3, 3]).astype(np.float32)
        mesh = WatertightMesh(world, faces, rgba, np.ones(len(faces), bool))
        return Geometry(mesh, vertices, normals.astype(np.float32), uv, texels, material)

    def _moment(self, time: float, rasterizer: Rasterizer | None) -> _Moment:
        time = float(time)
        if not 0 <= time <= self.num_frames - 1:
            raise InputError(f"time {time:g}", f"a time from 0 to {self.num_frames - 1} frames")
        moment = self._moments.get(time)
        if moment is None:
            glass = self._geometry(time, True) if self._parts_of(True) else None
            moment = _Moment(self._geometry(time, False), glass, None, self._spheres(time))
        if moment.shadow_map is None and rasterizer is not None:
            moment = moment._replace(shadow_map=self._shadow_map(moment.opaque, rasterizer))
        while len(self._moments) >= 4:
            self._moments.pop(next(iter(self._moments)))
        self._moments[time] = moment
        return moment

    def _spheres(self, time: float) -> np.ndarray:
        """Stand-ins [n, 4] (centre, radius) of compact shadow casters, the twelve largest, for ambient occlusion."""
        found = []
        for p in self.parts:
            if not p.casts_shadow or len(p.vertices) < 24:
                continue
            v = p.at(time)
            extent = np.ptp(v, axis=0)
            if extent.max() < 2.6 * extent.min() + 1e-6 and extent.max() < 1.5:
                found.append([*(v.max(0) + v.min(0)) / 2, 0.45 * float(np.cbrt(np.prod(extent)))])
        found.sort(key=lambda s: -s[3])
        return np.array(found[:12]).reshape(-1, 4)

    def _shadow_map(self, geometry: Geometry, rasterizer: Rasterizer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        light = self.shader.light
        casting = np.array([p.casts_shadow for p in self._parts_of(False)])
        keep = np.repeat(casting, [len(p.faces) for p in self._parts_of(False)])
        light_from_scene = look_at(light.position, light.shadow_center)
        distance = float(np.linalg.norm(light.position - light.shadow_center))
        K = intrinsics((SHADOW_SIZE, SHADOW_SIZE), float(0.5 * SHADOW_SIZE * distance / light.shadow_radius))
        mesh = WatertightMesh(
            geometry.vertices.astype(np.float32),
            geometry.mesh.faces[keep],
            geometry.mesh.color,
            geometry.mesh.visible[keep],
        )
        depth = rasterizer.draw(mesh, light_from_scene, K, (SHADOW_SIZE, SHADOW_SIZE)).depth
        return depth, light_from_scene, K

    # --- pictures ---
    def render(
        self,
        time: float,
        cam_from_world: np.ndarray,
        K: np.ndarray,
        size_hw: tuple[int, int],
        rasterizer: Rasterizer | None = None,
        supersample: int = 1,
    ) -> SceneFrame:
        """The scene at a time from any camera. Depth and face ids are those of pixel centres; `supersample` smooths colour only.

        Glass is shown in colour, while depth and face ids are those of the surface behind it.
        """
        rasterizer = rasterizer or _default_rasterizer()
        fragments = rasterizer.draw(self._moment(time, rasterizer).opaque.mesh, cam_from_world, K, size_hw)
        if supersample == 1:
            linear = self._linear(time, cam_from_world, K, size_hw, rasterizer, fragments.face_id, fragments.depth)
            return SceneFrame(display(linear), fragments.depth, fragments.face_id)
        s = supersample
        large = (size_hw[0] * s, size_hw[1] * s)
        K_large = K * np.array([s, s, 1], K.dtype)[:, None]
        fine = rasterizer.draw(self._moment(time, rasterizer).opaque.mesh, cam_from_world, K_large, large)
        linear = self._linear(time, cam_from_world, K_large, large, rasterizer, fine.face_id, fine.depth)
        shown = display(linear).astype(np.float32).reshape(size_hw[0], s, size_hw[1], s, 3).mean((1, 3))
        return SceneFrame((shown + 0.5).astype(np.uint8), fragments.depth, fragments.face_id)

    def _linear(
        self,
        time: float,
        cam_from_world: np.ndarray,
        K: np.ndarray,
        size_hw: tuple[int, int],
        rasterizer: Rasterizer,
        face_id: np.ndarray,
        depth: np.ndarray,
    ) -> np.ndarray:
        moment = self._moment(time, rasterizer)
        cam_from_scene = cam_from_world @ self.cam_from_scene(0.0)
        shade = self.shader.linear
        color = shade(moment.opaque, face_id, cam_from_scene, K, moment.shadow_map, moment.spheres)
        if moment.glass is not None:
            front = rasterizer.draw(moment.glass.mesh, cam_from_world, K, size_hw)
            over = front.depth < depth
            if over.any():
                ids = np.where(over, front.face_id, -1)
                pane = shade(moment.glass, ids, cam_from_scene, K, moment.shadow_map, moment.spheres)
                color[over] = 0.72 * color[over] * np.array([0.9, 1.0, 0.96], np.float32) + 0.25 * pane[over]
        return color

    def source(
        self, time: float, size_hw: tuple[int, int], rasterizer: Rasterizer | None = None, supersample: int = 1
    ) -> SceneFrame:
        """The picture of the source camera."""
        return self.render(time, self.source_camera(time), self.intrinsics(size_hw), size_hw, rasterizer, supersample)

    def source_clip(
        self,
        size_hw: tuple[int, int],
        num_frames: int | None = None,
        rasterizer: Rasterizer | None = None,
        supersample: int = 1,
    ) -> tuple[VideoClip, DepthClip]:
        """The input video and its exact depth (metres, with the source poses when the camera moves), the first `num_frames`."""
        n = self.num_frames if num_frames is None else num_frames
        frames = [self.source(t, size_hw, rasterizer, supersample) for t in range(n)]
        poses = np.stack([self.source_camera(t) for t in range(n)])
        still = np.array_equal(poses, np.broadcast_to(poses[:1], poses.shape))
        K = np.repeat(self.intrinsics(size_hw)[None], n, 0)
        depth = np.stack([f.depth for f in frames])
        video = VideoClip(np.stack([f.color for f in frames]), self.fps)
        return video, DepthClip(depth, K, "metric", None if still else poses)

    # --- truth ---
    def visible_from_source(
        self,
        time: float,
        cam_from_world: np.ndarray,
        K: np.ndarray,
        depth: np.ndarray,
        source_size_hw: tuple[int, int] | None = None,
        rasterizer: Rasterizer | None = None,
    ) -> np.ndarray:
        """Which pixels of a target view the source camera sees at the same time, bool [H, W].

        A pixel's point is seen when it lies inside the source picture and within 1 % of the depth of what the source camera
        sees in that exact direction. The source's surfaces are found on a grid at least four times finer than its picture and
        their planes are evaluated at the projected point: slanted surfaces are judged exactly, silhouettes to a quarter pixel.
        """
        rasterizer = rasterizer or _default_rasterizer()
        size = source_size_hw or (depth.shape[0], depth.shape[1])
        n = max(VISIBILITY_OVERSAMPLE, -(-VISIBILITY_SIDE // min(size)))
        fine_K = self.intrinsics(size).astype(np.float64) * np.array([n, n, 1.0])[:, None]
        fine_hw = (size[0] * n, size[1] * n)
        source = self.source_camera(time)
        mesh = self._moment(time, None).opaque.mesh
        face_id = rasterizer.draw(mesh, source, fine_K.astype(np.float32), fine_hw).face_id
        hit = np.isfinite(depth)
        points = unproject(px_centers((depth.shape[0], depth.shape[1]))[hit], depth[hit].astype(np.float64), K)
        source_from_cam = source @ invert_rigid(cam_from_world)
        p = points @ source_from_cam[:3, :3].T + source_from_cam[:3, 3]
        px = p[:, :2] / np.maximum(p[:, 2:], NEAR) * [fine_K[0, 0], fine_K[1, 1]] + fine_K[:2, 2]
        inside = (p[:, 2] > NEAR) & (px >= 0).all(1) & (px[:, 0] < fine_hw[1]) & (px[:, 1] < fine_hw[0])
        cell = np.floor(np.where(inside[:, None], px, 0)).astype(np.int64)
        face = face_id[cell[:, 1], cell[:, 0]]
        hit_face = face >= 0
        vertices = mesh.vertices.astype(np.float64) @ source[:3, :3].T + source[:3, 3]
        face = np.maximum(face, 0)
        planes = edge_planes(vertices, mesh.faces)[face]
        _, plane_depth, _ = corner_weights(planes, vertices[mesh.faces, 2][face], px, fine_K)
        seen = inside & hit_face & (np.abs(plane_depth - p[:, 2]) <= DEPTH_TOLERANCE * p[:, 2])
        out = np.zeros(depth.shape, bool)
        out[hit] = seen
        return out


def _weld(part: Part) -> np.ndarray:
    """Index of the first vertex of the part at the same rest position, so that seams of the texture do not show in the light."""
    _, first, inverse = np.unique(np.round(part.vertices, 7), axis=0, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


@cache
def _default_rasterizer() -> Rasterizer:
    from ex4d.render.make import get_rasterizer

    return get_rasterizer("auto")


def make_scene(seed: int, family: str, num_frames: int = 49) -> Scene:
    """The scene of a seed and family (one of `FAMILIES`), always the same.

    Args:
        seed: Any non-negative number; the module docstring says which range is for what.
        family: One of `FAMILIES`.
        num_frames: Length of the clip; movers spread their motion over it.
    """
    if family not in FAMILIES:
        raise InputError(f"scene family {family!r}", f"one of {', '.join(FAMILIES)}")
    if seed < 0:
        raise InputError(f"scene seed {seed}", "a seed of 0 or more")
    rng = np.random.Generator(np.random.PCG64([seed, FAMILIES.index(family), VERSION]))
    return scene_of(build(rng, family, num_frames), seed, family, Fraction(24))


def scene_of(layout: Layout, seed: int, family: str, fps: Fraction) -> Scene:
    """The scene of a finished layout; its last texture is the cover of clouds."""
    assert layout.light is not None
    bank = TextureBank.pack(layout.textures)
    shader = Shader(layout.materials, bank, layout.light, len(layout.textures) - 1, layout.room_half, layout.haze_m)
    pivot = float((layout.camera(0.0) @ [*layout.target, 1.0])[2])
    made = layout.parts, layout.materials, shader, layout.camera
    return Scene(seed, family, layout.num_frames, fps, pivot, layout.fov_deg, *made)
