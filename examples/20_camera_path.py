"""A camera path in words, keyframes and files: made, written in two formats, read back."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import ReadOptions
from ex4d.cameras.formats.registry import get_format, read_track
from ex4d.cameras.formats.track import track_from_path
from ex4d.cameras.make import make_path, notes
from ex4d.geometry.pinhole import intrinsics
from ex4d.types import DepthClip

KEYS = """
subject: center
speed: constant
keys:
  - {at: 0}
  - {at: 50%, orbit: {yaw: 30, pitch: 10, in: 20%}}
  - {at: 100%, position: [40%, -10%, 0], look_at: subject, fov: 50}
"""


def main() -> None:
    """A flat subject three units away stands in for the depth of a video."""
    first = DepthClip(np.full((1, 288, 512), 3.0, np.float32), intrinsics((288, 512), 500.0)[None])
    path = make_path("orbit:yaw=40,ease=in-out + dolly:in=15%", first=first, num_frames=49, fps=Fraction(24))
    print(f"{path.name}: {len(path)} frames, ends at {np.linalg.inv(path.cam_from_world[-1])[:3, 3].round(3)}")
    print("180 is not what it sounds like:", notes("180")[0])
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.yaml"
        keys.write_text(KEYS, encoding="utf-8")
        spline = make_path(str(keys), first=first, num_frames=49, fps=Fraction(24))
        for name in ("recammaster", "re10k"):
            format = get_format(name)
            file = Path(folder) / f"path{format.suffix}"
            format.write(file, {"": track_from_path(spline, Fraction(24))})
            back = read_track(str(file), ReadOptions())
            off = np.abs(back.cam_from_world - spline.cam_from_world).max()
            print(f"{format.title}: read back within {off:.1e}")


if __name__ == "__main__":
    main()
