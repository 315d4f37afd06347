"""The shipped sample: within its size budget, readable, and what its script makes (whole: make_sample.py --check)."""

import runpy
from pathlib import Path

import numpy as np

from ex4d import samples
from ex4d.io.depth.file import read_depth
from ex4d.io.video.read import read_video

SCRIPT = Path(__file__).parents[2] / "recipes" / "sample" / "make_sample.py"


def test_the_sample_keeps_its_budget_and_schema():
    video, depth = samples.video_path(), samples.depth_path()
    assert video.stat().st_size < 1e6 and video.stat().st_size + depth.stat().st_size < 4e6
    clip, truth = read_video(video), read_depth(depth)
    assert len(clip) == len(truth) == 49 and clip.size_hw == truth.size_hw and clip.fps == 24
    assert truth.unit == "metric" and truth.cam_from_world is None and (truth.depth > 0.5).all()


def test_the_script_makes_the_shipped_depth_and_picture():
    made = runpy.run_path(str(SCRIPT))
    color, depth = made["frames"](made["sample_scene"](), [0, 30])
    stored, clip = np.load(samples.depth_path())["depth"], read_video(samples.video_path())
    np.testing.assert_array_equal(depth, stored[[0, 30]])
    error = color.astype(float) - clip.frames[[0, 30]]
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 33  # H.264 lies between


def test_a_mover_uncovers_what_it_hid():
    depth = read_depth(samples.depth_path()).depth
    hidden = depth < 0.8 * depth.max(0)
    assert 0.1 < hidden.any(0).mean() and hidden[24].mean() > 0.05
    assert not hidden.all(0).any()
