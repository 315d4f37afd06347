"""What every accepted spelling of a camera gave on 2026-11-26, when text was still read again in every place that used it.

`camera_spellings.npz` holds the poses, lenses and times that the code of that day made. Numbers of another machine's sine may
differ in the last digits, so they are compared to 1e-12 of the scene's size.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.cameras.formats.registry import get_format
from ex4d.cameras.formats.track import track_from_path
from ex4d.cameras.make import make_path
from ex4d.geometry.pinhole import intrinsics
from ex4d.types import DepthClip

FRAMES, SIZE, FPS = 9, (36, 64), Fraction(24)
STORED = Path(__file__).parent / "data" / "camera_spellings.npz"

YAML = """\
subject: near
interpolation: spline
speed: keys
time: reverse
keys:
  - {at: 0}
  - {at: 50%, orbit: {yaw: 30, pitch: 10deg, in: 20%}, ease: in-out}
  - {at: 6f, orbit: -20, roll: 3}
  - {at: 100%, position: [30%, 0, 0.5], look_at: subject, roll: 5, fov: 50}
"""
JSON = """\
{"version": 1, "interpolation": "linear", "speed": "constant", "subject": "20x10-40x30",
 "keys": [{"position": [0, "10%h", "2u"], "rotation": [1, 0, 0, 0]},
          {"position": ["20%w", 0, 0], "rotation": {"yaw": 20, "pitch": -5, "roll": 2}},
          {"position": ["5deg", 0, "0.25m"], "look_at": [0, "10cm", 4]}]}
"""

SPELLINGS = [
    "static",
    "orbit",
    "orbit:60",
    " orbit:60 ",
    "orbit,60",
    "orbit:-45.5deg",
    "orbit:yaw=40,pitch=-12,roll=7",
    "orbit:pitch=30,in=20%",
    "orbit: yaw = 20 , out = 0.5m , at = near",
    "orbit:60,at=20x10",
    "orbit:60,at=20x10-40x30,ease=in-out",
    "orbit:60,at=2.5",
    "orbit:60,at=centre,ease=sine",
    "dolly",
    "dolly:30%",
    "dolly:in=2",
    "dolly:out=1.5u",
    "dolly:in=20%,out=5cm,ease=smooth",
    "dolly-zoom:in=40%",
    "truck:right=0.5m",
    "truck:left=25%w,ease=in",
    "truck:right=20deg",
    "pedestal:up=500 mm",
    "pedestal:down=10%h,ease=out",
    "roll:20",
    "pan",
    "pan:15deg",
    "tilt:deg=-10",
    "lens:x=1.5",
    "lens:0.7",
    "spiral",
    "spiral:turns=1.5,angle=20,in=10%",
    "bullet-time:60",
    "bullet-time:yaw=60,frame=3",
    "static then bullet-time:60 then static",
    "orbit:40,for=25% then static",
    "orbit:40,for=3f > orbit:-40",
    "orbit:40,for=0.125s>dolly:in=10%",
    "orbit:yaw=60,pitch=10 + dolly:in=20% then static @ slow=0.5",
    "orbit:30+roll:5+lens:x=1.2",
    "orbit:60 @ freeze",
    "orbit:60@freeze=2",
    "orbit:60 @ until=5",
    "orbit:60 @ from=2",
    "orbit:60 @ fast=2",
    "orbit:60 @ reverse",
    "orbit:60 @ ping-pong",
    "orbit:60 @ 0:0,4:8,8:0",
    "orbit:60 @",
    "30",
    "+60",
    "-90",
    "180",
    "-180_outer,ease=in",
    "37.5:for=50% then static",
    "zoom_in",
    "-zoom_out + roll:3",
    "{keys.yaml}",
    "{keys.yaml} @ freeze=1",
    "{keys.json}",
    "{keys.json}@ping-pong",
    "{path.json}",
    "ex4d:{path.json} @ reverse",
    "{path.csv}",
    "{path.txt}",
    "re10k:{path.txt} @ 0:0,8:4",
    "tum:{tum.txt}",
    "{model}",
    "colmap-bin:{model} @ slow=0.5",
    "recammaster:{many.json}#cam02",
    "{many.json}#cam02 @ until=3",
    "{many.json}",
    "trajectorycrafter:{traj.txt}",
]


def scene():
    """A slope with a nearer block, metric; every number is exact in float32."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    depth = 3 + x / 64 + y / 32
    depth[8:20, 10:30] = 2.25
    return DepthClip(depth[None], intrinsics(SIZE, 60.0)[None], "metric")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Every file that the spellings name, by the name between the braces."""
    folder = tmp_path_factory.mktemp("spellings")
    (folder / "keys.yaml").write_text(YAML, encoding="utf-8")
    (folder / "keys.json").write_text(JSON, encoding="utf-8")
    (folder / "traj.txt").write_text("0 10 25 40\n0 -5 -10 0\n0 0.1 0.2 0.3\n", encoding="utf-8")
    path = make_path("orbit:yaw=40,in=20% + lens:x=1.3 @ slow=0.5", first=scene(), num_frames=FRAMES, fps=FPS)
    track = track_from_path(path, FPS)
    other = track_from_path(make_path("truck:right=50%", first=scene(), num_frames=FRAMES, fps=FPS), FPS)
    for name, format, tracks in (
        ("path.json", "ex4d", {"": track}),
        ("path.csv", "csv", {"": track}),
        ("path.txt", "re10k", {"": track}),
        ("tum.txt", "tum", {"": track}),
        ("model", "colmap-bin", {"": track}),
        ("many.json", "recammaster", {"cam01": track, "cam02": other}),
    ):
        get_format(format).write(folder / name, tracks)
    return folder


def made(spelling, folder):
    for name in sorted(p.name for p in folder.iterdir()):
        spelling = spelling.replace("{" + name + "}", str(folder / name))
    path = make_path(spelling, first=scene(), num_frames=FRAMES, fps=FPS, num_source_frames=FRAMES)
    return path.cam_from_world, path.K, path.source_time


@pytest.mark.parametrize("index", range(len(SPELLINGS)), ids=SPELLINGS)
def test_a_spelling_gives_the_path_it_always_gave(index, files):
    stored = np.load(STORED)
    assert stored["spellings"].tolist() == SPELLINGS
    poses, K, time = made(SPELLINGS[index], files)
    np.testing.assert_allclose(poses, stored["cam_from_world"][index], rtol=0, atol=1e-12 * 4)
    np.testing.assert_allclose(K, stored["K"][index], rtol=2e-7)
    np.testing.assert_allclose(time, stored["source_time"][index], rtol=0, atol=1e-12 * FRAMES)
