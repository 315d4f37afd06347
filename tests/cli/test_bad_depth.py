"""`ex4d depth` with input that cannot be used: exit code 2, one line that says what to do, nothing half-written."""

from fractions import Fraction

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.depth.make import depth_way, make_depth
from ex4d.errors import InputError
from ex4d.io.video.read import VideoWriter
from ex4d.pipeline.depth_stage import repairs_edges

SIZE = (48, 64)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, Fraction(25)) as writer:
        writer.write(rng.integers(0, 255, (4, *SIZE, 3), dtype=np.uint8))
    return path


def good(**change):
    depth = np.linspace(4, 2, 48, dtype=np.float32)[None, :, None] * np.ones((4, 1, 64), np.float32)
    return {"depth": depth, "unit": "relative", **change}


def run(capfd, video, tmp_path, *args):
    code = main(["depth", str(video), "--out", str(tmp_path / "out"), "--no-preview", *map(str, args)])
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("ex4d:")]
    left = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) if (tmp_path / "out").exists() else []
    return code, error, left


def refuses(capfd, video, tmp_path, *args, says):
    code, error, left = run(capfd, video, tmp_path, *args)
    assert code == 2
    assert len(error) == 1 and says in error[0], error
    assert "try:" in error[0] or "need" in error[0]
    assert left == []


def npz(tmp_path, **arrays):
    path = tmp_path / "depth.npz"
    np.savez(path, **arrays)
    return path


def test_good_depth_is_written_with_preview_and_numbers(capfd, video, tmp_path):
    path = npz(tmp_path, **good())
    code = main(["depth", str(video), "--out", str(tmp_path / "out"), "--model", str(path), "--confidence"])
    assert code == 0
    names = {p.name for p in (tmp_path / "out").iterdir() if p.is_file()}
    assert names == {"depth.npz", "depth_preview.mp4", "depth_manifest.json", "confidence.npz"}
    with np.load(tmp_path / "out" / "depth.npz") as out:
        np.testing.assert_array_equal(out["depth"], good()["depth"])


def spoiled(value, frame=2):
    depth = good()["depth"].copy()
    depth[frame, 3, 5] = value
    return depth


@pytest.mark.parametrize(
    "change, says",
    [
        ({"depth": spoiled(np.nan)}, "NaN or infinite depth in frame 2"),
        ({"depth": spoiled(np.inf)}, "NaN or infinite depth in frame 2"),
        ({"depth": spoiled(0)}, "zero or negative depth in frame 2"),
        ({"depth": spoiled(-1)}, "zero or negative depth in frame 2"),
        ({"depth": np.full((4, 48, 64), 3, np.float32), "unit": "disparity"}, "same value 3"),
        ({"depth": good()["depth"][:3]}, "3 depth maps"),
        ({"depth": np.concatenate([good()["depth"]] * 2)}, "8 depth maps"),
        ({"depth": good()["depth"][:, :, :20]}, "depth"),
        ({"unit": "furlongs"}, "furlongs"),
        ({"K": np.full((3, 3), np.nan)}, "K of shape"),
        ({"K": np.eye(3)}, "focal length 1"),
        ({"cam_from_world": np.tile(np.diag([-1.0, 1, 1, 1]), (4, 1, 1))}, "mirror"),
        ({"cam_from_world": np.tile(np.diag([2.0, 2, 2, 1]), (4, 1, 1))}, "scaled or sheared"),
        ({"cam_from_world": np.full((4, 4, 4), np.nan)}, "NaN"),
    ],
)
def test_depth_files_that_cannot_be_used(capfd, video, tmp_path, change, says):
    refuses(capfd, video, tmp_path, "--model", npz(tmp_path, **good(**change)), says=says)


def test_a_grey_video_is_disparity(capfd, video, tmp_path):
    ramp = np.linspace(20, 230, 48, dtype=np.uint8)[None, :, None, None] * np.ones((4, 1, 64, 3), np.uint8)
    with VideoWriter(tmp_path / "disparity.mkv", Fraction(25), lossless=True) as writer:
        writer.write(ramp)
    code, _, _ = run(capfd, video, tmp_path, "--model", tmp_path / "disparity.mkv")
    assert code == 0
    with np.load(tmp_path / "out" / "depth.npz") as out:
        depth = out["depth"]
    assert (np.diff(depth[0, :, 5]) < 0).all(), "white is near"
    np.testing.assert_allclose(depth[0, 0, 0] / depth[0, -1, 0], 35, rtol=0.01)
    refuses(capfd, video, tmp_path / "again", "--model", tmp_path / "disparity.mkv", "--frames", 3, says="4 depth maps")


