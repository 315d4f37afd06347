"""Bad input to `ex4d train`: one clear line, exit code 2, nothing half-written."""

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tiny"))
from train_parts import SIZES, write_clips, write_encoders, write_video

from ex4d.cli.main import main


def refused(capsys, argv, *words):
    """The exit code is 2 and the last line of the error says all of `words`."""
    code = main([str(a) for a in argv])
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert code == 2, captured
    assert len(lines) == 1 and lines[0].startswith("ex4d: "), captured.err
    for word in words:
        assert word in lines[0], lines[0]


def write_config(path, folder, **sections):
    record = {
        "data": {"path": str(folder), "held_out": 0.0},
        "model": {"train": "adapter", "sizes": SIZES, "lora_rank": 4, "geometry_hidden": 24},
        "loop": {"steps": 1, "batch": 2, "precision": "fp32", "validate_every": 0, "tensorboard": False},
    }
    for name, values in sections.items():
        record[name] = record.get(name, {}) | values
    path.write_text(yaml.safe_dump(record))
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_encoders(tmp_path_factory.mktemp("model"))


def prepare(videos, model, out, *more):
    return ["train", "prepare", videos, "--model", model, "--out", out, "--frames", "5", "--size", "32", "48", *more]


def test_an_empty_folder(capsys, tmp_path, model):
    (tmp_path / "videos").mkdir()
    refused(capsys, prepare(tmp_path / "videos", model, tmp_path / "out"), "no videos in")
    refused(capsys, prepare(tmp_path / "missing", model, tmp_path / "out"), "no folder")
    assert not (tmp_path / "out").exists()


def test_only_corrupt_and_tiny_clips(capsys, tmp_path, model):
    (tmp_path / "a.mp4").write_bytes(b"\0" * 1000)
    write_video(tmp_path / "b.mkv", 2)
    refused(capsys, prepare(tmp_path, model, tmp_path / "out"), "none of 2 videos", "report.json")
    assert (
        not list((tmp_path / "out").glob("*.tar"))
        and len(json.loads((tmp_path / "out" / "report.json").read_text())) == 2
    )


def test_a_wrong_captions_file(capsys, tmp_path, model):
    write_video(tmp_path / "b.mkv", 6)
    (tmp_path / "c.json").write_text('{"elsewhere.mp4": "a cat"}')
    for file in ("c.json", "none.json"):
        refused(capsys, prepare(tmp_path, model, tmp_path / "out", "--captions", tmp_path / file), "captions")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--frames", "6"], "--frames 5 or --frames 9"),
        (["--size", "30", "48"], "multiples of 16"),
        (["--clips-per-video", "0"], "at least 1"),
    ],
)
def test_impossible_sizes(capsys, tmp_path, model, more, words):
    write_video(tmp_path / "b.mkv", 6)
    refused(capsys, prepare(tmp_path, model, tmp_path / "out", *more), words)


def test_a_model_folder_without_a_vae_is_said_of_every_video(capsys, tmp_path):
    write_video(tmp_path / "b.mkv", 6)
    refused(capsys, prepare(tmp_path, tmp_path, tmp_path / "out", "--min-sharpness", "0"), "vae/config.json")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"loop": {"stepz": 3}}, "stepz"),
        ({"loop": {"steps": "many"}}, "a whole number"),
        ({"loop": {"ema": 1.0}}, "loop.ema"),
        ({"model": {"train": "all"}}, "adapter"),
        ({"model": {"sizes": {"layers": 2}}}, "layers"),
        ({"model": {"base": "/nowhere", "sizes": {}}}, "config.json"),
        ({"objective": {"pure_noise_share": 0.5}}, "uniform"),
        ({"mixture": {"shares": {"rendered": 1.0}}}, "rendered"),
        ({"model": {"sizes": SIZES | {"text_dim": 8}}}, "text embeddings"),
        ({"data": {"path": "/nowhere"}}, "no data folder"),
    ],
)
def test_wrong_configurations(capsys, tmp_path, clips, sections, words):
    refused(
        capsys,
        ["train", "run", write_config(tmp_path / "c.yaml", clips, **sections), "--out", tmp_path / "run", "--cpu"],
        words,
    )
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("text", [": : :", "- 1\n- 2\n", ""])
def test_a_configuration_that_is_no_mapping(capsys, tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    refused(capsys, ["train", "run", tmp_path / "c.yaml"], "c.yaml")
    refused(capsys, ["train", "cost", tmp_path / "none.yaml"], "no configuration")


def test_resuming_with_other_data_or_another_configuration(capsys, tmp_path, clips):
    config = write_config(tmp_path / "c.yaml", clips)
    run = ["train", "run", config, "--out", tmp_path / "run", "--cpu"]
    assert main([str(a) for a in run]) == 0
    assert "memory" in capsys.readouterr().out, "the costs are printed first"
    before = sorted(p for p in (tmp_path / "run").rglob("*"))
    other = write_clips(tmp_path / "other", seed=5)
    write_config(config, other, loop={"steps": 2})
    refused(capsys, run, "data changed", "--restart-from")
    write_config(config, clips, loop={"steps": 2}, model={"lora_rank": 2})
    refused(capsys, run, "lora_rank", "--restart-from")
    assert sorted(p for p in (tmp_path / "run").rglob("*")) == before
    write_config(config, clips, loop={"steps": 2})
    assert main([str(a) for a in run]) == 0
    assert main(["train", "export", str(tmp_path / "run")]) == 0
    assert "adapter.safetensors" in capsys.readouterr().out


def test_broken_shards_and_checkpoints(capsys, tmp_path, clips):
    data = tmp_path / "data"
    data.mkdir()
    (data / "x.tar").write_bytes(b"half a tar")
    config = write_config(tmp_path / "c.yaml", data)
    refused(capsys, ["train", "run", config, "--out", tmp_path / "run", "--cpu"], "x.tar", "prepare again")
    write_config(config, clips)
    run = ["train", "run", config, "--out", tmp_path / "run", "--cpu"]
    assert main([str(a) for a in run]) == 0
    capsys.readouterr()
    weights = next((tmp_path / "run").rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    write_config(config, clips, loop={"steps": 2})
    refused(capsys, run, "cannot be read", "delete")


def test_a_restart_from_nothing(capsys, tmp_path, clips):
    config = write_config(tmp_path / "c.yaml", clips)
    refused(
        capsys,
        ["train", "run", config, "--out", tmp_path / "run", "--restart-from", tmp_path, "--cpu"],
        "no weights in",
    )


def test_a_full_disk_while_preparing(capsys, tmp_path, model, monkeypatch):
    from ex4d.train.data.shards import ShardWriter

    write_video(tmp_path / "b.mkv", 6)

    def full(self, name, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ShardWriter, "_add", full)
    refused(capsys, prepare(tmp_path, model, tmp_path / "out", "--min-sharpness", "0"), "No space left", "free space")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["prepare.json"]
