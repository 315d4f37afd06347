"""Likely mistakes in a camera file, named. Silence is the normal answer: every rule needs strong evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from ex4d.cameras.formats.base import Probe, ReadOptions
from ex4d.cameras.formats.registry import read_tracks, split_spec
from ex4d.cameras.formats.track import CameraTrack
from ex4d.cameras.lint.axes import axes_findings
from ex4d.errors import InputError
from ex4d.geometry.frames import rotation_angle_rad
from ex4d.geometry.pinhole import project
from ex4d.types import ROTATION_TOLERANCE, DepthClip

#: A first pose further from the identity than this (radians; share of the path's extent) is named.
FIRST_POSE_TOLERANCE = 1e-3

#: A step this many times the median of its neighbours is a jump, if it also turns or moves enough to be seen.
JUMP_RATIO = 6.0
JUMP_DEG = 3.0
JUMP_SHARE = 0.04
JUMP_WINDOW = 5

#: Turning this much a frame, over and over, is a mistake of units.
FAST_DEG_PER_FRAME = 8.0
MANY_DEG = 550.0

#: Positions that span more units than this are taken for centimetres, where nothing tells the scene's size.
LARGE_EXTENT = 50.0
#: ... and, where the scene's depth is known, this many times its median.
LARGE_EXTENT_DEPTHS = 20.0


@dataclass(frozen=True)
class Finding:
    """One likely mistake.

    Attributes:
        code: Short name, fixed: mirror, scale, shear, finite, inverted, axes, degrees, centimetres, frames, fps, first-pose,
            jump, surface, truncated, lens.
        message: What was seen, with numbers.
        fix: What to type or do.
        frame: Where it shows first, if it has a place.
    """

    code: str
    message: str
    fix: str
    frame: int | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}; try: {self.fix}"


def lint_file(
    spec: str,
    *,
    num_frames: int | None = None,
    fps: Fraction | None = None,
    depth: DepthClip | None = None,
) -> dict[str, list[Finding]]:
    """Findings per camera of a file; a file that cannot be read to its end is a finding too."""
    try:
        format, tracks = read_tracks(spec, ReadOptions())
    except InputError as error:
        if not is_damaged(split_spec(spec)[1], error):
            raise
        return {"": [Finding("truncated", f"damaged or cut off: {error.got}", error.fix or "export it again")]}
    if format.name == "trajectorycrafter":  # angles, not matrices: nothing can be inverted or have other axes
        tracks = {name: replace(track, extras={**track.extras, "parametric": True}) for name, track in tracks.items()}
    arbitrary = format.name in ("re10k", "colmap", "colmap-bin", "nerfstudio", "nerfstudio-path", "gen3c", "gen3c-npz")
    return {
        name: lint_track(track, num_frames=num_frames, fps=fps, depth=depth, arbitrary_scale=arbitrary)
        for name, track in tracks.items()
    }


def is_damaged(path: Path, error: InputError) -> bool:
    """True when a file seems to be a camera file that was cut off, rather than something else or not there."""
    if not path.is_file():
        return False
    if "of no known camera format" not in error.got:
        return "no camera" not in error.got
    probe = Probe(path)
    broken_json = probe.text.lstrip().startswith(("{", "[")) and probe.json is None
    return broken_json or (path.suffix == ".npz" and not probe.npz)


def lint_track(
    track: CameraTrack,
    *,
    num_frames: int | None = None,
    fps: Fraction | None = None,
    depth: DepthClip | None = None,
    arbitrary_scale: bool = False,
) -> list[Finding]:
    """Every likely mistake of one camera.

    Args:
        track: As read; poses need not be rigid.
        num_frames: Of the video the path is meant for.
        fps: Of that video.
        depth: Of its first frame, for surfaces and for the scene's size.
        arbitrary_scale: The format says nothing about units, so size alone proves nothing.
    """
    findings = [*_lengths(track, num_frames, fps)]
    poses = track.cam_from_world
    if not np.isfinite(poses).all():
        frame = int(np.argmax(~np.isfinite(poses).all(axis=(1, 2))))
        return [*findings, Finding("finite", f"pose {frame} is not finite or has no inverse", "export it again", frame)]
    findings += _rotations(poses[:, :3, :3])
    if not findings or all(f.code in ("frames", "fps", "truncated") for f in findings):
        axes = [] if track.extras.get("parametric") else axes_findings(track)
        findings += [Finding(*found) for found in axes]
        findings += _degrees(poses)
        findings += _centimetres(track, depth, arbitrary_scale)
        if not axes:
            findings += _first_pose(track)
        if not any(f.code == "degrees" for f in findings):
            findings += _jumps(poses)
        findings += _surface(track, depth)
    return findings + _lens(track)


def _lengths(track: CameraTrack, num_frames: int | None, fps: Fraction | None) -> list[Finding]:
    out = []
    if num_frames is not None and len(track) < num_frames:
        out.append(Finding("truncated", f"{len(track)} poses for a video of {num_frames} frames: the path stops early", f"--frames {num_frames} stretches it", len(track)))  # fmt: skip
    elif num_frames is not None and len(track) > num_frames:
        out.append(Finding("frames", f"{len(track)} poses for a video of {num_frames} frames", f"--frames {num_frames} resamples it"))  # fmt: skip
    if fps is not None and track.fps is not None and abs(float(track.fps / fps) - 1) > 1e-3:
        out.append(
            Finding("fps", f"{float(track.fps):g} fps for a video of {float(fps):g} fps", f"--fps {float(fps):g}")
        )
    promised = _promised_frames(track)
    if promised is not None and promised > len(track):
        out.append(Finding("truncated", f"{len(track)} poses where the file itself says {promised}", "export it again", len(track)))  # fmt: skip
    return out


def _promised_frames(track: CameraTrack) -> int | None:
    """The number of frames that a file's own header states, where it has one."""
    document = track.extras.get("document")
    if not isinstance(document, dict):
        return None
    if "frame_end" in document and "frame_start" in document:
        step = int(document.get("frame_step", 1)) or 1
        return (int(document["frame_end"]) - int(document["frame_start"])) // step + 1
    if "camera_path" in document and document.get("fps") and document.get("seconds"):
        return int(float(document["fps"]) * float(document["seconds"]) + 1e-6)
    return None