def test_a_flat_wall_is_depth_but_is_remarked_on(capfd, video, tmp_path):
    path = npz(tmp_path, **good(depth=np.full((4, 48, 64), 3, np.float32)))
    assert main(["depth", str(video), "--out", str(tmp_path / "out"), "--no-preview", "--model", str(path)]) == 0
    assert "same depth 3" in capfd.readouterr().err


def test_holes_are_filled_on_request(capfd, video, tmp_path):
    path = npz(tmp_path, **good(depth=spoiled(np.nan)))
    code, _, left = run(capfd, video, tmp_path, "--model", path, "--fill-holes")
    assert code == 0 and "depth.npz" in left
    with np.load(tmp_path / "out" / "depth.npz") as out:
        assert np.isfinite(out["depth"]).all() and abs(out["depth"][2, 3, 5] - good()["depth"][2, 3, 5]) < 0.1


def test_an_exr_that_is_none(capfd, video, tmp_path):
    (tmp_path / "maps").mkdir()
    for i in range(4):
        (tmp_path / "maps" / f"{i:05d}.exr").write_bytes(b"v/1\x01 not an exr")
    refuses(capfd, video, tmp_path, "--model", tmp_path / "maps", says=".exr")


@pytest.mark.parametrize(
    "args, says",
    [
        (["--model", "depth-nothing"], "depth-nothing"),
        (["--model", "plane:tilt=high"], "tilt"),
        (["--model", "plane", "--fov", "180"], "180"),
        (["--model", "plane", "--source-cameras", "nowhere.json"], "nowhere.json"),
        (["--model", "depthcrafter"], "ex4d models download depthcrafter"),
        (["--model", "depth-pro"], "1905 MB"),
    ],
)
def test_options_that_cannot_be_used(capfd, video, tmp_path, monkeypatch, args, says):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("EX4D_MODELS", raising=False)
    refuses(capfd, video, tmp_path, *args, says=says)


def test_a_clip_of_one_frame(capfd, video, tmp_path):
    code, _, left = run(capfd, video, tmp_path, "--model", "plane", "--frames", 1, "--source-cameras", "estimate")
    assert code == 0 and "depth.npz" in left


def test_the_licence_table_needs_no_video(capfd):
    assert main(["depth", "--list-models"]) == 0
    out = capfd.readouterr().out
    assert "Apache-2.0" in out and "non-commercial" in out and "depthcrafter" in out


def test_no_video(capfd):
    assert main(["depth"]) == 2
    assert "no video" in capfd.readouterr().err


def test_options_of_networks_with_a_plane_or_a_file_are_refused(capfd, video, tmp_path):
    refuses(capfd, video, tmp_path, "--model", "plane", "--steps", 3, says="steps with plane")
    refuses(capfd, video, tmp_path, "--model", npz(tmp_path, **good()), "--batch", 2, "--device", "cpu", says="batch, device")  # fmt: skip
    for spec in ("plane", "nano", "zoedepth"):
        with pytest.raises(InputError, match="bogus"):
            make_depth(spec, size_hw=SIZE, bogus=1)


def test_names_come_before_folders_that_are_called_like_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("nano", "zoedepth", "plane", "auto"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "plane_depth.npz", **good())
    ways = {
        name: depth_way(name)
        for name in ("nano", "zoedepth", "auto", "plane", "plane:tilt=5", "./nano", "plane_depth.npz", "no")
    }
    assert ways == {
        "nano": "model",
        "zoedepth": "model",
        "auto": "model",
        "plane": "plane",
        "plane:tilt=5": "plane",
        "./nano": "brought",
        "plane_depth.npz": "brought",
        "no": None,
    }
    repaired = {name for name in ways if repairs_edges(name, None, reference=False)}
    assert repaired == {"nano", "zoedepth", "auto"}, "only what a network makes has flying pixels"
