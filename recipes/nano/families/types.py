"""What a made clip is: textured meshes that move, a panorama behind them, a camera. Numbers only; renderers turn it into pictures.

World: metres, OpenCV axes (x right, y DOWN, z forward), right-handed; where there is ground it is near y = 0 and up is -y. Nothing is
culled: faces are seen from both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Textured:
    """One mesh with one texture; several of them may be one object.

    Attributes:
        vertices: float32 [T, V, 3], or [1, V, 3] when it does not move.
        faces: int32 [F, 3].
        uv: float32 [V, 2]; 1 is one tile and the texture repeats; v = 0 is the first row.
        texture: uint8 [h, w, 3], display-referred sRGB; sides are powers of two from 4 to 512. Meshes that look alike share the very same
            array, so that a renderer may keep each array (by `id`) once.
        object_id: 0 is background (ground, walls, houses, far trees); everything with another number is one thing: all meshes with that
            number together.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    object_id: int


@dataclass(frozen=True)
class FamilyClip:
    """A clip of T frames.

    Attributes:
        objects: Everything that has depth.
        panorama: uint8 [h, 2h, 3], what is seen where no mesh is, by direction alone: u = 0.5 + atan2(x, z) / 2 pi of the width,
            v = 0.5 + asin(y) / pi of the height (y down: the first row is straight up). None: black.
        sky: Whether the panorama is sky (infinite depth). Otherwise its depth is not known, only that it lies behind every mesh.
        cam_from_world: float64 [T, 4, 4].
        K: float32 [3, 3], pixels of `size_hw`, centres at +0.5.
        size_hw: (height, width).
        family, seed: What made it.
    """

    objects: tuple[Textured, ...]
    panorama: np.ndarray | None
    sky: bool
    cam_from_world: np.ndarray
    K: np.ndarray
    size_hw: tuple[int, int]
    family: str
    seed: int
