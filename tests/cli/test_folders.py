"""Which files of an output folder a command may touch and read, and that a refusal leaves no folder behind."""

from fractions import Fraction

import numpy as np
import pytest
from folder_runs import FRAMES, H, W, run, write_clip

from ex4d.cli.main import main
from ex4d.io.video.read import VideoWriter, read_video


@pytest.fixture
def two(tmp_path):
    """Two clips of one size: `first` has a box that moves, so that its render holds a plate; `second` has none."""
    write_clip(tmp_path, "first", seed=1, moving=True)
    write_clip(tmp_path, "second", seed=2)
    return tmp_path


def refused(capsys, *args):
    capsys.readouterr()
    code = main([str(word) for word in args])
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("ex4d:")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, err
    return lines[0]


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def plate(seed=3):
    return np.random.default_rng(seed).integers(0, 255, (FRAMES, H, W, 3)).astype(np.uint8)


def write_plate(folder):
    folder.mkdir(exist_ok=True)
    for name, frames in (("plate", plate()), ("plate_mask", np.full((FRAMES, H, W), 255, np.uint8))):
        with VideoWriter(folder / f"{name}.mkv", Fraction(24), lossless=True) as writer:
            writer.write(frames)


def test_nothing_of_another_video_enters_a_folder_that_is_used_again(two):
    assert run(two, "--supersample", "2", name="first", out="used") == 0
    assert (two / "used" / "plate.mkv").exists() and (two / "used" / "coverage.mkv").exists()
    assert run(two, "--reference", name="second", out="used") == 0
    assert run(two, "--reference", name="second", out="fresh") == 0
    used, fresh = contents(two / "used"), contents(two / "fresh")
    assert used.keys() == fresh.keys() and "plate.mkv" not in used and "coverage.mkv" not in used
    made = [read_video(two / out / "output.mp4").frames for out in ("used", "fresh")]
    np.testing.assert_array_equal(made[0], made[1])


def test_a_file_that_no_record_lists_is_refused_and_kept(two, capsys):
    write_plate(two / "out")
    before = contents(two / "out")
    line = refused(capsys, "run", two / "second.mkv", "--depth", two / "second.npz", "--preset", "fill", "--out", two / "out")  # fmt: skip
    assert "plate.mkv" in line and "--out" in line
    assert contents(two / "out") == before


@pytest.mark.parametrize("name", ["depth.npz", "output.mp4", "manifest.json", "cameras.json", "preview.png"])
@pytest.mark.parametrize("used", [False, True])
def test_a_file_of_the_users_own_is_not_written_over(two, capsys, name, used):
    (two / "out").mkdir()
    if used:  # records of an earlier run that made no such file
        assert main(["mesh", str(two / "first.mkv"), "--depth", "plane", "--out", str(two / "out")]) == 0
        (two / "out" / name).unlink(missing_ok=True)
        for record in (two / "out" / ".stages").iterdir():
            if name in record.read_text():
                record.unlink()
    (two / "out" / name).write_bytes(b"mine")
    before = contents(two / "out")
    line = refused(capsys, "run", two / "second.mkv", "--depth", "plane", "--preset", "fill", "--out", two / "out")
    assert name in line and contents(two / "out") == before


@pytest.mark.parametrize("what", ["video", "depth", "camera", "source cameras"])
def test_an_input_of_the_run_is_never_written_over_or_removed(two, capsys, what):
    assert run(two, name="first", out="out") == 0
    out = two / "out"
    before = contents(out)
    video, depth, more = two / "first.mkv", two / "first.npz", []
    if what == "video":
        video, depth = out / "output.mp4", "plane"
    elif what == "depth":
        depth = out / "depth.npz"
    else:
        more = [f"--{what.replace(' ', '-')}", out / "cameras.json"]
    args = ["run", video, "--depth", depth, "--preset", "fill", "--out", out, *more]
    line = refused(capsys, *args)
    assert "--out" in line and contents(out) == before


def test_depth_made_in_the_folder_before_is_an_input_that_stays(two, capsys):
    args = ["depth", two / "first.mkv", "--model", two / "first.npz", "--confidence", "--no-preview", "--out", two / "out"]  # fmt: skip
    for _ in range(2):
        assert main([str(word) for word in args]) == 0
    before = contents(two / "out")
    line = refused(capsys, "run", two / "first.mkv", "--depth", two / "out" / "depth.npz", "--preset", "fill", "--out", two / "out")  # fmt: skip
    assert "depth.npz" in line and contents(two / "out") == before
    assert run(two, "--depth", two / "out" / "depth.npz", name="first", out="other") == 0


