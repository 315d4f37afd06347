"""Protocols on small folders of outputs: pairing by every tool's naming, scores, resume, several systems, FID and FVD."""

import json
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from ex4d.cli.main import main
from ex4d.errors import InputError, ResourceError, WeightsError
from ex4d.evaluate.metrics.camera import PnpEstimator, error_where_placed
from ex4d.evaluate.metrics.features import load_features, read_features
from ex4d.evaluate.metrics.lpips import ALEX, VGG, Lpips
from ex4d.evaluate.metrics.vbench import run_vbench
from ex4d.evaluate.protocols.folders import Options, evaluate_folders
from ex4d.evaluate.protocols.loaders import find_outputs
from ex4d.evaluate.protocols.protocol import load_protocol, protocol_names
from ex4d.evaluate.protocols.score import Tools
from ex4d.evaluate.rendered import geometry
from ex4d.evaluate.rendered.references import make_references
from ex4d.evaluate.study.study import analyse_study, make_study, study_table
from ex4d.io.video.read import VideoWriter, read_video
from ex4d.render.cpu.rasterizer import CpuRasterizer
from ex4d.scenes.scene import make_scene
from ex4d.types import VideoClip

RASTERIZER = CpuRasterizer()
SIZE = 48


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("ex4d.evaluate.protocols.folders.MANY_RESAMPLES", 8)


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    folder = tmp_path_factory.mktemp("references")
    make_references(folder, (3, 4), (30.0, 60.0), (SIZE, SIZE), 4, RASTERIZER)
    return folder


@pytest.fixture(scope="module")
def systems(references, tmp_path_factory):
    """Two systems: the truth with a little noise, and with much."""
    root = tmp_path_factory.mktemp("systems")
    for name, noise in (("mild", 4), ("rough", 50)):
        for reference in sorted(references.glob("scene*")):
            clip = read_video(reference / "target.mkv")
            noisy = np.clip(clip.frames + np.random.default_rng(0).normal(0, noise, clip.frames.shape), 0, 255)
            write(root / name / reference.name / "output.mkv", noisy.astype(np.uint8), lossless=True)
    return [root / "mild", root / "rough"]


def write(path, frames, lossless=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, Fraction(24), lossless=lossless) as writer:
        writer.write(frames)


def table(report):
    return {(r["system"], r["group"], r["metric"]): r for r in report["summary"]}


TOOLS = Tools(load_features("random"), load_features("random"))


def test_two_systems_are_scored_and_ranked_and_a_second_run_reads_what_was_kept(
    references, systems, tmp_path, monkeypatch
):
    options = Options(references, tools=TOOLS)
    report = evaluate_folders(load_protocol("rendered"), systems, tmp_path, options)
    rows = table(report)
    assert not report["failures"] and len(report["items"]) == 8
    for metric, better in (("psnr", 1), ("psnr_seen", 1), ("psnr_hole", 1), ("ssim", 1), ("gmsd", -1), ("excess_flicker", -1), ("warp_error", -1), ("fid", -1), ("fvd", -1), ("kid", -1)):  # fmt: skip
        mild, rough = (rows[s, "all", metric] for s in ("mild", "rough"))
        assert better * (mild["mean"] - rough["mean"]) > 0, metric
        assert mild["n"] == 4 and mild["resolution"] == f"{SIZE}x{SIZE}"
    assert rows["mild", "30", "psnr"]["low"] <= rows["mild", "30", "psnr"]["mean"] <= rows["mild", "30", "psnr"]["high"]

    monkeypatch.setattr("ex4d.evaluate.protocols.folders._score", lambda *_: pytest.fail("scored again"))
    again = evaluate_folders(load_protocol("rendered"), systems, tmp_path, options)
    assert {k: v["mean"] for k, v in table(again).items()} == {k: v["mean"] for k, v in rows.items()}


def test_identical_videos_score_perfectly(references, tmp_path):
    for reference in references.glob("scene*"):
        write(
            tmp_path / "same" / reference.name / "output.mkv",
            read_video(reference / "target.mkv").frames,
            lossless=True,
        )
    report = evaluate_folders(
        load_protocol("rendered"), [tmp_path / "same"], tmp_path / "out", Options(references, tools=TOOLS)
    )
    for item in report["items"]:
        m = item["metrics"]
        assert m["psnr"] == np.inf and m["ssim"] == pytest.approx(1) and m["gmsd"] == 0 and m["excess_flicker"] == 0
    rows = table(report)
    assert rows["same", "all", "fid"]["mean"] == pytest.approx(0, abs=1e-5)
    assert rows["same", "all", "fvd"]["mean"] == pytest.approx(0, abs=1e-5)


