"""Bad input of `ex4d evaluate`: each named in one line, the rest still scored, exit code not zero."""

import json
from fractions import Fraction

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.io.video.read import VideoWriter


def write(path, num_frames=4, size=(32, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, *size, 3)).astype(np.uint8)
    with VideoWriter(path, Fraction(24), lossless=True) as writer:
        writer.write(frames)


@pytest.fixture
def folders(tmp_path):
    """References for five clips, and one good output."""
    for clip in ("a", "b", "c", "d", "e"):
        write(tmp_path / "references" / f"{clip}.mkv")
    write(tmp_path / "mine" / "a.mkv")
    (tmp_path / "p.yaml").write_text(
        "name: p\ntitle: p\nreference: target\nmetrics: [psnr, ssim]\nitems: [a, b]\nreference_files: ['{clip}.mkv']\n"
    )
    return tmp_path


def run(folders, *more):
    args = ["evaluate", str(folders / "p.yaml"), str(folders / "mine"), "--references", str(folders / "references")]
    return main([*args, "--out", str(folders / "out"), *more])


def test_each_bad_output_is_named_and_the_rest_is_scored(folders, capsys):
    mine = folders / "mine"
    write(mine / "c.mkv", num_frames=3)
    write(mine / "d.mkv", size=(48, 32))
    (mine / "e.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"broken" * 50)
    write(mine / "f.mkv")
    assert run(folders) == 1
    report = json.loads((folders / "out" / "report.json").read_text())
    problems = {f["item"]: f["problem"] for f in report["failures"]}
    assert "no output for this clip" in problems["b"]
    assert "3 frames, the reference has 4" in problems["c"]
    assert "32x48, the reference is 48x32" in problems["d"]
    assert "e.mp4" in problems["e"]
    assert "no reference for f" in problems["f"]
    assert [i["item"] for i in report["items"]] == ["a"] and report["items"][0]["metrics"]["psnr"] == "inf"
    errors = capsys.readouterr().err
    assert all(f"mine, {item}: " in errors for item in "bcdef")
    for name in ("report.md", "report.html"):
        assert "the reference has 4" in (folders / "out" / name).read_text()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (["evaluate", "nonsense", "{mine}"], "got protocol"),
        (["evaluate", "rendered"], "no folder of outputs"),
        (["evaluate", "rendered", "{none}"], "is not a folder"),
        (["evaluate", "rendered", "{empty}"], "holds no videos"),
        (["evaluate", "rendered", "{mine}", "--tool", "sora"], "tool 'sora'"),
        (["evaluate", "rendered", "{mine}", "--tool", "recammaster"], "named as recammaster does"),
        (["evaluate", "rendered", "{mine}", "--references", "{none}"], "is not a folder"),
        (["evaluate", "rendered", "{mine}", "--features", "{none}"], "does not exist"),
        (["evaluate", "rendered", "{mine}", "--lpips", "{none}"], "does not exist"),
        (["evaluate", "geometry", "--seeds", "-1"], "seeds of 0 or more"),
        (["evaluate", "geometry", "--angles", "0"], "angles above 0"),
        (["evaluate", "geometry", "--size", "5"], "32 to 2048"),
        (["evaluate", "rendered", "--make", "{out}", "--frames", "1"], "2 frames or more"),
        (["evaluate", "user-study", "{mine}"], "two or more systems"),
        (["evaluate", "user-study", "{mine}", "--key", "{none}"], "cannot be read"),
    ],
)
def test_one_line_and_code_2_and_nothing_written(change, line, folders, capsys):
    (folders / "empty").mkdir()
    names = {"mine": folders / "mine", "none": folders / "none", "empty": folders / "empty", "out": folders / "new"}
    args = [c.format(**names) for c in change]
    assert main([*args, "--out", str(folders / "out")]) == 2
    err = capsys.readouterr().err.strip()
    assert line.removeprefix("got ") in err and "\n" not in err and "need" in err
    assert not (folders / "out" / "report.json").exists() and not (folders / "new").exists()


def test_features_of_another_size_are_refused(folders, tmp_path):
    from ex4d.errors import InputError
    from ex4d.evaluate.metrics.distribution import frechet_distance

    with pytest.raises(InputError, match="features of 3 and 4 numbers"):
        frechet_distance(np.zeros((4, 3)), np.zeros((4, 4)))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [", "is not YAML"),
        ("name: p\n", "the keys"),
        ("name: p\ntitle: p\nreference: target\nreference_files: []\nmetrics: [beauty]\n", "metric 'beauty'"),
        ("name: p\ntitle: p\nreference: moon\nreference_files: []\nmetrics: [psnr]\n", "reference 'moon'"),
        ("name: p\ntitle: p\nreference: target\nreference_files: []\nmetrics: [psnr]\ncolour: 1\n", "key 'colour'"),
    ],
)
def test_a_bad_protocol_file_is_named(text, line, folders, capsys):
    (folders / "p.yaml").write_text(text)
    assert run(folders) == 2
    assert line in capsys.readouterr().err