def _rotations(R: Float64[np.ndarray, "time 3 3"]) -> list[Finding]:
    out = []
    det = np.linalg.det(R)
    if (det < 0).any():
        frame = int(np.argmax(det < 0))
        every = "every pose" if (det < 0).all() else f"pose {frame}"
        out.append(Finding("mirror", f"{every} is a mirror (determinant {det[frame]:.3f}): one axis is flipped, or the axes are left-handed (Unreal)", "negate one axis at the source, or convert from its real format", frame))  # fmt: skip
    scale = np.cbrt(np.abs(det))
    off = np.abs(scale - 1) > ROTATION_TOLERANCE
    if off.any():
        frame = int(np.argmax(off))
        out.append(
            Finding("scale", f"pose {frame} is scaled by {scale[frame]:.4g}", "divide its 3x3 part by that", frame)
        )
    unit = R / np.where(scale > 1e-9, scale, 1)[:, None, None]
    shear = np.abs(unit @ np.swapaxes(unit, -1, -2) - np.eye(3)).max(axis=(1, 2)) > ROTATION_TOLERANCE
    if shear.any():
        frame = int(np.argmax(shear))
        out.append(Finding("shear", f"pose {frame} has axes that are not at right angles", "export rotations without scale or rounding", frame))  # fmt: skip
    return out


def _degrees(poses: Float64[np.ndarray, "time 4 4"]) -> list[Finding]:
    step = np.degrees(_turns(poses))
    if len(step) < 3 or np.median(step) < FAST_DEG_PER_FRAME or step.sum() < MANY_DEG:
        return []
    return [Finding("degrees", f"the camera turns {np.median(step):.0f} degrees a frame, {step.sum():.0f} in all: degrees taken as radians", "multiply the angles by pi / 180 before sine and cosine", 0)]  # fmt: skip


def _centimetres(track: CameraTrack, depth: DepthClip | None, arbitrary: bool) -> list[Finding]:
    extent = _extent(track)
    if depth is not None:
        median = float(np.median(depth.depth[0]))
        large = extent > LARGE_EXTENT_DEPTHS * median
        scene = f", {extent / median:.0f} times the scene's median depth"
    else:
        large, scene = extent > LARGE_EXTENT and not arbitrary, ""
    if not large:
        return []
    return [
        Finding("centimetres", f"positions span {extent:.4g} units{scene}: centimetres taken as metres", "--scale 0.01")
    ]


def _first_pose(track: CameraTrack) -> list[Finding]:
    if track.world == "file":
        return []
    first = track.cam_from_world[0]
    angle = float(rotation_angle_rad(first[None, :3, :3])[0])
    shift = float(np.linalg.norm(first[:3, 3]))
    if angle < FIRST_POSE_TOLERANCE and shift <= FIRST_POSE_TOLERANCE * max(_extent(track), 1e-3):
        return []
    return [Finding("first-pose", f"the first pose is turned {np.degrees(angle):.3g} degrees and moved {shift:.3g} from the source camera", "--world first makes it the source camera", 0)]  # fmt: skip