def test_seeds_of_one_clip_give_a_spread(references, tmp_path):
    clip = read_video(references / "scene3_30" / "target.mkv")
    for seed, level in ((1, 5), (2, 15), (3, 30)):
        shifted = np.clip(clip.frames.astype(int) + level, 0, 255).astype(np.uint8)
        write(tmp_path / "v" / "scene3_30" / f"video_seed={seed}.mkv", shifted, lossless=True)
    report = evaluate_folders(load_protocol("rendered"), [tmp_path / "v"], tmp_path / "out", Options(references))
    row = table(report)["v", "30", "psnr"]
    assert report["systems"][0]["loader"] == "vista4d" and row["n"] == 3 and row["seed_sd"] > 3


NAMINGS = {
    "ex4d": ("dog/30/output.mp4", "dog", "30"),
    "ex-4d": ("dog/output_180.mp4", "dog", "180"),
    "trajectorycrafter": ("dog_30/gen.mp4", "dog", "30"),
    "recammaster": ("cam_type9/video0.mp4", "video0", "9"),
    "redirector": ("bear_camera_10_speed_1.mp4", "bear", "10"),
    "vista4d": ("couple_dolly/video_seed=7.mp4", "couple_dolly", ""),
    "neoverse": ("dog/inference.mp4", "dog", ""),
    "flat": ("dog_30.mp4", "dog", "30"),
    "frames": ("mural4/0001.png", "mural4", ""),
}


@pytest.mark.parametrize("tool", NAMINGS)
def test_every_tools_naming_is_found_by_itself(tool, tmp_path):
    name, clip, group = NAMINGS[tool]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    for beside in ("input.mp4", "render.mp4", "mask.mp4"):
        if tool == "trajectorycrafter":
            (path.parent / beside).write_bytes(b"x")
    used, outputs = find_outputs(tmp_path, "auto", ["30", "180", "9", "10"])
    assert used == tool and [(o.clip, o.group) for o in outputs] == [(clip, group)]
    assert find_outputs(tmp_path, tool, ["30"])[1]


def test_shipped_protocols_load_and_say_what_they_score():
    assert set(protocol_names()) == {"davis-50x10", "ex4d", "iphone-ptz", "kubric4d", "redirect4d", "rendered"}
    for name in protocol_names():
        protocol = load_protocol(name)
        assert protocol.metrics and protocol.cautions
    ex4d = load_protocol("ex4d")
    assert [ex4d.angle_of(g) for g in ("small", "large", "extreme", "full")] == [30, 60, 90, 90]
    assert ex4d.expected_items == 150


def test_silhouettes_of_the_redirect_layout(tmp_path):
    truth = np.zeros((3, 32, 32, 3), np.uint8)
    truth[:, 8:24, 8:24] = 255
    claimed = np.roll(truth, 4, axis=2)
    case = "bear_seq1_yaw_120_pitch_0_roll_0_scale_1"
    write(tmp_path / "data/bear_seq1/redirected/yaw_120_pitch_0_roll_0_scale_1/mask.mkv", truth, lossless=True)
    protocol = load_protocol("redirect4d")
    (tmp_path / "p.yaml").write_text(
        "name: r\ntitle: r\nreference: silhouette\nmetrics: [silhouette]\n"
        'reference_files: ["{track}/redirected/{trajectory}/mask.mkv"]\n'
    )
    assert "{track}/redirected/{trajectory}/mask.mp4" in protocol.reference_files
    write(tmp_path / "mine" / f"{case}.mkv", claimed, lossless=True)
    report = evaluate_folders(
        load_protocol(str(tmp_path / "p.yaml")), [tmp_path / "mine"], tmp_path / "o", Options(tmp_path / "data")
    )
    assert report["items"][0]["metrics"]["silhouette_iou"] == pytest.approx(12 / 20)


