"""Camera errors of a clip against the path it was asked for. The estimator and the alignment are part of every number."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from ex4d.errors import InputError
from ex4d.geometry.frames import invert_rigid, rotation_angle_rad
from ex4d.types import DepthClip, VideoClip

Alignment = Literal["none", "last", "umeyama"]

#: How translations are made comparable before TransErr; the field uses all three, and they do not agree.
ALIGNMENTS: dict[str, str] = {
    "none": "units as given, relative to the first frame",
    "last": "scaled so that the first-to-last distances agree, relative to the first frame",
    "umeyama": "best similarity (Umeyama 1991), divided by the largest distance between true positions (ReDirector)",
}


class CameraError(NamedTuple):
    """Errors of one clip.

    Attributes:
        rot_deg: Mean rotation error relative to the first frame, degrees.
        rot_pairs_deg: Mean error of the relative rotations of all frame pairs (ReDirector's RotErr), degrees.
        trans: Mean translation error after the named alignment.
        cam_mc: Mean Frobenius norm of the difference of [R | t], relative to the first frame, translations scaled to the
            largest of each path (MotionCtrl's CamMC).
        alignment: Which alignment `trans` used.
    """

    rot_deg: float
    rot_pairs_deg: float
    trans: float
    cam_mc: float
    alignment: str


def relative_to_first(world_from_cam: np.ndarray) -> np.ndarray:
    """Poses [T, 4, 4] in the frame of the first camera."""
    return invert_rigid(world_from_cam[:1]) @ world_from_cam


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`source` [n, 3] moved onto `target` by the similarity with the least squared error (Umeyama 1991).

    Unlike `geometry.similarity.fit_similarity` it takes straight paths, where the rotation is free but the fit is not.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt)) or 1.0])
    spread = float((a**2).sum())
    scale = float((s * flip).sum()) / spread if spread > 0 else 1.0
    return scale * a @ (u * flip @ vt).T + target.mean(0)


def camera_error(
    cam_from_world: np.ndarray, true_cam_from_world: np.ndarray, alignment: Alignment = "umeyama"
) -> CameraError:
    """Compare two paths of one length, [T, 4, 4] each (world to camera, OpenCV)."""
    if cam_from_world.shape != true_cam_from_world.shape or len(cam_from_world) < 2:
        raise InputError(
            f"{len(cam_from_world)} poses for {len(true_cam_from_world)}", "as many, 2 or more", "cut one of them"
        )
    if alignment not in ALIGNMENTS:
        raise InputError(f"alignment {alignment!r}", f"one of {', '.join(ALIGNMENTS)}")
    poses = [relative_to_first(invert_rigid(p.astype(np.float64))) for p in (cam_from_world, true_cam_from_world)]
    (R, t), (R_true, t_true) = ((p[:, :3, :3], p[:, :3, 3]) for p in poses)
    rot = np.degrees(rotation_angle_rad(np.swapaxes(R_true, -1, -2) @ R))
    pairs = [np.einsum("iba,jbc->ijac", x, x) for x in (R, R_true)]
    pair_error = np.degrees(rotation_angle_rad(np.swapaxes(pairs[1], -1, -2) @ pairs[0]))
    off = ~np.eye(len(R), dtype=bool)
    if alignment == "umeyama":
        scene = np.linalg.norm(t_true[None] - t_true[:, None], axis=-1).max() + 1e-6
        trans = np.linalg.norm(umeyama(t, t_true) - t_true, axis=1) / scene
    else:
        scale = 1.0
        if alignment == "last":
            length = float(np.linalg.norm(t[-1] - t[0]))
            scale = float(np.linalg.norm(t_true[-1] - t_true[0])) / length if length > 0 else 1.0
        trans = np.linalg.norm(t * scale - t_true, axis=1)
    unit = [x / max(float(np.linalg.norm(x, axis=1).max()), 1e-9) for x in (t, t_true)]
    matrices = [np.concatenate([r, x[..., None]], -1) for r, x in ((R, unit[0]), (R_true, unit[1]))]
    cam_mc = np.linalg.norm(matrices[0] - matrices[1], axis=(1, 2))
    return CameraError(
        float(rot.mean()), float(pair_error[off].mean()), float(trans.mean()), float(cam_mc.mean()), alignment
    )


class PoseEstimator(Protocol):
    """Recovers the cameras of a clip. `name` (with version) stands beside every number that rests on it."""

    name: str

    def estimate(self, video: VideoClip) -> np.ndarray:
        """cam_from_world [T, 4, 4]; NaN poses where a frame could not be placed."""
        ...


class PnpEstimator:
    """Matches every frame to the source frame of the same time, whose depth is known, and solves for the camera (RANSAC).

    SIFT features with Lowe's ratio test and OpenCV's PnP: no weights, exact scale, but it fails where little of the source
    is in view. Its floor on the true video says how far to trust it.
    """

    def __init__(self, source: VideoClip, depth: DepthClip, K: np.ndarray) -> None:
        import cv2

        self.source, self.depth, self.K = source, depth, K.astype(np.float64)
        self.name = f"SIFT + PnP (OpenCV {cv2.__version__})"

    def estimate(self, video: VideoClip) -> np.ndarray:
        """cam_from_world [T, 4, 4] in the world of the source."""
        if len(video) != len(self.source):
            raise InputError(f"{len(video)} frames for {len(self.source)} source frames", "as many", "cut one of them")
        return np.stack([self._place(frame, t) for t, frame in enumerate(video.frames)])

    def _place(self, frame: np.ndarray, t: int) -> np.ndarray:
        import cv2

        sift = cv2.SIFT.create(nfeatures=3000, contrastThreshold=0.01)  # type: ignore[attr-defined]
        found = [
            sift.detectAndCompute(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), None) for x in (self.source.frames[t], frame)
        ]
        failed = np.full((4, 4), np.nan)
        if any(descriptors is None or len(descriptors) < 8 for _, descriptors in found):
            return failed
        matches = cv2.BFMatcher().knnMatch(found[0][1], found[1][1], k=2)
        good = [m for m, n in (p for p in matches if len(p) == 2) if m.distance < 0.75 * n.distance]
        if len(good) < 8:
            return failed
        px = np.array([found[0][0][m.queryIdx].pt for m in good])  # OpenCV's pixels: centres at whole numbers
        target = np.array([found[1][0][m.trainIdx].pt for m in good]) + 0.5
        h, w = self.depth.size_hw
        row, column = (
            np.clip(np.round(px[:, 1]), 0, h - 1).astype(int),
            np.clip(np.round(px[:, 0]), 0, w - 1).astype(int),
        )
        rays = (
            np.concatenate([px + 0.5, np.ones((len(px), 1))], 1) @ np.linalg.inv(self.depth.K[t].astype(np.float64)).T
        )
        points = rays * self.depth.depth[t][row, column][:, None]
        ok, rotation, translation, inliers = cv2.solvePnPRansac(
            points, target, self.K, None, iterationsCount=1000, reprojectionError=1.5, flags=cv2.SOLVEPNP_EPNP
        )
        if not ok or inliers is None or len(inliers) < max(12, 0.25 * len(good)):
            return failed
        keep = np.asarray(inliers)[:, 0].astype(np.int64)
        rotation, translation = cv2.solvePnPRefineLM(points[keep], target[keep], self.K, None, rotation, translation)
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = cv2.Rodrigues(rotation)[0], translation[:, 0]
        if self.depth.cam_from_world is not None:
            out = out @ self.depth.cam_from_world[t]
        return out


class FilePoses:
    """Poses that another tool estimated (ViPE, MegaSaM, ...): one array or cameras file per clip, named after it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def poses_of(self, item: str) -> np.ndarray:
        """cam_from_world [T, 4, 4] of a clip: `ITEM.npz` with `cam_from_world`, or with `data` (ViPE: camera to world)."""
        path = self.folder / f"{item}.npz"
        if not path.is_file():
            raise InputError(f"{path} does not exist", "estimated poses of every clip", "--poses DIR")
        data = np.load(path, allow_pickle=False)
        if "cam_from_world" in data:
            return data["cam_from_world"].astype(np.float64)
        if "data" in data:
            return invert_rigid(data["data"].astype(np.float64))
        raise InputError(f"{path} holds {', '.join(data.files)}", "cam_from_world, or ViPE's data")


def error_where_placed(
    estimate: np.ndarray, truth: np.ndarray, alignment: Alignment = "umeyama"
) -> tuple[CameraError | None, float]:
    """Errors over the frames that were placed, and their share; None below two frames or when the first is lost."""
    placed = np.isfinite(estimate).all((1, 2))
    share = float(placed.mean())
    if np.count_nonzero(placed) < 2 or not bool(placed.flat[0]):
        return None, share
    return camera_error(estimate[placed], truth[placed], alignment), share
