"""What every rasteriser does, stated once.

Raster law, the same in every backend (`cpu`, `cuda`, `reference`):

1. *Transform.* World points go to the camera frame and to pixels in float64 (x right, y down, centres at +0.5).
2. *Near plane.* A triangle wholly at z < `NEAR` is dropped; one that crosses is clipped there into one or two triangles
   that keep the face id and the barycentric coordinates of the original face. There is no far plane.
3. *Snap.* Pixel coordinates are rounded (floor(x * SUBPIXEL + 0.5)) to 1/`SUBPIXEL` px, so that an edge function of every
   triangle smaller than 16,384 px is exact in float64 and in int64, and shared edges never leave a crack.
4. *Cover.* A pixel is covered when its centre lies inside or on an edge, for either winding; zero area covers nothing.
   Edge functions are evaluated relative to the pixel centre.
5. *Depth.* 1/z is linear over the screen; it is evaluated in float64 and rounded to float32. The greatest wins.
   At equal 1/z a visible face beats a hidden one, then the lowest face id wins.
6. *Attributes* are perspective-correct.

To the letter, so that backends agree bit by bit (all float64, no fused multiply-add; e0, e1, e2 are the edge functions of a
counter-clockwise triangle at the pixel centre, area their exact sum, q = 1/z of the corners):
b1 = e1 / area, b2 = e2 / area (true divisions, so that a pixel centre on a vertex gets exactly 1 and 0),
b0 = max(1 - b1 - b2, 0), q = b0 q0 + b1 q1 + b2 q2, depth key = float32(q), weights w1 = b1 q1 / q, w2 = b2 q2 / q.
A clipped face walks its corners in order; every crossing is computed from the inside corner to the outside one at
t = (z_in - NEAR) / (z_in - z_out), and the polygon is a fan from its first corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8

from ex4d.mesh.rule import MIN_DEPTH, DepthRange, MeshRule
from ex4d.types import WatertightMesh

#: Near plane, scene units: the reference's own (EX-4D release, recon.py).
NEAR = 1e-3

#: Screen positions are multiples of 1/SUBPIXEL px: 1.2e-4 px of error, far under the 1e-3 px where backends may differ.
SUBPIXEL = 4096

#: A pose this close to the identity is the identity (rounding of a full turn, scene units for the translation).
IDENTITY_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Fragments:
    """One rendered frame.

    Attributes:
        face_id: Index of the face in front, -1 where there is none.
        color: Interpolated RGBA, 0..255; 0 where there is no face.
        depth: z in the camera, +inf where there is no face.
    """

    face_id: Int32[np.ndarray, "height width"]
    color: Float32[np.ndarray, "height width 4"]
    depth: Float32[np.ndarray, "height width"]


class Rasterizer(Protocol):
    """Draws one mesh from one camera by the raster law above."""

    name: str

    def draw(
        self,
        mesh: WatertightMesh,
        cam_from_world: Float[np.ndarray, "4 4"],
        K: Float[np.ndarray, "3 3"],
        size_hw: tuple[int, int],
    ) -> Fragments:
        """The nearest surface of every pixel."""
        ...


@dataclass(frozen=True)
class SeenFrame:
    """One rendered frame, resolved to what generators need.

    Attributes:
        color: RGB, 0 where `mask` is False.
        mask: True where the source camera saw this surface.
        depth: z in the camera, +inf where nothing was hit; hidden faces have depth too.
    """

    color: UInt8[np.ndarray, "height width 3"]
    mask: Bool[np.ndarray, "height width"]
    depth: Float32[np.ndarray, "height width"]


class DepthRasterizer(Rasterizer, Protocol):
    """A rasteriser that also draws a depth map's watertight mesh without building it.

    The result equals `resolve_frame(draw(build_mesh(...)))`; a test holds the two together.
    """

    def draw_depth(
        self,
        depth: Float32[np.ndarray, "h w"],
        color: UInt8[np.ndarray, "h w 3"],
        source_K: Float32[np.ndarray, "3 3"],
        rule: MeshRule,
        clip: DepthRange,
        cam_from_source: Float[np.ndarray, "4 4"],
        K: Float[np.ndarray, "3 3"],
        size_hw: tuple[int, int],
    ) -> SeenFrame:
        """The mesh of one source frame, seen from another camera (`cam_from_source`: source camera to new camera)."""
        ...


def resolve_frame(fragments: Fragments, visible: Bool[np.ndarray, " F"], rule: MeshRule) -> SeenFrame:
    """Colour and mask of one frame: by face flags (default), or by interpolated alpha as the release did."""
    hit = fragments.face_id >= 0
    if rule.per_vertex:
        mask = hit & (fragments.color[..., 3] > rule.alpha_threshold) & (fragments.depth <= rule.far_plane)
        color = fragments.color[..., :3]  # the release truncates, and keeps the dark fringe of transparent corners
    else:
        mask = hit & visible[np.where(hit, fragments.face_id, 0)] & (fragments.depth <= rule.far_plane)
        color = np.floor(fragments.color[..., :3] + np.float32(0.5))
    return SeenFrame(np.where(mask[..., None], color, 0).clip(0, 255).astype(np.uint8), mask, fragments.depth)


def is_identity(
    rule: MeshRule,
    source_hw: tuple[int, ...],
    source_K: np.ndarray,
    cam_from_source: np.ndarray,
    K: np.ndarray,
    size_hw: tuple[int, int],
) -> bool:
    """Whether a view is the source camera's own, of a mesh that obeys the mesh law (`seen_from_source`).

    Poses may be off by `IDENTITY_TOLERANCE`, the rounding of a full turn: far less than the subpixel grid takes up.
    """
    still = np.abs(np.asarray(cam_from_source) - np.eye(4)).max() <= IDENTITY_TOLERANCE
    same_camera = still and np.array_equal(K, source_K)
    return rule.ring and rule.pixel_offset == 0.5 and same_camera and tuple(source_hw) == tuple(size_hw)


def seen_from_source(depth: np.ndarray, color: np.ndarray, rule: MeshRule, clip: DepthRange) -> SeenFrame:
    """The mesh law: seen from its own camera, a mesh with a ring shows its input bit for bit, all of it seen.

    Drawing gives the same bytes (a test holds it to that) but takes twice as long as any other view, because every vertex
    falls on a pixel centre and up to eight faces compete there.
    """
    inverse_z = (1 / np.clip(depth, MIN_DEPTH, rule.far_depth(clip)).astype(np.float64)).astype(np.float32)
    z = (1 / inverse_z.astype(np.float64)).astype(np.float32)
    return SeenFrame(color.copy(), np.ones(depth.shape, bool), z)