def test_the_pose_estimator_places_the_true_video():
    scene = make_scene(8, "room")
    size = (200, 200)
    video, depth = scene.source_clip(size, 2, RASTERIZER)
    path = scene.orbit(12, size, 2)
    K = scene.intrinsics(size)
    views = [scene.render(t, path.cam_from_world[t], K, size, RASTERIZER).color for t in range(2)]
    estimate = PnpEstimator(video, depth, K).estimate(VideoClip(np.stack(views), video.fps))
    error, placed = error_where_placed(estimate, path.cam_from_world, "none")
    assert placed == 1 and error is not None and error.rot_deg < 0.5 and error.trans < 0.03 * scene.pivot_depth


def test_torchscript_features_are_called_the_way_their_kind_wants(tmp_path):
    class Inception(torch.nn.Module):
        def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            assert return_features
            return x.float().mean((2, 3))

    class I3d(torch.nn.Module):
        def forward(
            self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
        ) -> torch.Tensor:
            assert rescale and resize and return_features
            return x.mean((3, 4)).flatten(1)

    frames = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)
    for network, name in ((Inception(), "inception.pt"), (I3d(), "i3d.pt")):
        torch.jit.script(network).save(str(tmp_path / name))
    picture, clip = (load_features(str(tmp_path / n)) for n in ("inception.pt", "i3d.pt"))
    np.testing.assert_allclose(picture.of_frames(frames), frames.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(clip.of_clip(frames), frames.mean((1, 2)).T.reshape(-1), rtol=1e-5)
    with pytest.raises(InputError, match="16 frames"):
        clip.of_clip(frames[:4])
    (tmp_path / "no.pt").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="not TorchScript"):
        load_features(str(tmp_path / "no.pt"))
    np.save(tmp_path / "f.npy", np.ones((3, 2)))
    assert read_features(tmp_path / "f.npy").shape == (3, 2)


@pytest.mark.parametrize(("slices", "kernels"), [(ALEX, {0: 11, 3: 5}), (VGG, {})])
def test_lpips_reads_the_packages_naming_and_is_zero_for_equal_pictures(slices, kernels, tmp_path):
    generator, state, channels = torch.Generator().manual_seed(0), {}, 3
    for i, layers in enumerate(slices):
        for layer in layers:
            if not isinstance(layer, str):
                side = kernels.get(layer[0], 3)
                state[f"net.slice{i + 1}.{layer[0]}.weight"] = (
                    torch.randn(8, channels, side, side, generator=generator) * 0.2
                )
                state[f"net.slice{i + 1}.{layer[0]}.bias"] = torch.zeros(8)
                channels = 8
        state[f"lin{i}.model.1.weight"] = torch.rand(1, 8, 1, 1, generator=generator)
    torch.save(state, tmp_path / "w.pth")
    lpips = Lpips(tmp_path / "w.pth")
    a = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    near = np.clip(a.astype(int) + 5, 0, 255).astype(np.uint8)
    assert lpips(a, a) == 0 and 0 < lpips(a, near) < lpips(a, a[::-1].copy())
    del state["lin3.model.1.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="lin3"):
        Lpips(tmp_path / "w.pth")


def test_vbench_runs_in_its_own_interpreter(tmp_path):
    """A stand-in interpreter that writes the file vbench writes: the call, the parsing and the failure are ours."""
    fake = tmp_path / "python"
    fake.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nfolder, out, names = sys.argv[3], sys.argv[4], sys.argv[6].split(',')\n"
        "found = sorted(os.listdir(folder))\nassert found, 'no videos'\n"
        "scores = {n: [0.5, [{'video_path': f'{folder}/{v}', 'video_results': 0.5} for v in found]] for n in names}\n"
        "json.dump(scores, open(f'{out}/scores_eval_results.json', 'w'))\n"
    )
    fake.chmod(0o755)
    videos = tmp_path / "videos"
    videos.mkdir()
    with pytest.raises(ResourceError, match="no videos"):
        run_vbench(fake, videos)
    (videos / "a.mp4").write_bytes(b"")
    assert run_vbench(fake, videos, ("imaging_quality",)) == {"imaging_quality": {"a.mp4": 0.5}}
    with pytest.raises(ResourceError, match="does not exist"):
        run_vbench(tmp_path / "none", videos)


