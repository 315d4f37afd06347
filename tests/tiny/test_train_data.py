"""Preparing data: what a shard holds, resuming, broken videos, filters, Ray; and training on what came out."""

import json
from dataclasses import replace

import numpy as np
import pytest
from train_parts import tiny_config, write_encoders, write_video

from ex4d.errors import InputError
from ex4d.train.data.shards import fingerprint, read_shards, split
from ex4d.train.masks.make import MaskRule
from ex4d.train.prepare.clips import ClipFilter, measure
from ex4d.train.prepare.prepare import PrepareConfig, fitted, prepare, read_captions
from ex4d.train.prepare.samples import hole_cells
from ex4d.types import DepthClip


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    return write_encoders(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mkv", 12)
    write_video(folder / "b.mkv", 6, seed=1)
    (folder / "broken.mp4").write_bytes(b"not a video")
    write_video(folder / "tiny.mkv", 3)
    write_video(folder / "still.mkv", 8, step=0)
    return folder


def config_for(encoders, **changes):
    settings = {"frames": 5, "size_hw": (32, 48), "depth": "plane", "masks": MaskRule(1), "filter": ClipFilter(5.0)}
    return PrepareConfig(str(encoders), **(settings | changes))


def test_a_folder_of_videos_becomes_shards_and_a_model_trains_on_them(encoders, videos, tmp_path, capsys):
    config = config_for(encoders)
    rows = {r.video: r for r in prepare(videos, tmp_path / "data", config)}
    assert rows["a.mkv"].clips == 2 and rows["b.mkv"].clips == 1
    assert "motion" in rows["still.mkv"].note and "longest shot" in rows["tiny.mkv"].note and rows["broken.mp4"].note
    assert len(capsys.readouterr().out.splitlines()) == 5
    samples = read_shards(tmp_path / "data")
    shapes = {name: a.shape for name, a in samples[0].arrays.items()}
    assert shapes == {
        "latents": (16, 2, 4, 6), "image_latents": (16, 2, 4, 6), "text": (1, 16),
        "color_latents": (4, 16, 2, 4, 6), "mask_latents": (4, 16, 2, 4, 6),
        "hole": (4, 2, 4, 6), "kind": (4,), "coverage": (4,),
    }  # fmt: skip
    assert (samples[0].arrays["hole"][:, 0] == 0).all(), "the first frame is whole"
    from train_parts import SIZES

    from ex4d.train.train import train

    training = tiny_config(tmp_path / "data", steps=2)
    sizes = {k: v for k, v in SIZES.items() if k not in ("image_dim", "added_kv_proj_dim")}
    training = replace(training, model=replace(training.model, sizes=sizes))
    assert train(training, tmp_path / "run", cpu=True).finished


def test_a_second_call_redoes_nothing_and_gives_the_same_bytes(encoders, videos, tmp_path):
    config = config_for(encoders)
    prepare(videos, tmp_path / "a", config)
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "a").glob("*.tar")}
    assert all(r.note == "already there" for r in prepare(videos, tmp_path / "a", config) if r.clips)
    assert before == {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "a").glob("*.tar")}
    shard = next((tmp_path / "a").glob("*.tar"))
    shard.unlink()
    prepare(videos, tmp_path / "a", config)
    assert shard.read_bytes() == before[shard.name][1]
    with pytest.raises(InputError, match="--out NEW"):
        prepare(videos, tmp_path / "a", replace(config, seed=1))


def test_captions_and_depth_files(encoders, videos, tmp_path):
    from fractions import Fraction

    from ex4d.io.depth.file import write_depth

    (tmp_path / "captions.csv").write_text("file,caption\nb.mkv,a red ball\n")
    depths = tmp_path / "depths"
    depths.mkdir()
    K = np.repeat(np.array([[[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]], np.float32), 6, 0)
    write_depth(depths / "b.npz", DepthClip(np.full((6, 48, 64), 3.0, np.float32), K), Fraction(10))
    config = config_for(encoders, depth=str(depths))
    rows = {r.video: r for r in prepare(videos, tmp_path / "data", config, captions=tmp_path / "captions.csv")}
    assert rows["b.mkv"].clips == 1 and "a.npz" in rows["a.mkv"].note
    (sample,) = read_shards(tmp_path / "data")
    assert sample.record["prompt"] == "a red ball" and sample.arrays["kind"].tolist() == [0, 1, 2, 3]


def test_depth_is_cropped_as_the_frames_are():
    K = np.repeat(np.array([[[100.0, 0, 32], [0, 100, 24], [0, 0, 1]]], np.float32), 3, 0)
    z = np.random.default_rng(0).uniform(1, 2, (3, 48, 64)).astype(np.float32)
    out = fitted(DepthClip(z, K), 1, 2, (24, 24))
    assert out.depth.shape == (2, 24, 24) and np.isin(out.depth, z[1:]).all()
    assert np.allclose(out.K[0], [[50, 0, 12], [0, 50, 12], [0, 0, 1]])


def test_hole_cells_count_what_is_unseen():
    mask = np.ones((9, 16, 24), bool)
    mask[1:5, :8, :8] = False
    mask[5, 8:, 16:20] = False
    cells = hole_cells(mask, (4, 8))
    assert cells.shape == (3, 2, 3) and not cells[0].any()
    assert cells[1, 0, 0] == 255 and cells[2, 1, 2] == round(255 / 8) and np.count_nonzero(cells) == 2


def test_held_out_clips_do_not_move_when_data_is_added(tmp_path):
    from train_parts import write_clips

    write_clips(tmp_path, 12, seed=0)
    held = {s.key for s in split(read_shards(tmp_path), 0.3)[1]}
    write_clips(tmp_path, 12, seed=1)
    samples = read_shards(tmp_path)
    train, both = split(samples, 0.3)
    assert held and held <= {s.key for s in both} and not {s.key for s in train} & {s.key for s in both}
    assert fingerprint(samples) != fingerprint(samples[:-1])


def test_measures_tell_stills_blur_and_black_apart():
    sharp = np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3)).astype(np.uint8)
    black = np.zeros_like(sharp)
    import cv2

    blurred = np.stack([cv2.GaussianBlur(f, (0, 0), 8) for f in sharp])
    rule = ClipFilter()
    assert "contrast" in measure(black).refusal(rule) and "sharpness" in measure(blurred + 0).refusal(
        replace(rule, min_contrast=0)
    )
    assert "motion" in measure(np.repeat(sharp[:1], 3, 0)).refusal(rule)


@pytest.mark.parametrize("text", ["{", "[1]", '{"a.mkv": 3}', '{"other.mp4": "x"}'])
def test_wrong_captions(text, videos, tmp_path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match="captions"):
        read_captions(tmp_path / "c.json", sorted(videos.glob("*.mkv")))


def test_reports_are_written(encoders, videos, tmp_path):
    rows = prepare(videos, tmp_path, config_for(encoders, depth="none"))
    assert len(json.loads((tmp_path / "report.json").read_text())) == len(rows) == 5
    assert {k for s in read_shards(tmp_path) for k in s.arrays["kind"].tolist()} == {2, 3}
