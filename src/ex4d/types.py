"""Every value that crosses a stage border.

Conventions (docs/conventions.md): camera axes are OpenCV's (x right, y down, z forward); the world is the first source
camera; pixel (0, 0) is the outer corner of the first pixel, so centres lie at +0.5; transforms are named
`destination_from_source`; time is the first axis; angles are degrees at the surface and radians inside.

A value holds one chunk of a clip, at most `MAX_CHUNK_FRAMES` frames; stages map over iterators of chunks. Values are NumPy
up to `RenderClip`; torch begins at `Condition`, and this module does not import it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, UInt8

from ex4d.errors import InputError

if TYPE_CHECKING:
    import torch

#: Frames a chunk holds at most: 64 frames of 1080p are 0.4 GB of uint8 colour and 0.5 GB of depth.
MAX_CHUNK_FRAMES = 64

#: Largest deviation of R R^T from the identity that still counts as a rotation (float32 poses reach about 1e-6).
ROTATION_TOLERANCE = 1e-3

Unit = Literal["metric", "relative"]

#: Progress of a long step: (done, total or None, what). It may raise `errors.Cancelled` to stop the step cleanly.
Progress = Callable[[int, "int | None", str], None]


def check_rigid(cam_from_world: np.ndarray, name: str) -> None:
    """Raise InputError unless every 4x4 matrix of [..., 4, 4] is a rotation and a translation."""
    if not np.isfinite(cam_from_world).all():
        raise InputError(f"{name} has NaN or infinite entries", "finite poses", "ex4d cameras lint FILE")
    R = cam_from_world[..., :3, :3].astype(np.float64)
    error = np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max(axis=(-1, -2), initial=0.0)
    det = np.linalg.det(R)
    if (det < 0).any():
        index = int(np.argmax(np.atleast_1d(det) < 0))
        raise InputError(
            f"{name} pose {index} is a mirror (determinant {np.atleast_1d(det)[index]:.3f})",
            "rotations with determinant +1",
            "ex4d cameras lint FILE",
        )
    if (error > ROTATION_TOLERANCE).any():
        index = int(np.argmax(np.atleast_1d(error)))
        raise InputError(
            f"{name} pose {index} is scaled or sheared (R R^T off by {np.atleast_1d(error)[index]:.3g})",
            "orthonormal rotations",
            "ex4d cameras lint FILE",
        )
    if not np.allclose(cam_from_world[..., 3, :], [0, 0, 0, 1], atol=1e-6):
        raise InputError(f"{name} has a last row other than 0 0 0 1", "rigid 4x4 matrices", "ex4d cameras lint FILE")


@dataclass(frozen=True)
class VideoClip:
    """Display-oriented, full-range RGB frames."""

    frames: UInt8[np.ndarray, "time height width 3"]
    fps: Fraction

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.frames.shape[1], self.frames.shape[2]

    def __len__(self) -> int:
        return self.frames.shape[0]


@dataclass(frozen=True)
class DepthClip:
    """Depth along each frame's camera z axis.

    Attributes:
        depth: Scene units ("relative") or metres ("metric"), finite and > 0.
        K: Intrinsics in pixels of the depth map's own size.
        cam_from_world: Source poses; None when the source camera stands still.
        confidence: 0..1, or None.
    """

    depth: Float32[np.ndarray, "time height width"]
    K: Float32[np.ndarray, "time 3 3"]
    unit: Unit = "relative"
    cam_from_world: Float64[np.ndarray, "time 4 4"] | None = None
    confidence: Float32[np.ndarray, "time height width"] | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.depth.shape[1], self.depth.shape[2]

    def __len__(self) -> int:
        return self.depth.shape[0]


@dataclass(frozen=True)
class WatertightMesh:
    """The Depth Watertight Mesh of one frame, in that frame's world.

    Attributes:
        vertices: World points, scene units.
        faces: Vertex indices; winding has no meaning (nothing is culled).
        color: RGBA per vertex, 0..255; alpha is below 255 only in the `reference()` preset.
        visible: Per face, True when the source camera saw it; False marks hidden surfaces (curtains, ring, caps).
    """

    vertices: Float32[np.ndarray, "V 3"]
    faces: Int32[np.ndarray, "F 3"]
    color: Float32[np.ndarray, "V 4"]
    visible: Bool[np.ndarray, " F"]


@dataclass(frozen=True)
class CameraPath:
    """A camera for every output frame.

    Attributes:
        cam_from_world: World to camera, OpenCV axes.
        K: Intrinsics in pixels of `size_hw`.
        size_hw: Output (height, width).
        source_time: Which source frame is shown, in frames from the clip's start; fractions allowed (freeze, slow, reverse).
        name: The preset or file that made it, for help, manifests and warnings.
    """

    cam_from_world: Float64[np.ndarray, "time 4 4"]
    K: Float32[np.ndarray, "time 3 3"]
    size_hw: tuple[int, int]
    source_time: Float64[np.ndarray, " time"]
    name: str = ""

    def __post_init__(self) -> None:
        check_rigid(self.cam_from_world, f"camera path {self.name}".strip())

    def __len__(self) -> int:
        return self.cam_from_world.shape[0]

    def __getitem__(self, index: slice) -> CameraPath:
        """The same path, fewer frames."""
        return CameraPath(self.cam_from_world[index], self.K[index], self.size_hw, self.source_time[index], self.name)


@dataclass(frozen=True)
class RenderClip:
    """The mesh seen along the new path; what generators complete.

    Attributes:
        color: Full-range RGB; where `mask` is False its value is undefined (0 in our renders).
        mask: True where the source camera saw this surface.
        depth: z in the new camera, scene units; +inf where nothing was hit. Hidden faces have depth too.
        coverage: 0..255 share of the pixel that was seen (supersampled renders), or None.
        path: The cameras of these frames.
        source: The source frames of the same times, for first-frame conditioning and blending.
        plate: RGB of what other times of the clip show in the holes of `mask`, or None (classical temporal background).
        plate_mask: True where `plate` is known.
    """

    color: UInt8[np.ndarray, "time height width 3"]
    mask: Bool[np.ndarray, "time height width"]
    depth: Float32[np.ndarray, "time height width"]
    path: CameraPath
    source: VideoClip
    fps: Fraction
    coverage: UInt8[np.ndarray, "time height width"] | None = None
    plate: UInt8[np.ndarray, "time height width 3"] | None = None
    plate_mask: Bool[np.ndarray, "time height width"] | None = None

    def __len__(self) -> int:
        return self.color.shape[0]

    def __getitem__(self, index: slice) -> RenderClip:
        """Fewer frames of the same render."""

        def part(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[index]

        return RenderClip(
            color=self.color[index],
            mask=self.mask[index],
            depth=self.depth[index],
            path=self.path[index],
            source=VideoClip(self.source.frames[index], self.source.fps),
            fps=self.fps,
            coverage=part(self.coverage),
            plate=part(self.plate),
            plate_mask=part(self.plate_mask),
        )


@dataclass(frozen=True)
class Condition:
    """What the diffusion model is conditioned on; the only place where 0..255 becomes -1..1 and time moves behind channels.

    Attributes:
        color: RGB in [-1, 1], -1 (black) where unknown.
        mask: -1 unknown, 1 known, equal in the three channels.
    """

    color: Float[torch.Tensor, "batch 3 time height width"]
    mask: Float[torch.Tensor, "batch 3 time height width"]


#: What the numbers of a map mean. metric: z in metres. relative: z up to one scale. inverse: 1/z up to one scale.
#: disparity: s/z + t with unknown s > 0 and t (affine-invariant, what most relative models predict).
DepthKind = Literal["metric", "relative", "inverse", "disparity"]


KINDS: tuple[DepthKind, ...] = get_args(DepthKind)
