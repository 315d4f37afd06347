"""What a second run keeps, what it makes again, and what it may touch: all through the command line."""

import json
from fractions import Fraction

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.io.depth.file import write_depth
from ex4d.io.video.read import VideoWriter, read_video
from ex4d.types import DepthClip

FRAMES, H, W = 5, 48, 64
K = np.tile(np.array([[W, 0, W / 2], [0, W, H / 2], [0, 0, 1]], np.float32), (FRAMES, 1, 1))


def write_clip(folder, name="in", seed=0, moving=False, frames=FRAMES):
    """NAME.mkv and NAME.npz: a wall with a box before it, which moves (so that a plate is found) or stands still."""
    rng = np.random.default_rng(seed)
    wall = np.kron(rng.integers(60, 200, (H // 8, W // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    pictures, depth = np.repeat(wall[None], frames, axis=0), np.full((frames, H, W), 5, np.float32)
    for t in range(frames):
        left = 8 + (8 * t if moving else 8)
        pictures[t, 16:32, left : left + 10] = 20
        depth[t, 16:32, left : left + 10] = 2
    with VideoWriter(folder / f"{name}.mkv", Fraction(24), lossless=True) as writer:
        writer.write(pictures)
    write_depth(folder / f"{name}.npz", DepthClip(depth, K[:1].repeat(frames, 0)), Fraction(24))
    return folder / f"{name}.mkv"


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path)
    return tmp_path


def run(folder, *more, name="in", out="out", camera="orbit:20"):
    files = [str(folder / f"{name}.mkv"), "--out", str(folder / out), "--camera", camera, "--preset", "fill"]
    more = [str(word) for word in more]
    return main(["run", *files, *([] if "--depth" in more else ["--depth", str(folder / f"{name}.npz")]), *more])


def kept(capsys):
    """The stages that the last command took from an earlier run."""
    line = capsys.readouterr().out.strip().splitlines()[-1]
    return {part.split()[0] for part in line[line.rindex("(") + 1 : -1].split(", ") if part.endswith("kept")}


@pytest.mark.parametrize("damage", ["emptied", "cut off", "another form"])
def test_a_record_that_cannot_be_read_means_not_done(clip, capsys, damage):
    assert run(clip) == 0
    for file in (clip / "out" / ".stages").iterdir():
        whole = file.read_text()
        file.write_text({"emptied": "", "cut off": whole[: len(whole) // 2], "another form": "[1, 2]"}[damage])
    before = read_video(clip / "out" / "output.mp4").frames
    capsys.readouterr()
    assert run(clip) == 0
    out, err = capsys.readouterr()
    assert "kept" not in out and "Traceback" not in err
    assert "render.json cannot be read" in err and "made again" in err
    np.testing.assert_array_equal(read_video(clip / "out" / "output.mp4").frames, before)
    assert run(clip) == 0 and kept(capsys) == {"depth", "render", "generate"}


def test_a_resumed_run_says_in_its_manifest_what_the_first_said(clip, capsys):
    poses = [np.eye(4).tolist() for _ in range(FRAMES)]
    for t, pose in enumerate(poses):
        pose[0][3] = -0.05 * t
    frames = [{"cam_from_world": p, "K": K[0].tolist(), "source_time": t} for t, p in enumerate(poses)]
    record = {"version": 1, "axes": "opencv", "size_hw": [H, W], "fps": 24, "frames": frames}
    (clip / "source.json").write_text(json.dumps(record))
    said = []
    for _ in range(2):
        assert run(clip, "--source-cameras", clip / "source.json") == 0
        said.append(json.loads((clip / "out" / "manifest.json").read_text()))
    assert kept(capsys) == {"depth", "render", "generate"}
    assert "depth_multiplied_by" in said[0]["source_cameras"]
    assert said[0].keys() == said[1].keys()
    for part in said[0].keys() - {"made_at", "seconds"}:
        assert said[0][part] == said[1][part], part
