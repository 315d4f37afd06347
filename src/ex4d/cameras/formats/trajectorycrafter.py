"""TrajectoryCrafter trajectory txt: three rows of keys, not poses.

Convention: row 1 theta (degrees, + raises the camera and looks down), row 2 phi (degrees, + moves it to the right), row 3 r
(share of the radius, + forward along the source camera's axis). Rows may differ in length and each is stretched over the clip.
The radius is the depth of the first frame's central pixel. The camera turns around (0, 0, radius):
R_c2w = Rx(-theta) Ry(-phi), C = (0, 0, radius) + R_c2w (0, 0, -radius) + (0, 0, r radius), relative to the first frame.
Rows of two or three keys are joined by straight lines, longer ones by a smoothing spline that misses its keys (scipy's
UnivariateSpline with s = number of keys, on r in scene units). No roll, no sideways move, no lens.
(TrajectoryCrafter d2f795f3, models/utils.py)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, one_track, text_number
from ex4d.cameras.formats.track import CameraTrack, invert_affine
from ex4d.cameras.rig import rotation
from ex4d.errors import InputError, ResourceError
from ex4d.geometry.frames import rigid

#: Frames of the model, `--video_length`.
NUM_FRAMES = 49

#: Rows that miss a straight line or a cubic by less are written as one.
ROW_TOLERANCE = 1e-9

#: A path that misses the format's family by more (radians, radii) cannot be written.
FAMILY_TOLERANCE = 1e-6


def detect(probe: Probe) -> bool:
    """Exactly three lines of two or more numbers."""
    lines = [line for line in probe.lines if line.strip()]
    try:
        return len(lines) == 3 and all(len([float(v) for v in line.split()]) > 1 for line in lines)
    except ValueError:
        return False


def read(path: Path, options: ReadOptions) -> Tracks:
    """Poses of `options.num_frames` frames (default 49), lengths times `options.radius`."""
    rows = []
    for index, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()[:3], 1):
        try:
            rows.append(np.array([float(v) for v in line.split()]))
        except ValueError as error:
            raise InputError(f"{path} line {index} is {line[:60]!r}", "numbers", "repair that line") from error
    if len(rows) < 3 or any(len(row) < 2 for row in rows):
        raise InputError(
            f"{path} has rows of {[len(row) for row in rows]} keys", "three rows of 2 or more", "0 30 / 0 0 / 0 0"
        )
    n, radius = options.num_frames or NUM_FRAMES, options.radius
    theta, phi, r = (stretched(keys, n) for keys in (rows[0], rows[1], rows[2] * radius))
    poses = invert_affine(_world_from_cam(np.radians(theta), np.radians(phi), r, radius))
    return {"": CameraTrack(poses, world="file", extras={"rows": rows, "radius": radius, "num_frames": n})}


def _world_from_cam(
    theta: np.ndarray, phi: np.ndarray, r: np.ndarray, radius: float
) -> Float64[np.ndarray, "time 4 4"]:
    R = rotation(0, -theta) @ rotation(1, -phi)
    center = -radius * R[..., 2]
    center[:, 2] += radius + r
    return rigid(R, center)


def stretched(keys: Float64[np.ndarray, " keys"], num_frames: int) -> Float64[np.ndarray, " time"]:
    """One row over the clip, as the format's own tool does it."""
    x, frames = np.linspace(0, 1, len(keys)), np.linspace(0, 1, num_frames)
    if len(keys) <= 3:
        return np.interp(frames, x, keys)
    cubic = np.polynomial.Polynomial.fit(x, keys, 3, domain=[0, 1])
    if ((cubic(x) - keys) ** 2).sum() <= len(keys):  # the smoothing bound: a spline without inner knots is enough
        values = cubic(frames)
    else:
        try:
            from scipy.interpolate import UnivariateSpline
        except ImportError as error:
            raise ResourceError("a TrajectoryCrafter row that needs its smoothing spline", "scipy", "pip install scipy") from error  # fmt: skip
        values = np.asarray(UnivariateSpline(x, keys, k=3)(frames))
    values[0], values[-1] = keys[0], keys[-1]
    return values


def write(path: Path, tracks: Tracks) -> None:
    """Straight rows as two keys, cubic ones as four (both read back exactly), others as one key a frame (smoothed)."""
    track = one_track(tracks, "a TrajectoryCrafter txt")
    if "rows" in track.extras:
        kept = read_rows_again(track)
        if np.allclose(kept, track.cam_from_world, atol=1e-9):
            _save(path, track.extras["rows"])
            return
    world_from_cam = track.rebased().world_from_cam
    R, center = world_from_cam[:, :3, :3], world_from_cam[:, :3, 3]
    phi, theta = np.arctan2(-R[:, 0, 2], R[:, 0, 0]), np.arctan2(-R[:, 2, 1], R[:, 1, 1])
    radius = _radius(R, center, float(track.extras.get("radius", 1.0)))
    r = center[:, 2] - radius * (1 - R[:, 2, 2])
    miss = np.abs(_world_from_cam(theta, phi, r, radius) - world_from_cam)
    miss[:, :3, 3] /= radius
    if miss.max() > FAMILY_TOLERANCE:
        frame = int(miss.max(axis=(1, 2)).argmax())
        raise InputError(
            f"a path that rolls, pans or moves sideways (frame {frame}) for TrajectoryCrafter's txt",
            "an orbit in theta and phi around the axis plus a forward move",
            "another format, such as re10k or ex4d",
        )
    _save(path, [_keys(np.unwrap(np.degrees(row), period=360)) for row in (theta, phi)] + [_keys(r / radius)])


def read_rows_again(track: CameraTrack) -> Float64[np.ndarray, "time 4 4"]:
    """The poses that a track's stored rows give."""
    theta, phi, r = track.extras["rows"]
    n, radius = track.extras["num_frames"], track.extras["radius"]
    theta, phi, r = (stretched(keys, n) for keys in (theta, phi, r * radius))
    return invert_affine(_world_from_cam(np.radians(theta), np.radians(phi), r, radius))


def _radius(R: np.ndarray, center: np.ndarray, otherwise: float) -> float:
    """Least squares of C_xy = -radius R[:2, 2]; a path that never turns does not tell."""
    axis, offset = R[:, :2, 2].ravel(), center[:, :2].ravel()
    return float(-(axis @ offset) / (axis @ axis)) if axis @ axis > 1e-12 else otherwise


def _keys(row: Float64[np.ndarray, " time"]) -> Float64[np.ndarray, " keys"]:
    x = np.linspace(0, 1, len(row))
    if np.abs(np.interp(x, [0, 1], row[[0, -1]]) - row).max() < ROW_TOLERANCE:
        return row[[0, -1]]
    if len(row) > 4:
        cubic = np.polynomial.Polynomial.fit(x, row, 3, domain=[0, 1])
        if np.abs(cubic(x) - row).max() < ROW_TOLERANCE * 10:
            return cubic(np.linspace(0, 1, 4))
    return row


def _save(path: Path, rows: list[np.ndarray]) -> None:
    path.write_text("\n".join(" ".join(text_number(v) for v in row) for row in rows), encoding="utf-8")


FORMAT = Format(
    name="trajectorycrafter",
    title="TrajectoryCrafter traj txt",
    suffix=".txt",
    convention="rows theta, phi (degrees) and r (share of the radius), stretched over the clip; a pose family around the optical axis",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset(),
    exact=False,
)