def _jumps(poses: Float64[np.ndarray, "time 4 4"]) -> list[Finding]:
    turn = np.degrees(_turns(poses))
    eye = -(np.swapaxes(poses[:, :3, :3], -1, -2) @ poses[:, :3, 3:])[..., 0]
    move = np.linalg.norm(np.diff(eye, axis=0), axis=-1)
    # both bounds: far above the neighbours, and large against the path itself
    bad = _isolated(turn) & (turn > JUMP_DEG)
    bad |= _isolated(move) & (move > JUMP_SHARE * move.sum())
    if not bad.any():
        return []
    step = int(np.argmax(bad))
    places = np.flatnonzero(bad) + 1
    where = f"frame {step + 1}" if len(places) == 1 else f"frames {', '.join(map(str, places[:4]))}{'...' if len(places) > 4 else ''}"  # fmt: skip
    return [Finding("jump", f"the camera jumps at {where}: {turn[step]:.3g} degrees and {move[step]:.3g} units in one frame", "repair that pose, or smooth the keys", step + 1)]  # fmt: skip


def _isolated(step: Float64[np.ndarray, " steps"]) -> Bool[np.ndarray, " steps"]:
    """Steps far above their neighbours, sudden (a whip pan speeds up step by step) and brief (one step, or two of a bad pose)."""
    n = len(step)
    out = np.zeros(n, bool)
    for i, value in enumerate(step):
        near = np.concatenate([step[max(i - JUMP_WINDOW, 0) : i], step[i + 1 : i + 1 + JUMP_WINDOW]])
        if len(near) < 4 or value <= JUMP_RATIO * np.median(near) + 1e-9:
            continue
        next_to = [step[k] for k in (i - 1, i + 1) if 0 <= k < n]
        beyond = [step[k] for k in (i - 2, i + 2) if 0 <= k < n]
        out[i] = value > 4 * min(next_to) and value > 2 * max(beyond, default=0.0)
    return out


def _surface(track: CameraTrack, depth: DepthClip | None) -> list[Finding]:
    if depth is None:
        return []
    eye = (track.rebased() if track.world == "file" else track).world_from_cam[:, :3, 3]
    behind = behind_surface(eye, depth)
    if not behind.any():
        return []
    frame = int(np.argmax(behind))
    return [Finding("surface", f"the camera is inside or behind a visible surface in {int(behind.sum())} frames, first at {frame}", "a shorter path, or --scale", frame)]  # fmt: skip


def behind_surface(eye: Float64[np.ndarray, "time 3"], depth: DepthClip) -> Bool[np.ndarray, " time"]:
    """Which eyes (in the first source camera) stand where the first frame shows a nearer surface in front of them."""
    h, w = depth.size_hw
    px = np.nan_to_num(project(eye, depth.K[0]), nan=-1.0, posinf=-1.0, neginf=-1.0)
    inside = (eye[:, 2] > 0) & (px >= 0).all(axis=1) & (px[:, 0] < w) & (px[:, 1] < h)
    x, y = (np.clip(px[:, i], 0, size - 1).astype(int) for i, size in ((0, w), (1, h)))
    return inside & (eye[:, 2] >= depth.depth[0][y, x])


def _lens(track: CameraTrack) -> list[Finding]:
    if track.K is None or track.size_hw is None:
        if track.focal_over_height is None:
            return []
        fov = np.degrees(2 * np.arctan(0.5 / track.focal_over_height))
    else:
        fov = np.degrees(2 * np.arctan2(track.size_hw[0], 2 * track.K[:, 1, 1]))
    bad = ~((fov > 2) & (fov < 160))
    if not bad.any():
        return []
    frame = int(np.argmax(bad))
    return [Finding("lens", f"frame {frame} has a vertical field of view of {fov[frame]:.3g} degrees: radians, or K of another size", "check its unit", frame)]  # fmt: skip


def _turns(poses: Float64[np.ndarray, "time 4 4"]) -> Float64[np.ndarray, " steps"]:
    return rotation_angle_rad(poses[1:, :3, :3] @ np.swapaxes(poses[:-1, :3, :3], -1, -2))


def _extent(track: CameraTrack) -> float:
    eye = track.world_from_cam[:, :3, 3]
    return float(np.linalg.norm(eye.max(axis=0) - eye.min(axis=0)))
