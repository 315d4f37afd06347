"""Bad input to `ex4d run`: one line that says what was got, what is needed and what to type; exit code 2; nothing half-written."""

from fractions import Fraction

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.io.depth.file import write_depth
from ex4d.io.video.read import VideoWriter
from ex4d.types import DepthClip

FRAMES, H, W = 5, 32, 48
GOOD = np.full((FRAMES, H, W), 3, np.float32)


@pytest.fixture
def video(tmp_path):
    with VideoWriter(tmp_path / "in.mkv", Fraction(25), lossless=True) as writer:
        writer.write(np.full((FRAMES, H, W, 3), 90, np.uint8))
    return tmp_path / "in.mkv"


def refused(capsys, tmp_path, *args):
    """Run, check the manner of the refusal, return its line."""
    out = tmp_path / "out"
    code = main(["run", *map(str, args), "--out", str(out)])
    err = capsys.readouterr().err
    line = [x for x in err.strip().splitlines() if x.startswith("ex4d:")]
    assert code == 2, err
    assert len(line) == 1 and "Traceback" not in err, err
    if out.is_dir():
        assert [p.name for p in out.rglob("*") if p.is_file()] == []
    return line[0]


def depth_file(tmp_path, depth, **more):
    np.savez(tmp_path / "d.npz", depth=depth, K=np.array([[W, 0, W / 2], [0, W, H / 2], [0, 0, 1]], np.float32), **more)
    return tmp_path / "d.npz"


def test_missing_file(capsys, tmp_path):
    assert "does not exist" in refused(capsys, tmp_path, tmp_path / "no.mp4", "--depth", "plane")


def test_directory(capsys, tmp_path):
    assert "folder" in refused(capsys, tmp_path, tmp_path, "--depth", "plane")


def test_text_named_mp4(capsys, tmp_path):
    (tmp_path / "t.mp4").write_text("hello, this is not a video at all")
    assert "cannot be read as a video" in refused(capsys, tmp_path, tmp_path / "t.mp4", "--depth", "plane")


def test_corrupted_video(capsys, tmp_path, shared):
    line = refused(capsys, tmp_path, shared / "videos" / "edge" / "decord_corrupted.mp4", "--depth", "plane")
    assert "decord_corrupted.mp4" in line


def test_zero_frames(capsys, tmp_path, video):
    assert "0" in refused(capsys, tmp_path, video, "--depth", "plane", "--frames", "0")


def test_depth_of_another_aspect(capsys, tmp_path, video):
    file = depth_file(tmp_path, np.full((FRAMES, 32, 32), 3, np.float32), unit="metric")
    assert "32x32" in refused(capsys, tmp_path, video, "--depth", file)


def test_depth_of_another_length(capsys, tmp_path, video):
    file = depth_file(tmp_path, GOOD[:3], unit="metric")
    assert "3 depth maps" in refused(capsys, tmp_path, video, "--depth", file)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (-1.0, "negative"), (0.0, "zero")])
def test_depth_that_is_none(capsys, tmp_path, video, value, word):
    depth = GOOD.copy()
    depth[2, 5, 5] = value
    assert word in refused(capsys, tmp_path, video, "--depth", depth_file(tmp_path, depth, unit="metric")).lower()


def test_all_equal_disparity(capsys, tmp_path, video):
    file = depth_file(tmp_path, GOOD, kind="disparity")
    assert "same" in refused(capsys, tmp_path, video, "--depth", file)


def test_a_flat_wall_is_valid_depth(tmp_path, video):
    K = np.tile(np.array([[W, 0, W / 2], [0, W, H / 2], [0, 0, 1]], np.float32), (FRAMES, 1, 1))
    write_depth(tmp_path / "d.npz", DepthClip(GOOD, K, "metric"), Fraction(25))
    args = ["--depth", str(tmp_path / "d.npz"), "--preset", "fill", "--out", str(tmp_path / "out")]
    assert main(["run", str(video), *args]) == 0


def test_another_size_of_the_same_aspect_is_resized_with_a_note(capsys, tmp_path, video):
    file = depth_file(tmp_path, np.full((FRAMES, H // 2, W // 2), 3, np.float32), unit="metric")
    args = ["--depth", str(file), "--preset", "fill", "--out", str(tmp_path / "out")]
    assert main(["run", str(video), *args]) == 0
    assert "resized" in capsys.readouterr().err


def test_unknown_preset(capsys, tmp_path, video):
    assert "fill" in refused(capsys, tmp_path, video, "--depth", "plane", "--preset", "fil")


def test_unknown_camera(capsys, tmp_path, video):
    assert "orbit" in refused(capsys, tmp_path, video, "--depth", "plane", "--camera", "orbti:30")


def test_no_depth(capsys, tmp_path, video, monkeypatch):
    monkeypatch.setattr("ex4d.pipeline.config.default_depth", lambda: "plane")  # a package without its embedded network
    assert "--depth" in refused(capsys, tmp_path, video)


def test_output_folder_is_a_file(capsys, tmp_path, video):
    (tmp_path / "out").write_text("in the way")
    code = main(["run", str(video), "--depth", "plane", "--out", str(tmp_path / "out")])
    assert code == 2 and "cannot write into" in capsys.readouterr().err


def test_full_disk(capsys, tmp_path, video, monkeypatch):
    import errno

    import ex4d.system.atomic as atomic

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "replace", full)
    assert "No space left" in refused(capsys, tmp_path, video, "--depth", "plane")


@pytest.mark.parametrize("fault", ["mirrored", "scaled", "length"])
def test_camera_files_that_are_none(capsys, tmp_path, video, fault):
    import json

    pose = np.eye(4)
    if fault == "mirrored":
        pose[0, 0] = -1
    if fault == "scaled":
        pose[:3, :3] *= 1.1
    n = FRAMES - 1 if fault == "length" else FRAMES
    K = [[W, 0, W / 2], [0, W, H / 2], [0, 0, 1]]
    frames = [{"cam_from_world": pose.tolist(), "K": K, "source_time": t} for t in range(n)]
    record = {"version": 1, "axes": "opencv", "size_hw": [H, W], "fps": 25, "frames": frames}
    (tmp_path / "cam.json").write_text(json.dumps(record))
    line = refused(capsys, tmp_path, video, "--depth", "plane", "--camera", tmp_path / "cam.json")
    assert {"mirrored": "mirror", "scaled": "scaled", "length": str(n)}[fault] in line
