"""Bad input to `--preset wan14b` and `ex4d models`: one line that says what was got, what is needed and what to type; nothing left."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ex4d.cli.main import main
from ex4d.io.video.read import VideoWriter

FRAMES, H, W = 5, 32, 48


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """No GPU, no weights in any cache."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("EX4D_MODELS", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


@pytest.fixture
def pair(tmp_path):
    """A colour and mask pair as the release writes them."""
    folder = tmp_path / "pair"
    folder.mkdir()
    for name, value in (("color_60.mp4", 90), ("mask_60.mp4", 255)):
        with VideoWriter(folder / name, Fraction(15)) as writer:
            writer.write(np.full((FRAMES, H, W, 3), value, np.uint8))
    return folder


@pytest.fixture
def base(tmp_path):
    """A base model folder whose shards are headers of a tiny denoiser."""
    from ex4d.models.wan.keys import original_key
    from ex4d.models.wan.transformer import Ex4dTransformer

    config = {"num_attention_heads": 1, "attention_head_dim": 24, "in_channels": 36, "text_dim": 8, "freq_dim": 8}
    model = Ex4dTransformer(**config, ffn_dim=16, num_layers=1, image_dim=8, added_kv_proj_dim=24)
    folder = tmp_path / "Wan-AI" / "Wan2.1-I2V-14B-480P"
    folder.mkdir(parents=True)
    state = {original_key(k): v.clone() for k, v in model.state_dict().items()}
    save_file(state, str(folder / "diffusion_pytorch_model.safetensors"))
    (folder / "config.json").write_text('{"num_heads": 1}')
    for name in ("models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth"):
        (folder / name).touch()
    (folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth").touch()
    return folder


def refused(capsys, tmp_path, *args):
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    code = main([str(a) for a in args])
    err = capsys.readouterr().err
    lines = [x for x in err.strip().splitlines() if x.startswith("ex4d:")]
    assert code == 2, err
    assert len(lines) == 1 and "Traceback" not in err, err
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == before, "nothing half-written"
    return lines[0]


def generate(capsys, tmp_path, pair, *args):
    return refused(capsys, tmp_path, "generate", pair, "--preset", "wan14b", "--out", tmp_path / "out", *args)


def test_no_gpu_says_what_would_work(capsys, tmp_path, pair):
    line = generate(capsys, tmp_path, pair)
    assert "no CUDA GPU" in line and "--preset" in line and "GiB" in line


def test_no_gpu_is_refused_before_depth_is_made(capsys, tmp_path, pair):
    video = pair / "color_60.mp4"
    line = refused(capsys, tmp_path, "run", video, "--depth", "plane", "--preset", "wan14b", "--out", tmp_path / "out")
    assert "no CUDA GPU" in line


def test_missing_weights_say_the_command_and_the_size(capsys, tmp_path, pair):
    line = generate(capsys, tmp_path, pair, "--device", "cpu")
    assert "ex4d models download wan14b" in line and "83 GB" in line


def test_missing_adapter_beside_the_base(capsys, tmp_path, pair, base):
    line = generate(capsys, tmp_path, pair, "--device", "cpu", "--models", tmp_path)
    assert "ex4d.ckpt" in line and "Wan2.1" not in line.split("not found")[0]


def test_unknown_head_count(capsys, tmp_path, pair, base):
    (base / "config.json").unlink()
    line = generate(capsys, tmp_path, pair, "--device", "cpu", "--base", base, "--adapter", "x.ckpt")
    assert "num_heads" in line


def test_truncated_base(capsys, tmp_path, pair, base):
    shard = base / "diffusion_pytorch_model.safetensors"
    shard.write_bytes(shard.read_bytes()[:100])
    line = generate(capsys, tmp_path, pair, "--device", "cpu", "--base", base, "--adapter", "x.ckpt")
    assert "truncated" in line


class Bomb:
    def __reduce__(self):
        return (open, ("ran_code.txt", "w"))


def test_adapter_with_code(capsys, tmp_path, pair, base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps({"a": Bomb()}, protocol=2))
    line = generate(capsys, tmp_path, pair, "--device", "cpu", "--base", base, "--adapter", tmp_path / "bad.ckpt")
    assert "nothing in it was run" in line
    assert not (tmp_path / "ran_code.txt").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--window", "50"), "4k + 1"),
        (("--work-size", "500x500"), "divisible by 16"),
        (("--work-size", "big"), "WIDTHxHEIGHT"),
        (("--work-size", "0x0"), "above 0"),
        (("--vram", "much"), "--vram 12GB"),
        (("--lora", "no.safetensors"), "no LoRA"),
        (("--guidance-mode", "split"), "torchrun"),
        (("--erosion", "0"), "erosion"),
        (("--steps", "0"), "steps"),
        (("--overlap", "90", "--window", "81"), "overlap"),
    ],
)
def test_options(capsys, tmp_path, pair, base, args, words):
    from ex4d.models.wan.files.adapter import Adapter, AdapterConfig, save_adapter

    path = tmp_path / "a.safetensors"
    geometry = {
        f"{name}.{kind}": torch.zeros(shape if kind == "weight" else shape[:1])
        for name, shape in (
            ("latent_encoder.0", (4, 32, 1, 1, 1)),
            ("latent_encoder.2", (4, 4, 1, 1, 1)),
            ("latent_encoder.4", (4, 4, 1, 1, 1)),
            ("latent_patch_embedding", (24, 4, 1, 2, 2)),
        )
        for kind in ("weight", "bias")
    }
    save_adapter(path, Adapter({}, geometry, AdapterConfig(16, 16.0, 4, 24)))
    line = generate(capsys, tmp_path, pair, "--device", "cpu", "--base", base, "--adapter", path, *args)
    assert words in line


def test_colour_and_mask_of_different_lengths(capsys, tmp_path, pair):
    with VideoWriter(pair / "mask_60.mp4", Fraction(15)) as writer:
        writer.write(np.full((FRAMES - 2, H, W, 3), 255, np.uint8))
    line = refused(capsys, tmp_path, "generate", pair, "--out", tmp_path / "out")
    assert "5" in line and "3" in line


def test_wan_options_with_another_preset(capsys, tmp_path, pair):
    line = refused(capsys, tmp_path, "generate", pair, "--steps", "4", "--out", tmp_path / "out")
    assert "--steps" in line and "wan14b" in line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("download", "wan14"), "wan14b"),
        (("verify", "wan14b"), "ex4d models download wan14b"),
        (("convert", "nothing.ckpt", "out.safetensors", "--to", "ex4d"), "nothing.ckpt"),
        (("convert", ".", "out.safetensors", "--to", "ex4d"), "folder"),
        (("convert", "nothing.ckpt", "out", "--to", "diffusers"), "folder of denoiser shards"),
    ],
)
def test_models(capsys, tmp_path, args, words):
    assert words in refused(capsys, tmp_path, "models", *args)
