"""Source cameras from tracked points and depth: PnP with RANSAC, frame by frame, against points of a growing map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from ex4d.depth.source_cameras.alignment import Surface, align_surfaces
from ex4d.geometry.frames import invert_rigid, rigid, transform_points
from ex4d.geometry.pinhole import project, unproject
from ex4d.pixels.tracks import PointTracker, to_gray
from ex4d.types import DepthClip, VideoClip

#: Reprojection error, in pixels of a 640-pixel-wide picture, above which a point is a mover or a mistake.
INLIER_PX = 2.0

#: RANSAC draws; 300 find a clean sample of 4 among 60 % outliers with 99.9 % certainty.
RANSAC_DRAWS = 300

#: Fewer inliers than this leave a pose undetermined; the previous motion is held.
FEWEST_INLIERS = 12

#: A point is dropped for good after this many frames as an outlier: it moves.
OUTLIER_FRAMES = 2

#: A frame becomes the one that later depth maps are laid over when less than this of it is still seen.
KEYFRAME_OVERLAP = 0.9

#: Relative depth range inside the 5x5 neighbourhood of a point above which its depth is an edge's and cannot be trusted.
EDGE_RANGE = 0.05


@dataclass(frozen=True)
class FrameReport:
    """How well one frame's camera is known.

    Attributes:
        points: Points compared.
        inlier_ratio: Share of them that stand still.
        error_px: Median reprojection error of the inliers.
        drift: Median relative depth difference between the map and this frame's own depth at the inliers: 0 when depth and
            cameras agree; it grows as they part.
    """

    points: int
    inlier_ratio: float
    error_px: float
    drift: float


@dataclass
class Odometry:
    """Follows a camera through a clip whose depth is known up to one scale for the whole clip.

    The map's points get their place when they are first seen and keep it for as long as they are tracked, so the error of a
    pose does not grow from frame to frame but only when points are replaced.

    Attributes:
        align_depth: Lay each depth map over a key frame's, starting from the points' answer. Right for sensor depth, whose
            shapes are exact but may not be registered to the colours; wrong for estimated depth, whose wobble would become
            camera motion.
        tracker: The points' pixels in the current frame.
        points: Their places in the world, in the same order.
    """

    align_depth: bool = False
    reports: list[FrameReport] = field(default_factory=list)
    cam_from_world: list[np.ndarray] = field(default_factory=list)
    tracker: PointTracker = field(default_factory=PointTracker)
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    _misses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    _inliers: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    _key: tuple[Surface, np.ndarray] | None = None
    keyframes: int = 0

    def step(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        depth: Float32[np.ndarray, "height width"],
        K: Float32[np.ndarray, "3 3"],
    ) -> Float64[np.ndarray, "4 4"]:
        """cam_from_world of the next frame; the first one is the world."""
        pose, _ = self.locate(frame, K)
        if self.align_depth:
            pose = self._laid_over(depth, K, pose)
        self.extend(depth, K, pose)
        return pose

    def _laid_over(self, depth: np.ndarray, K: np.ndarray, pose: np.ndarray) -> np.ndarray:
        surface, overlap = Surface.of(depth, K), 0.0
        if self._key is not None:
            key, key_from_world = self._key
            key_from_cam, overlap, _ = align_surfaces(surface, key, key_from_world @ invert_rigid(pose))
            if overlap:
                pose = invert_rigid(key_from_cam) @ key_from_world
        if overlap < KEYFRAME_OVERLAP:
            self._key = surface, pose
            self.keyframes += 1
        return pose

    def locate(
        self, frame: UInt8[np.ndarray, "height width *rgb"], K: Float32[np.ndarray, "3 3"]
    ) -> tuple[Float64[np.ndarray, "4 4"], np.ndarray]:
        """(cam_from_world of the next frame (RGB or grey), which of the tracked points stand still); its depth is not needed yet."""
        alive = self.tracker.step(frame if frame.ndim == 2 else to_gray(frame))
        self.points, self._misses = self.points[alive], self._misses[alive]
        if not self.cam_from_world:
            self._inliers = np.zeros(0, bool)
            return np.eye(4), self._inliers
        pose, inliers = solve_pose(
            self.points, self.tracker.xy, K, self.cam_from_world[-1], INLIER_PX * frame.shape[1] / 640
        )
        self._inliers = inliers
        return pose, inliers

    def measured(self, depth: Float32[np.ndarray, "height width"]) -> tuple[np.ndarray, np.ndarray]:
        """(depth of this map at the points, whether it can be trusted there: not across an edge)."""
        return sample_depth(depth, self.tracker.xy)

    def predicted_depth(self, pose: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, " n"]:
        """Depth of the tracked points as the map says, in the camera `pose`."""
        return transform_points(pose, self.points)[:, 2]

    def extend(
        self,
        depth: Float32[np.ndarray, "height width"],
        K: Float32[np.ndarray, "3 3"],
        pose: Float64[np.ndarray, "4 4"],
    ) -> None:
        """Take the frame into the map: report, forget movers, add new points."""
        inliers = self._inliers
        if len(self.points):
            z, trusted = self.measured(depth)
            expected = self.predicted_depth(pose)
            good = inliers & trusted
            drift = np.median(np.abs(z[good] / expected[good] - 1)) if good.any() else 0.0
            error = np.linalg.norm(project(transform_points(pose, self.points), K) - self.tracker.xy, axis=1)
            self.reports.append(
                FrameReport(
                    len(inliers),
                    float(inliers.mean()),
                    float(np.median(error[inliers])) if inliers.any() else float("nan"),
                    float(drift),
                )
            )
            self._misses = np.where(inliers, 0, self._misses + 1)
            stay = self._misses < OUTLIER_FRAMES
            self.tracker.keep(stay)
            self.points, self._misses = self.points[stay], self._misses[stay]
        self.cam_from_world.append(pose)
        before = len(self.tracker.xy)
        if self.tracker.top_up():
            xy = self.tracker.xy[before:]
            z, trusted = sample_depth(depth, xy)
            self.tracker.keep(np.concatenate([np.ones(before, bool), trusted]))
            points = unproject(xy[trusted], z[trusted], K)
            self.points = np.concatenate([self.points, transform_points(invert_rigid(pose), points)])
            self._misses = np.concatenate([self._misses, np.zeros(trusted.sum(), np.int64)])

    def summary(self) -> dict[str, float]:
        """For the manifest: worst and median inlier ratio, reprojection error, drift."""
        if not self.reports:
            return {"frames": float(len(self.cam_from_world))}
        column = {name: np.array([getattr(r, name) for r in self.reports]) for name in FrameReport.__dataclass_fields__}
        return {
            "frames": float(len(self.cam_from_world)),
            "inlier_ratio_median": float(np.median(column["inlier_ratio"])),
            "inlier_ratio_worst": float(column["inlier_ratio"].min()),
            "reprojection_error_px": float(np.nanmedian(column["error_px"])),
            "drift_end": float(np.median(column["drift"][-5:])),
            "drift_worst": float(column["drift"].max()),
            "keyframes": float(self.keyframes),
        }


def solve_pose(
    world: Float64[np.ndarray, "n 3"],
    xy: Float[np.ndarray, "n 2"],
    K: Float32[np.ndarray, "3 3"],
    guess: Float64[np.ndarray, "4 4"],
    inlier_px: float,
) -> tuple[Float64[np.ndarray, "4 4"], np.ndarray]:
    """(cam_from_world, inliers) of points seen at pixels; the guess itself when too few agree."""
    nobody = np.zeros(len(world), bool)
    if len(world) < FEWEST_INLIERS:
        return guess, nobody
    K64 = K.astype(np.float64)
    rvec, _ = cv2.Rodrigues(guess[:3, :3])
    tvec = guess[:3, 3:].copy()
    cv2.setRNGSeed(0)
    ok, rvec, tvec, index = cv2.solvePnPRansac(
        world,
        xy.astype(np.float64),
        K64,
        None,
        rvec,
        tvec,
        useExtrinsicGuess=False,
        iterationsCount=RANSAC_DRAWS,
        reprojectionError=inlier_px,
        confidence=0.9999,
        flags=cv2.SOLVEPNP_EPNP,
    )
    if not ok or index is None or len(index) < FEWEST_INLIERS:
        return guess, nobody
    inliers = nobody.copy()
    inliers[np.asarray(index, np.intp).ravel()] = True
    limit = inlier_px
    for _ in range(4):
        rvec, tvec = cv2.solvePnPRefineLM(world[inliers], xy[inliers].astype(np.float64), K64, None, rvec, tvec)
        pose = rigid(cv2.Rodrigues(rvec)[0], tvec.ravel())
        points = transform_points(pose, world)
        error = np.linalg.norm(project(points, K) - xy, axis=1)
        inliers = (error < limit) & (points[:, 2] > 0)
        if inliers.sum() < FEWEST_INLIERS:
            return guess, nobody
        # Slow movers and corners that slide along an edge hide below the first limit, not below what the noise allows.
        limit = min(inlier_px, max(4 * float(np.median(error[inliers])), 0.1 * inlier_px))
    return pose, (error < inlier_px) & (points[:, 2] > 0)


def sample_depth(
    depth: Float32[np.ndarray, "height width"], xy: Float[np.ndarray, "n 2"]
) -> tuple[Float64[np.ndarray, " n"], np.ndarray]:
    """(depth at pixels, interpolated in 1/z; False where the neighbourhood spans an edge)."""
    h, w = depth.shape
    if len(xy) == 0:
        return np.zeros(0), np.zeros(0, bool)
    inverse = 1 / depth
    points = (xy - 0.5).astype(np.float32)
    value = cv2.remap(inverse, points[:, :1], points[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).ravel()
    x, y = np.clip(xy.astype(int), 0, [w - 1, h - 1]).T
    kernel = np.ones((5, 5), np.uint8)
    low, high = cv2.erode(inverse, kernel), cv2.dilate(inverse, kernel)
    return 1 / value.astype(np.float64), ((high - low) / high)[y, x] < EDGE_RANGE


def estimate_cameras(
    video: Iterable[VideoClip], depth: Iterable[DepthClip], odometry: Odometry | None = None
) -> Iterator[DepthClip]:
    """The depth clips again, with `cam_from_world`; pairs of chunks are taken as they come.

    Args:
        video, depth: Chunks of the same frames, of the same size.
        odometry: Gives access to the reports afterwards.
    """
    odometry = odometry or Odometry()
    for frames, clip in zip(video, depth, strict=True):
        poses = [odometry.step(f, d, k) for f, d, k in zip(frames.frames, clip.depth, clip.K, strict=True)]
        yield replace(clip, cam_from_world=np.stack(poses))
