"""The whole line with files: outputs, equality of `run` and its stages, resume, Ctrl-C, streaming."""

import json
from fractions import Fraction

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.io.depth.file import open_depth, write_depth
from ex4d.io.video.read import VideoWriter, read_video
from ex4d.pipeline.config import RenderOptions, RunConfig
from ex4d.pipeline.folder import RenderFolder
from ex4d.pipeline.line import generate, reconstruct
from ex4d.pipeline.run import run_stages
from ex4d.types import DepthClip, VideoClip

FRAMES, H, W = 9, 48, 64


@pytest.fixture
def clip(tmp_path):
    rng = np.random.default_rng(0)
    wall = np.kron(rng.integers(60, 200, (H // 8, W // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    frames = np.repeat(wall[None], FRAMES, axis=0)
    depth = np.full((FRAMES, H, W), 5, np.float32)
    for t in range(FRAMES):
        frames[t, 16:32, 8 + 4 * t : 18 + 4 * t] = 20
        depth[t, 16:32, 8 + 4 * t : 18 + 4 * t] = 2
    with VideoWriter(tmp_path / "in.mkv", Fraction(24), lossless=True) as writer:
        writer.write(frames)
    K = np.tile(np.array([[W, 0, W / 2], [0, W, H / 2], [0, 0, 1]], np.float32), (FRAMES, 1, 1))
    write_depth(tmp_path / "d.npz", DepthClip(depth, K), Fraction(24))
    return tmp_path, VideoClip(frames, Fraction(24)), DepthClip(depth, K)


def run(folder, *more):
    files = [str(folder / "in.mkv"), "--depth", str(folder / "d.npz"), "--out", str(folder / "out")]
    return main(["run", *files, "--preset", "fill", *more])


def test_run_writes_what_the_library_computes(clip, capsys):
    folder, video, depth = clip
    assert run(folder, "--camera", "orbit:30", "--rasterizer", "cpu") == 0
    out = folder / "out"
    names = {p.name for p in out.iterdir() if p.is_file()}
    assert names >= {"output.mp4", "color.mkv", "mask.mkv", "depth.npz", "cameras.json", "manifest.json", "preview.png"}
    assert not [n for n in names if "tmp" in n]
    render = reconstruct(video, depth, "orbit:30", RenderOptions(rasterizer="cpu"))
    stored = list(RenderFolder(out).chunks())
    np.testing.assert_array_equal(np.concatenate([c.color for c in stored]), render.color)
    np.testing.assert_array_equal(np.concatenate([c.mask for c in stored]), render.mask)
    np.testing.assert_allclose(stored[0].path.cam_from_world, render.path.cam_from_world)
    made = read_video(out / "output.mp4")
    assert made.fps == 24 and made.frames.shape == video.frames.shape
    expected = generate(render, "fill").frames
    assert np.abs(made.frames.astype(int) - expected).mean() < 8, "H.264 keeps the picture"
    record = json.loads((out / "manifest.json").read_text())
    assert record["seed"] == 0 and record["config"]["camera"] == "orbit:30"
    assert set(record["inputs"]) == {"video", "depth"} and len(record["inputs"]["video"]["sha256"]) == 64


def test_a_second_run_keeps_what_is_valid(clip, capsys):
    folder, _, _ = clip
    assert run(folder, "--camera", "orbit:30") == 0
    before = (folder / "out" / "output.mp4").stat().st_mtime_ns
    assert run(folder, "--camera", "orbit:30") == 0
    assert "depth kept, render kept, generate kept" in capsys.readouterr().out
    assert (folder / "out" / "output.mp4").stat().st_mtime_ns == before
    assert run(folder, "--camera", "orbit:20") == 0
    assert "depth kept, render" in capsys.readouterr().out
    assert (folder / "out" / "output.mp4").stat().st_mtime_ns != before


def test_stages_one_by_one_give_the_same_output(clip):
    folder, _, _ = clip
    assert run(folder, "--camera", "dolly:in=20%") == 0
    whole = (folder / "out" / "output.mp4").read_bytes()
    stage = folder / "stages"
    args = [str(folder / "in.mkv"), "--depth", str(folder / "d.npz"), "--out", str(stage), "--camera", "dolly:in=20%"]
    assert main(["render", *args]) == 0 and not (stage / "output.mp4").exists()
    assert main(["generate", str(stage), "--preset", "fill"]) == 0
    assert (stage / "output.mp4").read_bytes() == whole


def test_stopping_leaves_no_half_file_and_the_next_call_goes_on(clip):
    folder, _, _ = clip
    config = RunConfig(folder / "out", camera="orbit:25", depth=str(folder / "d.npz"), preset="fill")

    def stop(done, _total, what):
        if what == "rendering" and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(folder / "in.mkv", config, progress=stop)
    left = sorted(p.name for p in (folder / "out").iterdir() if p.is_file())
    assert left == ["depth.npz"]
    result = run_stages(folder / "in.mkv", config)
    assert result.seconds["depth"] == 0 and result.seconds["render"] > 0


def test_reverse_and_freeze_read_backwards(clip):
    folder, video, depth = clip
    render = reconstruct(video, depth, "static @ reverse", RenderOptions(rasterizer="cpu"))
    assert run(folder, "--camera", "static @ reverse", "--rasterizer", "cpu") == 0
    stored = np.concatenate([c.color for c in RenderFolder(folder / "out").chunks()])
    np.testing.assert_array_equal(stored, render.color)
    np.testing.assert_array_equal(stored[0], video.frames[-1])


def test_reference_keeps_the_first_frame_whole(clip):
    folder, video, _ = clip
    assert run(folder, "--camera", "60", "--reference") == 0
    first = next(RenderFolder(folder / "out").chunks())
    assert first.mask[0].all() and not first.mask[1].all()
    np.testing.assert_array_equal(first.color[0], video.frames[0])


def test_a_part_of_the_video_takes_its_part_of_the_depth(clip):
    folder, _, depth = clip
    assert run(folder, "--camera", "static", "--start", "0.125", "--frames", "4") == 0
    np.testing.assert_array_equal(open_depth(folder / "out" / "depth.npz").read(0, 4), depth.depth[3:7])


def test_the_released_180_says_that_it_is_none(clip, capsys):
    folder, _, _ = clip
    assert run(folder, "--camera", "180") == 0
    assert "45" in capsys.readouterr().err
    assert "45" in " ".join(json.loads((folder / "out" / "manifest.json").read_text())["warnings"])


def test_a_shot_cut_is_named(tmp_path, capsys):
    rng = np.random.default_rng(1)
    shots = [np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(2)]
    with VideoWriter(tmp_path / "cut.mkv", Fraction(24), lossless=True) as writer:
        for shot in shots:
            writer.write(np.repeat(shot[None], 12, axis=0))
    args = [str(tmp_path / "cut.mkv"), "--depth", "plane", "--out", str(tmp_path / "out"), "--camera", "static"]
    for _ in range(2):  # the second call keeps the stage and still says so
        assert main(["render", *args]) == 0
        assert "a new shot begins at frame 12" in capsys.readouterr().err


def test_mesh_command_writes_meshes(clip):
    folder, _, _ = clip
    args = [
        "mesh",
        str(folder / "in.mkv"),
        "--depth",
        str(folder / "d.npz"),
        "--out",
        str(folder / "m"),
        "--every",
        "4",
    ]
    assert main([*args, "--format", "glb"]) == 0
    assert sorted(p.name for p in (folder / "m").glob("*.glb")) == [f"mesh_{i:06d}.glb" for i in (0, 4, 8)]


def test_plane_depth_needs_no_file(clip):
    folder, _, _ = clip
    out = folder / "p"
    assert (
        main(
            ["run", str(folder / "in.mkv"), "--depth", "plane", "--preset", "fill", "--frames", "5", "--out", str(out)]
        )
        == 0
    )
    assert open_depth(out / "depth.npz").num_frames == 5


def test_a_pair_of_the_release_is_completed_without_depth_or_cameras(tmp_path, capsys):
    rng = np.random.default_rng(2)
    frames = np.repeat(np.kron(rng.integers(0, 255, (1, 6, 8, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8), 5, axis=0)
    mask = np.full((5, 48, 64, 3), 255, np.uint8)
    mask[1:, :, 40:] = 0
    for name, video in (("color_60.mp4", frames * (mask > 0)), ("mask_60.mp4", mask)):
        with VideoWriter(tmp_path / name, Fraction(30)) as writer:
            writer.write(video)
    assert main(["generate", str(tmp_path), "--preset", "fill", "--out", str(tmp_path / "out")]) == 0
    (clip,) = RenderFolder(tmp_path).chunks()
    assert clip.mask[0].all() and not clip.mask[1:, :, 42:].any() and np.isinf(clip.depth).all()
    made = read_video(tmp_path / "out" / "output.mp4")
    assert made.frames[2, :, 44:].mean() > 40, "the unseen part is filled, not black"