def test_only_what_the_record_names_is_read(two):
    assert main(["render", str(two / "second.mkv"), "--depth", "plane", "--reference", "--out", str(two / "r")]) == 0
    args = ["generate", str(two / "r"), "--preset", "fill", "--out"]
    assert main([*args, str(two / "before")]) == 0
    write_plate(two / "r")
    assert main([*args, str(two / "after")]) == 0
    made = [read_video(two / out / "output.mp4").frames for out in ("before", "after")]
    np.testing.assert_array_equal(made[0], made[1])


def test_a_folder_of_another_tool_is_read_by_its_file_names(two):
    assert main(["render", str(two / "second.mkv"), "--depth", "plane", "--reference", "--out", str(two / "r")]) == 0
    (two / "theirs").mkdir()
    for name in ("color.mkv", "mask.mkv"):
        (two / "r" / name).rename(two / "theirs" / name)
    args = ["generate", str(two / "theirs"), "--preset", "fill", "--out"]
    assert main([*args, str(two / "without")]) == 0
    write_plate(two / "theirs")
    assert main([*args, str(two / "with")]) == 0
    made = [read_video(two / out / "output.mp4").frames for out in ("without", "with")]
    assert (made[0] != made[1]).any()


@pytest.mark.parametrize("command", ["depth", "mesh", "generate"])
def test_the_single_commands_keep_to_the_same_rule(two, capsys, command):
    out = two / "out"
    if command == "generate":
        assert main(["render", str(two / "first.mkv"), "--depth", "plane", "--out", str(out)]) == 0
        args, name = ["generate", out, "--preset", "fill"], "output.mp4"
    elif command == "depth":
        args, name = ["depth", two / "first.mkv", "--model", "plane", "--out", out], "depth_preview.mp4"
    else:
        args = ["mesh", two / "first.mkv", "--depth", "plane", "--out", out, "--every", "2"]
        name = "mesh_000002.ply"
    out.mkdir(exist_ok=True)
    (out / name).write_bytes(b"mine")
    before = contents(out)
    assert name in refused(capsys, *args) and contents(out) == before
    (out / name).unlink()
    for _ in range(2):
        assert main([str(word) for word in args]) == 0
    if command == "mesh":
        assert main([str(word) for word in args[:-1]] + ["4"]) == 0
        assert sorted(p.name for p in out.glob("mesh_*")) == ["mesh_000000.ply", "mesh_000004.ply"]


@pytest.mark.parametrize("fault", ["camera", "depth", "frames", "preset"])
def test_a_refusal_leaves_no_folder(two, capsys, fault):
    depth, more = "plane", []
    if fault == "depth":
        np.savez(two / "bad.npz", depth=np.full((FRAMES, H, W), np.nan, np.float32), unit="metric")
        depth = two / "bad.npz"
    else:
        more = {"camera": ["--camera", "orbti:3"], "frames": ["--frames", "0"], "preset": ["--preset", "fil"]}[fault]
    args = ["run", two / "first.mkv", "--depth", depth, "--out", two / "new" / "out"]
    refused(capsys, *args, *(more if fault == "preset" else ["--preset", "fill", *more]))
    assert not (two / "new").exists()


@pytest.mark.parametrize("how", ["stopped", "full disk"])
def test_a_run_that_stops_while_it_writes_goes_on_afterwards(two, monkeypatch, how):
    import errno

    import ex4d.system.atomic as atomic

    assert run(two, name="first") == 0
    replace, calls = atomic.os.replace, []

    def failing(source, target):
        if str(target).endswith("render_depth.npz"):
            calls.append(target)
            if how == "stopped":
                raise KeyboardInterrupt
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", failing)
    assert run(two, name="second") == (130 if how == "stopped" else 2) and calls
    monkeypatch.undo()
    assert run(two, name="second") == 0 and run(two, name="second", out="fresh") == 0
    assert contents(two / "out").keys() == contents(two / "fresh").keys()
    made = [read_video(two / out / "output.mp4").frames for out in ("out", "fresh")]
    np.testing.assert_array_equal(made[0], made[1])
