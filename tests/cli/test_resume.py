"""What a second run keeps and what it makes again, through the command line."""

import json

import numpy as np
import pytest
from folder_runs import FRAMES, H, K, W, kept, run, write_clip

from ex4d.io.video.read import read_video


@pytest.fixture
def clip(tmp_path):
    write_clip(tmp_path)
    return tmp_path


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
