"""Videos and depth files that cannot be used: one line that says what was got and what is needed, exit code 2, no file."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ex4d import samples
from ex4d.cli.main import main


@pytest.fixture
def video(tmp_path):
    """The shipped sample, beside the test's other files."""
    return samples.video_path()


def files_left(folder):
    """Files under a folder, without the records of finished stages."""
    return [file for file in folder.rglob("*") if file.is_file()] if folder.exists() else []


def refuse(capsys, out, *args: str) -> str:
    """Run the line on bad input; check code, the single line and that nothing is left; give the line."""
    code = main(["run", *map(str, args), "--out", str(out)])
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if not line.startswith("note:")]
    assert code == 2, captured.err
    assert len(errors) == 1 and errors[0].startswith("ex4d: "), captured.err
    assert "; need " in errors[0], "it says what is needed"
    assert "Traceback" not in captured.err
    assert not files_left(out)
    return errors[0]


def test_a_missing_file(capsys, tmp_path):
    assert "does not exist" in refuse(capsys, tmp_path / "out", tmp_path / "no.mp4", "--depth", "plane")


def test_a_directory(capsys, tmp_path):
    assert "is a folder" in refuse(capsys, tmp_path / "out", tmp_path, "--depth", "plane")


def test_text_named_mp4(capsys, tmp_path):
    (tmp_path / "v.mp4").write_text("These are words.\n" * 100)
    assert "cannot be read as a video" in refuse(capsys, tmp_path / "out", tmp_path / "v.mp4", "--depth", "plane")


def test_an_empty_file(capsys, tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"")
    assert "is empty" in refuse(capsys, tmp_path / "out", tmp_path / "v.mp4", "--depth", "plane")


def test_zero_frames(capsys, tmp_path):
    import av

    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        container.start_encoding()
    line = refuse(capsys, tmp_path / "out", path, "--depth", "plane")
    assert "no video frames" in line or "cannot be read" in line


def test_only_sound(capsys, tmp_path):
    import av

    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        samples_in = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples_in.sample_rate, samples_in.pts = 48000, 0
        container.mux(stream.encode(samples_in))
        container.mux(stream.encode(None))
    assert "no video stream" in refuse(capsys, tmp_path / "out", path, "--depth", "plane")


def test_a_truncated_file(capsys, tmp_path, video):
    data = video.read_bytes()
    (tmp_path / "v.mp4").write_bytes(data[: len(data) // 2])
    line = refuse(capsys, tmp_path / "out", tmp_path / "v.mp4", "--depth", "plane", "--size", "64x36")
    assert "damaged" in line or "cannot be read" in line


def test_the_damaged_clip_of_the_reference_data(capsys, tmp_path, shared):
    path = shared / "videos" / "edge" / "decord_corrupted.mp4"
    assert "damaged" in refuse(capsys, tmp_path / "out", path, "--depth", "plane", "--size", "64x64")


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [("--start", "99", "start"), ("--frames", "50", "49"), ("--frames", "0", "frames"), ("--size", "10", "--size")],
)
def test_parts_that_are_not_there(capsys, tmp_path, video, option, value, word):
    assert word in refuse(capsys, tmp_path / "out", video, "--depth", "plane", option, value)


def depth_file(folder, depth, **more):
    np.savez(folder / "d.npz", depth=depth, K=np.array([[60, 0, 32], [0, 60, 18], [0, 0, 1.0]]), unit="metric", **more)
    return folder / "d.npz"


def ramp(frames=4, hw=(36, 64)):
    return np.broadcast_to(np.linspace(2, 5, hw[1], dtype=np.float32), (frames, *hw)).copy()


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda d: d.__setitem__((1, 3, 3), np.nan), "NaN"),
        (lambda d: d.__setitem__((2, 3, 3), -1), "negative"),
        (lambda d: d.__setitem__((2, 3, 3), np.inf), "infinite"),
    ],
)
def test_depth_that_is_no_depth(capsys, tmp_path, video, spoil, word):
    depth = ramp()
    spoil(depth)
    line = refuse(
        capsys, tmp_path / "out", video, "--depth", depth_file(tmp_path, depth), "--frames", "4", "--size", "64x36"
    )
    assert word in line


