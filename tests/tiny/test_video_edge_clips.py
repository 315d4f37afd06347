"""Clips that trap decoders: every one decodes, upright, whole and in its own colours."""

import numpy as np
import pytest

from ex4d.errors import InputError
from ex4d.io.video.read import open_video, read_video

#: name -> (frames, (height, width), frames per second)
EDGE = {
    "decord_unordered.mov": (4, (50, 50), 32),
    "decord_video_0.mov": (3, (320, 568), 30),
    "decord_video_90.mov": (3, (568, 320), 30),
    "decord_video_180.mov": (3, (320, 568), 30),
    "decord_video_270.mov": (3, (568, 320), 30),
    "mp_no_duration.webm": (74, (720, 1280), 15000 / 1001),
    "mp_transparent_alpha.webm": (150, (200, 200), 30),
    "skv_carphone_distorted.mp4": (120, (144, 193), 30000 / 1001),  # 176 columns of 128:117
    "tc_av1.mkv": (125, (360, 640), 25),
    "tc_bt709_full.mp4": (30, (720, 1280), 30),
    "tc_h264_10bits.mp4": (30, (200, 200), 30),
    "tc_h265.mp4": (10, (128, 128), 10),
    "tc_h265_10bits.mp4": (30, (200, 200), 30),
}


@pytest.fixture
def edge(shared):
    return shared / "videos" / "edge"


@pytest.mark.parametrize("name", list(EDGE))
def test_edge_clips_decode(edge, name):
    frames, size_hw, fps = EDGE[name]
    source = open_video(edge / name)
    assert (source.num_frames, source.size_hw) == (frames, size_hw)
    assert float(source.fps) == pytest.approx(fps, rel=1e-6)
    assert sum(len(chunk) for chunk in source.chunks(32)) == frames


def test_the_damaged_clip_is_refused(edge):
    with pytest.raises(InputError, match="damaged: decoding stops after 28 frames"):
        read_video(edge / "decord_corrupted.mp4")


def test_the_transparent_clip_lies_on_black(edge):
    frame = read_video(edge / "mp_transparent_alpha.webm", frames=20).frames[10]
    assert (frame[:4, :4] == 0).all() and frame.max() > 100


def test_full_range_reaches_black_and_white_without_clipping_much(edge):
    frame = read_video(edge / "tc_bt709_full.mp4", frames=1).frames[0]
    assert np.percentile(frame, 0.1) < 30 and np.percentile(frame, 99.9) > 200
    assert (frame == 255).mean() < 0.5


@pytest.mark.parametrize(
    ("name", "frames", "size_hw"),
    [
        ("gen3c_cat.mp4", 120, (1568, 882)),
        ("mdn_flower_webm.webm", 150, (540, 960)),
        ("mdn_frog.mp4", 248, (480, 720)),
        ("sam2_coffee.mp4", 287, (720, 1280)),
        ("sam2_juggle.mp4", 247, (720, 1280)),
        ("udacity_highway.mp4", 221, (540, 960)),
        ("vipe_dog.mp4", 122, (720, 1280)),
        ("intel_asl_walk.mkv", 89, (480, 640)),
    ],
)
def test_real_clips_are_planned_frame_by_frame(shared, name, frames, size_hw):
    source = open_video(shared / "videos" / name)
    assert (source.num_frames, source.size_hw) == (frames, size_hw)
    last = open_video(shared / "videos" / name, start=(frames - 0.5) / float(source.fps))
    assert last.num_frames == 1


@pytest.mark.parametrize("name", ["mdn_frog.mp4", "vipe_dog.mp4"])
def test_a_clip_of_one_take_has_no_cuts(shared, name):
    assert open_video(shared / "videos" / name, frames=60, size_hw=(90, 160)).cuts() == []
