"""A slanted plane: depth with no model at all, for flat scenes, tests and the impatient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from ex4d.depth.intrinsics import Intrinsics
from ex4d.errors import InputError
from ex4d.geometry.pinhole import px_centers, unproject
from ex4d.types import DepthClip, Progress, Unit, VideoClip

#: Depths are kept within this factor of the plane's distance, so that a horizon stays finite.
PLANE_FAR_OVER_DISTANCE = 20.0


@dataclass(frozen=True)
class PlaneParameters:
    """A plane through the optical axis at `distance`, turned about the camera's x axis by `tilt` and its y axis by `turn`.

    Attributes:
        distance: Depth along the optical axis, scene units.
        tilt: Degrees; positive leans the top of the picture away, like a floor.
        turn: Degrees; positive swings the right side of the picture away.
    """

    distance: float = 4.0
    tilt: float = 20.0
    turn: float = 0.0

    @classmethod
    def parse(cls, spec: str) -> PlaneParameters:
        """From `plane`, or `plane:distance=3,tilt=40,turn=-10`."""
        _, _, rest = spec.partition(":")
        values: dict[str, float] = {}
        for item in filter(None, rest.split(",")):
            name, _, number = item.partition("=")
            try:
                if name not in cls.__dataclass_fields__:
                    raise ValueError(name)
                values[name] = float(number)
            except ValueError:
                raise InputError(
                    f"{item!r} in {spec!r}", "distance=, tilt= or turn= with a number", "plane:distance=4,tilt=20"
                ) from None
        plane = cls(**values)
        if not (0 < plane.distance < 1e6 and abs(plane.tilt) < 89 and abs(plane.turn) < 89):
            raise InputError(f"{spec!r}", "distance above 0 and angles within 89 degrees", "plane:distance=4,tilt=20")
        return plane

    def depth(self, K: Float32[np.ndarray, "3 3"], size_hw: tuple[int, int]) -> Float32[np.ndarray, "height width"]:
        """z of every pixel's ray with the plane, at most `PLANE_FAR_OVER_DISTANCE` times the distance."""
        tilt, turn = np.deg2rad([self.tilt, self.turn])
        normal = np.array([-np.tan(turn), np.tan(tilt), 1.0])  # z = distance on the axis, more towards the top (-y)
        rays = unproject(px_centers(size_hw), np.ones(size_hw), K)
        farthest = self.distance * PLANE_FAR_OVER_DISTANCE
        return (self.distance / np.maximum(rays @ normal, self.distance / farthest)).astype(np.float32)


@dataclass(frozen=True)
class PlaneDepth:
    """A DepthEstimator that ignores the picture."""

    plane: PlaneParameters
    intrinsics: Intrinsics
    unit: Unit = "relative"
    name: str = "plane"

    def estimate(
        self, chunks: Iterable[VideoClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[DepthClip]:
        """The same plane in every frame."""
        start = 0
        for chunk in chunks:
            K = self.intrinsics.for_frames(start, start + len(chunk))
            depth = np.stack([self.plane.depth(k, chunk.size_hw) for k in K])
            start += len(chunk)
            if progress is not None:
                progress(start, None, "depth")
            yield DepthClip(depth, K, unit=self.unit)

    def manifest(self) -> dict[str, object]:
        """The plane's parameters and where K came from."""
        p = self.plane
        return {
            "model": self.name,
            "plane": {"distance": p.distance, "tilt_deg": p.tilt, "turn_deg": p.turn},
            "unit": self.unit,
            "intrinsics": self.intrinsics.origin,
        }
