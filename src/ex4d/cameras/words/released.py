"""The presets of the EX-4D release, by their own names, as rig motions.

Shapes from the release's recon.py (30, 60, 90, 180), from its history of 2025-07-02 (180_outer), and, for zoom_in and
zoom_out, whose code was never published, a straight move of half the radius.
"""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.rig import COLUMN, MOTIONS

#: How far the eye rises on a released orbit, in radii.
RISE = 0.2

#: Share of the radius that zoom_in and zoom_out move.
ZOOM_SHARE = 0.5

RELEASED = ("30", "60", "90", "180", "180_outer", "zoom_in", "zoom_out")

_NAME = re.compile(r"([+-]?)(\d+(?:\.\d+)?|180_outer|zoom_in|zoom_out)")


def parse_released(text: str) -> tuple[int, str] | None:
    """(sign, name) of a released preset, or None. Any number of degrees is an orbit of the release's family."""
    match = _NAME.fullmatch(text)
    return (-1 if match[1] == "-" else 1, match[2]) if match else None


def rounds(num_frames: int) -> float:
    """The factor by which the release multiplies the angle of a clip that has not 49 frames (a fault kept for parity)."""
    return max(49 / num_frames, num_frames / 49)


def released_rig(
    name: str, sign: int, share: Float64[np.ndarray, " time"], angle_factor: float = 1.0
) -> Float64[np.ndarray, "time 10"]:
    """Rig states of a released preset.

    Args:
        name: As `parse_released` returned it.
        sign: -1 mirrors the path (or swaps zoom_in and zoom_out).
        share: 0..1 along the path.
        angle_factor: `rounds(num_frames)` reproduces the release.
    """
    rig = np.zeros((len(share), len(MOTIONS)))
    if name in ("zoom_in", "zoom_out"):
        k = sign * (ZOOM_SHARE if name == "zoom_in" else -ZOOM_SHARE)
        rig[:, COLUMN["closer"]] = -np.log1p(-k * share)
        return rig
    full = 2 * np.pi if name in ("180", "180_outer") else np.radians(float(name))
    angle = full * angle_factor * share
    cos = np.cos(angle) if name == "180" else np.abs(np.cos(angle))
    x, y = np.sin(angle), RISE * (cos - 1)
    z = np.zeros_like(x) if name == "180" else 1 - cos
    flat = np.hypot(x, 1 - z)
    rig[:, COLUMN["yaw"]] = sign * np.arctan2(x, 1 - z)
    rig[:, COLUMN["pitch"]] = np.arctan2(-y, flat)
    rig[:, COLUMN["closer"]] = -np.log(np.hypot(flat, y))
    return rig


def released_notes(name: str, sign: int) -> list[str]:
    """What a user should know before taking the name at its word."""
    mirrored = ", mirrored" if sign < 0 else ""
    if name == "180":
        return [
            f"the released preset 180{mirrored} slides sideways and back: the view turns 45 degrees either way, not 180;"
            " orbit:180 turns 180, 180_outer swings 90 degrees either way"
        ]
    if name == "180_outer":
        return [f"180_outer{mirrored} swings to 90 degrees on one side, back, and to 90 degrees on the other"]
    if name.startswith("zoom"):
        way = "in" if (name == "zoom_in") == (sign > 0) else "out"
        return [
            f"{name}{mirrored} moves the camera {way} by {ZOOM_SHARE:.0%} of the subject's distance; the lens does not change"
        ]
    return []
