"""Random camera paths for simulated masks: the released families over the full range of angles, both signs, with zoom.

METHOD 5.3: amplitude 10 to 90 degrees of either sign, family "A", "180" or "180_outer", elevation factor 0 to 0.3 (the release
has 0.2), zoom up to 0.3 of the radius; the path looks at a fixed point on the first camera's axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ex4d.geometry.frames import look_at
from ex4d.types import CameraPath, DepthClip

FAMILIES = ("arc", "ellipse", "outer")
AMPLITUDE_DEG = (10.0, 90.0)
ELEVATION = (0.0, 0.3)
MAX_ZOOM = 0.3
#: How often a path also zooms, and how often it sweeps there and back instead of one way.
ZOOM_SHARE, RETURN_SHARE = 0.5, 0.15


@dataclass(frozen=True)
class Trajectory:
    """A random path, in numbers.

    Attributes:
        family: "arc": azimuth 0 to the amplitude (the release's 30, 60, 90); "ellipse": a loop to the side in the plane of
            the first camera (the release's 180); "outer": azimuth 0, +a, 0, -a, 0 (the paper's full range).
        amplitude_deg: Signed; + moves the camera to +x. An ellipse has a fixed shape and takes only the sign.
        elevation: The eye rises by this share of the radius times (1 - cos azimuth).
        zoom: The eye has moved this share of the radius towards the pivot at the end; negative: away.
        radius: Distance of the pivot from the first camera, scene units.
        there_and_back: The arc returns to its start.
    """

    family: str
    amplitude_deg: float
    elevation: float
    zoom: float
    radius: float
    there_and_back: bool = False

    def eyes(self, num_frames: int) -> np.ndarray:
        """Camera centres in the first camera's frame, [T, 3] float64; the first is the origin."""
        s = np.linspace(0, 1, num_frames) if num_frames > 1 else np.zeros(1)
        sign, a = np.sign(self.amplitude_deg) or 1.0, np.radians(self.amplitude_deg)
        if self.family == "outer":
            angle = a * np.sin(2 * np.pi * s)
        elif self.family == "ellipse":
            angle = sign * 2 * np.pi * s
        else:
            angle = a * (np.sin(np.pi * s) if self.there_and_back else s)
        depth = np.zeros_like(s) if self.family == "ellipse" else 1 - np.cos(angle)
        eye = self.radius * np.stack([np.sin(angle), self.elevation * (np.cos(angle) - 1), depth], axis=-1)
        pivot = np.array([0.0, 0.0, self.radius])
        return eye + (pivot - eye) * (self.zoom * s)[:, None]

    def path(self, K: np.ndarray, size_hw: tuple[int, int], num_frames: int) -> CameraPath:
        """The cameras, with the intrinsics [3, 3] of the source."""
        target = np.tile([0.0, 0.0, self.radius], (num_frames, 1))
        poses = look_at(self.eyes(num_frames), target)
        poses[0] = np.eye(4)
        Ks = np.repeat(K[None].astype(np.float32), num_frames, axis=0)
        return CameraPath(poses, Ks, size_hw, np.arange(num_frames, dtype=np.float64), f"random {self.family}")


def draw_trajectory(
    random: np.random.Generator, first_depth: np.ndarray, amplitude_deg: float | None = None
) -> Trajectory:
    """A random trajectory about a random depth of the first frame.

    The release turns about a point 6 % behind the nearest surface, our camera words about the median of the middle; the radius
    is drawn, evenly in its logarithm, between these two.

    Args:
        first_depth: Depth of the first frame, [H, W] > 0.
        amplitude_deg: Fix the angle (signed); None draws it.
    """
    h, w = first_depth.shape
    near = 1.06 * float(np.percentile(first_depth, 1))
    middle = float(np.median(first_depth[h // 4 : h - h // 4, w // 4 : w - w // 4]))
    low, high = np.log(min(near, middle)), np.log(max(near, middle))
    amplitude = random.uniform(*AMPLITUDE_DEG) * random.choice([-1.0, 1.0]) if amplitude_deg is None else amplitude_deg
    family = "arc" if amplitude_deg is not None else str(random.choice(FAMILIES, p=[0.8, 0.08, 0.12]))
    return Trajectory(
        family,
        float(amplitude),
        float(random.uniform(*ELEVATION)),
        float(random.uniform(-MAX_ZOOM, MAX_ZOOM)) if amplitude_deg is None and random.random() < ZOOM_SHARE else 0.0,
        float(np.exp(random.uniform(low, high))),
        bool(amplitude_deg is None and random.random() < RETURN_SHARE),
    )


def first_frame_path(trajectory: Trajectory, depth: DepthClip) -> CameraPath:
    """The trajectory for a depth clip, at its own size and intrinsics; in the world of its first source camera."""
    path = trajectory.path(depth.K[0], depth.size_hw, len(depth))
    if depth.cam_from_world is None:
        return path
    poses = path.cam_from_world @ depth.cam_from_world[0]
    return CameraPath(poses, depth.K.astype(np.float32), path.size_hw, path.source_time, path.name)