def test_the_geometry_tier_finds_what_the_representations_are_known_for():
    rows = geometry.run_tier((2, 3), (45.0,), 96, RASTERIZER)
    by = {(r.seed, r.representation): r for r in rows}
    assert len(by) == 8
    for seed in (2, 3):
        default, reference, points, plain = (by[seed, name] for name in geometry.representations(RASTERIZER))
        assert default.psnr_claimed > reference.psnr_claimed and default.precision > reference.precision
        assert default.precision > points.precision and default.precision > plain.precision
        assert plain.coverage > default.coverage
    text = geometry.tier_table(rows)
    assert text.count("| 45 |") == 4 and "does not win" in text


def test_point_splatting_of_the_source_view_is_the_source():
    scene = make_scene(2, "room")
    size = (48, 64)
    source, K = scene.source(0, size, RASTERIZER), scene.intrinsics(size)
    view = geometry.View(source.color, source.depth, K, None, np.eye(4), K, size)  # type: ignore[arg-type]
    frame = geometry.splat_points(view)
    inner = (slice(1, -1), slice(1, -1))
    assert frame.mask[inner].all()
    assert np.abs(frame.color[inner].astype(int) - source.color[inner]).max() <= 1
    np.testing.assert_allclose(frame.depth[inner], source.depth[inner], rtol=1e-5)


def test_a_user_study_is_blind_and_its_analysis_counts_right(tmp_path):
    clip = np.zeros((2, 32, 32, 3), np.uint8)
    for system in ("ours", "theirs"):
        for name in ("quokka", "zebra", "walrus"):
            write(tmp_path / system / f"{name}.mp4", clip)
    out = tmp_path / "study"
    assert make_study([tmp_path / "ours", tmp_path / "theirs"], out) == 3
    page, key = (out / "index.html").read_text(), json.loads((out / "key.json").read_text())
    assert "ours" not in page and "theirs" not in page and "quokka" not in page
    assert "http" not in page.replace("<!doctype", "")
    people = []
    for person in range(4):
        answers = [
            {
                "pair": int(p),
                "question": 0,
                "choice": "a" if (v["a"] == "ours") == (person > 0) else "b",
                "swapped": bool(person % 2),
            }
            for p, v in key["pairs"].items()
        ]
        people.append(tmp_path / f"answers{person}.json")
        people[-1].write_text(json.dumps({"study": key["study"], "participant": str(person), "answers": answers}))
    (row,) = analyse_study(out / "key.json", people)["preferences"]
    assert row["system"] == "ours" and row["preferred"] == 0.75 and row["answers"] == 12 and row["participants"] == 4
    assert row["low"] < 0.5 < row["high"]
    assert "75.0%" in study_table(analyse_study(out / "key.json", people))
    people[0].write_text(json.dumps({"study": "another", "answers": []}))
    with pytest.raises(InputError, match="belongs to study another"):
        analyse_study(out / "key.json", people)


def test_the_command_runs_the_tier_and_the_study(tmp_path, capsys):
    assert (
        main(["evaluate", "geometry", "--seeds", "2", "--angles", "30", "--size", "48", "--out", str(tmp_path / "g")])
        == 0
    )
    report = json.loads((tmp_path / "g" / "report.json").read_text())
    assert len(report["systems"]) == 4 and report["groups"]["30"]["angle_deg"] == 30
    assert "point splatting" in capsys.readouterr().out


def test_what_differs_from_the_protocol_is_said(tmp_path):
    for seed, name in enumerate(("dog", "cow", "elk")):
        clip = np.random.default_rng(seed).integers(0, 200 + 20 * seed, (20, 64, 64, 3)).astype(np.uint8)
        write(tmp_path / "videos" / f"{name}.mp4", clip)
        write(tmp_path / "mine" / f"{name}_small.mp4", np.clip(clip + 9.0, 0, 255).astype(np.uint8))
    options = Options(tmp_path / "videos", tools=TOOLS)
    report = evaluate_folders(load_protocol("ex4d"), [tmp_path / "mine"], tmp_path / "out", options)
    text = " ".join(report["cautions"])
    assert "3 of the protocol's 150 clips" in text and "20 frames; the protocol has 49" in text
    assert "64x64; the protocol has 512x512" in text and "vbench belongs to this protocol but was not scored" in text
    assert {i["clip"] for i in report["items"]} == {"dog", "cow", "elk"}
    row = table(report)["mine", "small", "fvd"]
    assert row["mean"] > 0 and row["low"] <= row["mean"] <= row["high"] and row["n"] == 3
