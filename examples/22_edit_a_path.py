"""The editing session that a browser editor stands on: pure operations, undo and redo."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ex4d.cameras.keys import session as edit
from ex4d.cameras.make import make_path
from ex4d.cameras.subject import find_subject
from ex4d.geometry.pinhole import intrinsics
from ex4d.types import DepthClip


def main() -> None:
    """Keys from an orbit, one moved, smoothed, and taken back."""
    first = DepthClip(np.full((1, 288, 512), 3.0, np.float32), intrinsics((288, 512), 500.0)[None])
    orbit = make_path("orbit:60", first=first, num_frames=49, fps=Fraction(24))
    session = edit.session_from_path(orbit, find_subject(first), Fraction(24), num_keys=4)
    raised = edit.nudge_key(session, 1, np.array([0, 0, 0, 0, -0.4, 0.0]))  # 0.4 up, in the camera's own axes
    smooth = edit.smooth_keys(raised, 0.5)
    for name, step in (
        ("orbit", session),
        ("one key raised", raised),
        ("smoothed", smooth),
        ("undone", edit.undo(smooth)),
    ):
        eye = np.linalg.inv(edit.path_of(step).cam_from_world)[16, :3, 3]
        print(f"{name:<16} frame 16 at {eye.round(3)}")


if __name__ == "__main__":
    main()