def test_depth_of_another_length(capsys, tmp_path, video):
    path = depth_file(tmp_path, ramp(3))
    line = refuse(capsys, tmp_path / "out", video, "--depth", path, "--frames", "4", "--size", "64x36")
    assert "3 depth maps" in line and "4 frames" in line


def test_depth_of_another_aspect(capsys, tmp_path, video):
    path = depth_file(tmp_path, ramp())
    line = refuse(capsys, tmp_path / "out", video, "--depth", path, "--frames", "4", "--size", "64x64")
    assert "64x36" in line and "64x64" in line


def test_depth_of_another_size_and_the_same_aspect_is_resized_with_a_note(capsys, tmp_path, video):
    out = tmp_path / "out"
    args = ["--depth", str(depth_file(tmp_path, ramp(2))), "--frames", "2", "--size", "128x72"]
    assert main(["render", str(video), *args, "--out", str(out)]) == 0
    assert "resized" in capsys.readouterr().err
    assert np.load(out / "depth.npz")["depth"].shape == (2, 72, 128)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("no archive"),
        lambda path: np.savez(path, other=np.ones(3)),
        lambda path: np.savez(path, depth=np.ones((2, 3))[None, None]),
        lambda path: np.savez(path, depth=np.ones((4, 36, 64)), unit="furlongs"),
        lambda path: np.savez(path, depth=np.ones((4, 36, 64)), K=np.ones((2, 2))),
        lambda path: np.savez(path, depth=np.array(["a", "b"])),
    ],
)
def test_files_that_hold_no_depth(capsys, tmp_path, video, write):
    path = tmp_path / "d.npz"
    write(path)
    assert "d.npz" in refuse(capsys, tmp_path / "out", video, "--depth", path, "--frames", "4", "--size", "64x36")


def test_a_folder_without_pictures_and_an_8_bit_picture(capsys, tmp_path, video):
    import cv2

    (tmp_path / "maps").mkdir()
    refuse(capsys, tmp_path / "out", video, "--depth", tmp_path / "maps", "--frames", "1")
    cv2.imwrite(str(tmp_path / "maps" / "a.png"), np.ones((36, 64), np.uint8))
    assert "16-bit" in refuse(capsys, tmp_path / "out", video, "--depth", tmp_path / "maps", "--frames", "1")


def test_an_output_folder_that_is_a_file(capsys, tmp_path, video):
    (tmp_path / "out").write_text("in the way")
    code = main(
        ["run", str(video), "--depth", "plane", "--preset", "fill", "--frames", "2", "--out", str(tmp_path / "out")]
    )
    captured = capsys.readouterr()
    assert code == 2 and "cannot write into" in captured.err and len(captured.err.strip().splitlines()) == 1
    assert (tmp_path / "out").read_text() == "in the way"


def test_a_full_disk(tmp_path, video):
    """The kernel refuses to let any file of a child process grow past 200 kB, as a full disk would."""
    resource = pytest.importorskip("resource", reason="limits on file size exist on POSIX only")
    del resource
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        "from ex4d.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    command = ["run", str(video), "--depth", "plane", "--preset", "fill", "--frames", "8", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, *command], capture_output=True, text=True, timeout=240, check=False
    )
    errors = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1 and "cannot write" in errors[0], done.stderr
    assert not [file for file in files_left(out) if ".tmp" in file.name]


def test_a_manifest_says_what_was_read(tmp_path, video, capsys):
    out = tmp_path / "out"
    assert main(["render", str(video), "--depth", "plane", "--frames", "2", "--size", "64x36", "--out", str(out)]) == 0
    capsys.readouterr()
    record = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert record["config"]["size_hw"] == [36, 64] and len(record["inputs"]["video"]["sha256"]) == 64
    assert record["seed"] == 0 and "numpy" in record["versions"]
