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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Int32

from ex4d.types import WatertightMesh

#: Near plane, scene units: the reference's own (EX-4D release, recon.py).
NEAR = 1e-3

#: Screen positions are multiples of 1/SUBPIXEL px: 1.2e-4 px of error, far under the 1e-3 px where backends may differ.
SUBPIXEL = 4096


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
