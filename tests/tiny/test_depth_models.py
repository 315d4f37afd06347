"""Depth models of every kind, tiny and random, offline, by the code path of the released checkpoints."""

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.depth.estimators.preprocess import Preprocess
from ex4d.depth.make import make_depth
from ex4d.errors import InputError, WeightsError
from ex4d.types import VideoClip

sys.path.insert(0, str(Path(__file__).parent))
import depth_models

SIZE = (90, 140)
BUILD = {
    "depth-anything-v2-small": ("depth-anything/Depth-Anything-V2-Small-hf", depth_models.depth_anything, "relative"),
    "depth-anything-v2-metric-indoor-small": (
        "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf",
        lambda folder: depth_models.depth_anything(folder, metric=True),
        "metric",
    ),
    "depth-pro": ("apple/DepthPro-hf", depth_models.depth_pro, "metric"),
    "zoedepth": ("Intel/zoedepth-nyu-kitti", depth_models.zoedepth, "metric"),
    "prompt-depth-anything-small": (
        "depth-anything/prompt-depth-anything-vits-hf",
        depth_models.prompt_depth_anything,
        "metric",
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A models folder with every model, tiny."""
    root = tmp_path_factory.mktemp("models")
    for repo, build, _ in BUILD.values():
        build(root / repo)
    return depth_models.depthcrafter(root)


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (5, *SIZE, 3), dtype=np.uint8)
    return [VideoClip(frames[:2], Fraction(25)), VideoClip(frames[2:], Fraction(25))]


@pytest.mark.parametrize("name", BUILD)
def test_a_released_layout_gives_depth_for_every_frame(models, clips, name):
    run = make_depth(name, size_hw=SIZE, models_dir=models, batch=2)
    out = list(run.estimate(clips))
    assert [len(clip) for clip in out] == [2, 3]
    for clip in out:
        assert clip.depth.shape[1:] == SIZE and clip.depth.dtype == np.float32
        assert np.isfinite(clip.depth).all() and (clip.depth > 0).all()
        assert clip.unit == BUILD[name][2]
    manifest = run.manifest()
    assert json.dumps(manifest) and manifest["model"] == name and "licence" in manifest["weights"]


def test_depth_pro_gives_its_focal_length_unless_the_user_knows_better(models, clips):
    (first, *_) = make_depth("depth-pro", size_hw=SIZE, models_dir=models).estimate(clips)
    assert abs(first.K[0, 0, 0] - 70 / np.tan(np.deg2rad(30))) < 3, "its head says about 60 degrees"
    (known, *_) = make_depth("depth-pro", size_hw=SIZE, models_dir=models, fov_deg=90).estimate(clips)
    np.testing.assert_allclose(known.K[0, 0, 0], 70, rtol=1e-5)


def test_a_prompt_sets_the_metres(models, clips):
    from ex4d.depth.estimators.given import DepthMaps

    prompt = np.linspace(2, 3, 5 * 12 * 16, dtype=np.float32).reshape(5, 12, 16)
    more = {"prompt": DepthMaps.of(prompt), "align": False, "models_dir": models}
    out = np.concatenate(
        [c.depth for c in make_depth("prompt-depth-anything-small", size_hw=SIZE, **more).estimate(clips)]
    )
    far = np.concatenate(
        [
            c.depth
            for c in make_depth(
                "prompt-depth-anything-small", size_hw=SIZE, **{**more, "prompt": DepthMaps.of(prompt * 10)}
            ).estimate(clips)
        ]
    )
    np.testing.assert_allclose(far, out * 10, rtol=1e-3)
    with pytest.raises(InputError, match="prompt"):
        make_depth("zoedepth", size_hw=SIZE, **more)


def test_depthcrafter_runs_shorter_than_a_window_longer_and_one_frame(models, clips):
    frames = np.concatenate([clip.frames for clip in clips])[:, :64, :64]
    for count, window in ((1, 3), (5, 8), (5, 3)):
        run = make_depth(
            "depthcrafter", size_hw=(64, 64), models_dir=models, window=window, overlap=1, steps=1, dtype="float32"
        )
        out = list(run.estimate([VideoClip(frames[:count], Fraction(25))], seed=3))
        assert out[0].depth.shape == (count, 64, 64)
        again = list(run.estimate([VideoClip(frames[:count], Fraction(25))], seed=3))
        np.testing.assert_array_equal(out[0].depth, again[0].depth)
    reference = make_depth("depthcrafter", size_hw=(64, 64), models_dir=models, steps=1, preset_reference=True)
    (clip,) = reference.estimate([VideoClip(frames, Fraction(25))])
    assert clip.K[0, 0, 0] == 500 and abs(clip.depth.min() - 10000 / 3900) < 1e-4 and clip.depth.max() == 10000


def test_finished_pieces_are_not_made_again(models, clips, tmp_path):
    run = make_depth("zoedepth", size_hw=SIZE, models_dir=models, work_dir=tmp_path)
    first = np.concatenate([clip.depth for clip in run.estimate(clips)])
    used = []
    handle = run.model.network.register_forward_pre_hook(lambda *_: used.append(1))
    again = np.concatenate([clip.depth for clip in run.estimate(clips)])
    handle.remove()
    assert not used
    np.testing.assert_array_equal(first, again)


def test_auto_takes_the_first_permissive_model(models, clips, monkeypatch, tmp_path):
    assert make_depth("auto", size_hw=SIZE, models_dir=models).name == "depth-anything-v2-small"
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("EX4D_MODELS", raising=False)
    monkeypatch.setattr("ex4d.models.embedded.load.FOLDER", tmp_path)  # as if the package came without its own
    with pytest.raises(WeightsError, match="ex4d models download video-depth-anything-small"):
        make_depth("auto", size_hw=SIZE, models_dir=tmp_path)


def test_the_hugging_face_cache_is_found_offline(models, clips, monkeypatch, tmp_path):
    snapshot = tmp_path / "hub" / "models--Intel--zoedepth-nyu-kitti" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(models / "Intel" / "zoedepth-nyu-kitti", target_is_directory=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert make_depth("zoedepth", size_hw=SIZE).name == "zoedepth"


@pytest.mark.parametrize("name", ["depth-pro", "depthcrafter"])
def test_missing_weights_name_one_command_and_the_size(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("EX4D_MODELS", raising=False)
    with pytest.raises(WeightsError, match=rf"\d+ MB under the licence .*ex4d models download {name}"):
        make_depth(name, size_hw=SIZE, models_dir=tmp_path)


def test_weights_of_another_model_are_refused(models, tmp_path):
    wrong = tmp_path / "apple" / "DepthPro-hf"
    wrong.parent.mkdir()
    wrong.symlink_to(models / "Intel" / "zoedepth-nyu-kitti", target_is_directory=True)
    with pytest.raises(WeightsError):
        make_depth("depth-pro", size_hw=SIZE, models_dir=tmp_path)
    torn = tmp_path / "Intel" / "zoedepth-nyu-kitti"
    torn.mkdir(parents=True)
    source = models / "Intel" / "zoedepth-nyu-kitti"
    for name in ("config.json", "preprocessor_config.json"):
        (torn / name).write_bytes((source / name).read_bytes())
    (torn / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(WeightsError):
        make_depth("zoedepth", size_hw=SIZE, models_dir=tmp_path)


@pytest.mark.parametrize("size_hw", [(90, 140), (480, 640), (640, 360), (33, 250)])
@pytest.mark.parametrize(
    "module, cls, settings",
    [
        (
            "dpt.image_processing_pil_dpt",
            "DPTImageProcessorPil",
            {"size": {"height": 518, "width": 518}, "ensure_multiple_of": 14, "resample": 3, **depth_models.IMAGENET},
        ),
        (
            "zoedepth.image_processing_pil_zoedepth",
            "ZoeDepthImageProcessorPil",
            {"size": {"height": 384, "width": 512}, "ensure_multiple_of": 32, "resample": 2, **depth_models.HALF},
        ),
    ],
)
def test_our_preprocessing_equals_transformers(module, cls, settings, size_hw):
    from importlib import import_module

    import cv2

    # Like a photograph: on raw noise Pillow clips the overshoot of the cubic filter between its two passes.
    coarse = np.random.default_rng(0).integers(40, 215, (12, 16, 3), dtype=np.uint8)
    frame = cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    settings = {**settings, "keep_aspect_ratio": True}
    theirs = getattr(import_module(f"transformers.models.{module}"), cls)(**settings)
    expected = theirs(images=frame, return_tensors="pt").pixel_values
    ours = Preprocess.of({**settings, "image_processor_type": cls})(torch.from_numpy(frame).permute(2, 0, 1)[None])
    assert ours.shape == expected.shape
    # one level of 255 where Pillow's fixed-point filter rounds the other way
    assert (ours - expected).abs().max() < 1.6 / 255 / min(settings["image_std"])
    assert (ours - expected).abs().mean() < 5e-3
