"""`ex4d cameras` with bad input: one clear line, exit code 2, no file left; and the good runs beside them."""

import json

import numpy as np
import pytest

import ex4d
from ex4d.cli.main import main

SAMPLES = [
    __import__("pathlib").Path(ex4d.__file__).parent / "samples" / name for name in ("sample.mp4", "sample_depth.npz")
]


def run(capsys, *args):
    code = main(["cameras", *map(str, args)])
    out = capsys.readouterr()
    return code, out.out, out.err


def write_poses(path, change):
    poses = np.tile(np.diag([1.0, -1, -1, 1]), (5, 1, 1))
    change(poses)
    np.savez(path, extrinsics=poses.astype(np.float32), intrinsics=np.float32([[50, 0, 32], [0, 50, 24], [0, 0, 1]]))
    return path


def mirror(poses):
    poses[:, 0] *= -1


def scale(poses):
    poses[2, :3, :3] *= 2


def nan(poses):
    poses[3, 0, 3] = np.nan


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["convert", "orbti:60", "{tmp}/a.json"], ["orbti", "try: orbit"]),
        (["convert", "none.json", "{tmp}/a.json"], ["none.json does not exist"]),
        (["convert", "orbit:60", "recammastr:{tmp}/a.json"], ["recammastr", "recammaster"]),
        (["convert", "orbit:60", "{tmp}/missing/a.json"], ["missing does not exist"]),
        (["convert", "orbit:60", "re10k:{tmp}/a.json"], [".txt"]),
        (["convert", "orbit:60", "{tmp}"], ["need"]),
        (["convert", "orbit:60", "{tmp}/a.json", "--frames", "0"], ["0 frames"]),
        (["convert", "orbit:60", "{tmp}/a.json", "--size", "big"], ["WIDTHxHEIGHT"]),
        (["convert", "orbit:60", "{tmp}/a.json", "--distance", "-1"], ["> 0"]),
        (["convert", "roll:20", "trajectorycrafter:{tmp}/a.txt"], ["rolls", "another format"]),
        (["convert", "lens:x=2", "neoverse:{tmp}/a.json", "--frames", "1"], []),
        (["convert", "{mirror}", "{tmp}/a.json"], ["mirror", "determinant +1"]),
        (["convert", "{scale}", "{tmp}/a.json"], ["scaled"]),
        (["convert", "{nan}", "{tmp}/a.json"], ["NaN"]),
        (["convert", "{text}", "{tmp}/a.json"], ["no known camera format"]),
        (["convert", "tum:{text}", "{tmp}/a.json"], ["line 1", "8 numbers"]),
        (["convert", "{mirror}#cam02", "{tmp}/a.json"], ["no camera 'cam02'"]),
        (["lint", "none.json"], ["does not exist"]),
        (["lint", "{text}"], ["no known camera format"]),
        (["preview", "orbti", "--video", "{video}", "--depth", "{depth}"], ["orbti", "orbit"]),
        (["preview", "orbit:60", "--video", "none.mp4", "--depth", "plane"], ["none.mp4"]),
        (["preview", "{short}", "--video", "{video}", "--depth", "{depth}"], ["5 poses for 49 frames", "--frames 49"]),
        (["preview", "orbit:60", "--video", "{video}", "--depth", "{depth}", "--size-px", "2"], ["16 to 4096"]),
        (["suggest", "orbit:60", "--video", "{video}", "--depth", "{depth}"], ["{}"]),
        (["suggest", "orbit:yaw={}", "--video", "{video}", "--depth", "{depth}", "--budget", "3"], ["between 0 and 1"]),
        (["unknown"], ["convert, lint"]),
    ],
)
def test_one_line_and_exit_code_2(args, words, tmp_path, capsys, monkeypatch):
    if not SAMPLES[0].is_file():
        pytest.skip("no sample clip")
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    made = {"mirror": write_poses(tmp_path / "mirror.npz", mirror), "scale": write_poses(tmp_path / "scale.npz", scale)}
    made |= {
        "nan": write_poses(tmp_path / "nan.npz", nan),
        "short": write_poses(tmp_path / "short.npz", lambda p: None),
    }
    (tmp_path / "text.txt").write_text("buy milk\n")
    made |= {"text": tmp_path / "text.txt", "tmp": out, "video": SAMPLES[0], "depth": SAMPLES[1]}
    typed = [arg if arg in ("orbit:yaw={}",) else arg.format(**made) for arg in args]
    code, _, err = run(capsys, *typed)
    if not words:
        assert code in (0, 2)
        return
    assert code == 2, err
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("ex4d"), err
    for word in words:
        assert word in lines[0]
    assert not list(out.iterdir()), "nothing is left behind"


def test_convert_and_lint(tmp_path, capsys):
    code, out, _ = run(
        capsys,
        "convert",
        "orbit:yaw=40,in=20%",
        f"recammaster:{tmp_path / 'a.json'}",
        "--frames",
        "81",
        "--distance",
        "3",
    )
    assert code == 0 and "81 poses" in out
    assert (
        run(
            capsys,
            "convert",
            tmp_path / "a.json",
            f"colmap:{tmp_path / 'model'}",
            "--size",
            "640x480",
            "--focal",
            "500",
        )[0]
        == 0
    )
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == ["cameras.txt", "images.txt", "points3D.txt"]
    assert run(capsys, "lint", tmp_path / "model")[0] == 0
    assert run(capsys, "convert", tmp_path / "model", tmp_path / "b.json", "--frames", "49")[0] == 0
    document = json.loads((tmp_path / "b.json").read_text())
    assert len(document["frames"]) == 49 and document["axes"] == "opencv" and document["size_hw"] == [480, 640]
    code, out, _ = run(capsys, "lint", tmp_path / "b.json", "--frames", "81")
    assert code == 1 and "truncated" in out


def test_lint_names_a_mirror(tmp_path, capsys):
    code, out, _ = run(capsys, "lint", write_poses(tmp_path / "m.npz", mirror))
    assert code == 1 and "mirror" in out and len(out.strip().splitlines()) == 1


def test_preview_and_suggest_on_the_sample(tmp_path, capsys):
    if not SAMPLES[0].is_file():
        pytest.skip("no sample clip")
    clip = ["--video", SAMPLES[0], "--depth", SAMPLES[1]]
    code, out, _ = run(capsys, "preview", "180", *clip, "--out", tmp_path / "p", "--size-px", "64")
    assert code == 0 and "unseen" in out
    assert sorted(file.name for file in (tmp_path / "p").iterdir()) == ["plot.png", "report.json", "sheet.png"]
    report = json.loads((tmp_path / "p" / "report.json").read_text())
    assert len(report["unseen"]) == 49 and report["unseen"][0] == 0
    code, out, _ = run(capsys, "suggest", "orbit:yaw={}", *clip, "--budget", "0.3", "--limit", "60")
    assert code == 0 and out.startswith("orbit:yaw=")


def test_help_says_what_180_is(capsys):
    assert run(capsys, "list")[0] == 0
    assert main(["cameras", "list"]) == 0
    out = capsys.readouterr().out
    assert "45 degrees either way, not 180" in out and "recammaster" in out
