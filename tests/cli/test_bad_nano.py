"""Bad input to the embedded model: one line, exit code 2, what to type; nothing half-written. Doctor and `models` know it."""

import json
import shutil
import sys
import tomllib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.errors import WeightsError
from ex4d.io.video.read import VideoWriter
from ex4d.models.embedded import load as embedded

sys.path.insert(0, str(Path(__file__).parents[1] / "tiny"))
from nano_made import RECIPE, publish, tiny_transformer, trained

BACK = "pip install --force-reinstall --no-deps ex4d"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return trained(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory, sources):
    out = tmp_path_factory.mktemp("published") / "nano"
    publish(out, **sources)
    return out


@pytest.fixture
def folder(published, tmp_path, monkeypatch):
    """A copy that a test may spoil."""
    shutil.copytree(published, tmp_path / "nano")
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "nano")
    return tmp_path / "nano"


@pytest.fixture
def video(tmp_path):
    with VideoWriter(tmp_path / "in.mkv", Fraction(25), lossless=True) as writer:
        writer.write(np.full((3, 32, 48, 3), 90, np.uint8))
    return tmp_path / "in.mkv"


def refused(capsys, tmp_path, *args):
    out = tmp_path / "out"
    code = main([*map(str, args), "--out", str(out)])
    err = capsys.readouterr().err
    lines = [x for x in err.strip().splitlines() if x.startswith("ex4d:")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, err
    assert not out.exists() or not [p for p in out.rglob("*") if p.is_file()]
    return lines[0]


def spoil(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["gone", "cut", "changed"])
@pytest.mark.parametrize("name", ["transformer/diffusion_pytorch_model.safetensors", embedded.ADAPTER])
def test_spoiled_weights_are_refused_before_any_work(capsys, tmp_path, folder, video, name, how):
    spoil(folder / name, how)
    line = refused(capsys, tmp_path, "run", video, "--depth", "plane")
    assert name in line and BACK in line and ("missing" if how == "gone" else "has hash") in line


def test_a_changed_config_is_refused(capsys, tmp_path, folder, video):
    spoil(folder / "autoencoder" / "config.json", "changed")
    assert "autoencoder/config.json" in refused(capsys, tmp_path, "run", video, "--depth", "plane")


@pytest.mark.parametrize("text", ["not json", "[1, 2]"])
def test_a_list_of_hashes_that_is_none(capsys, tmp_path, folder, video, text):
    (folder / "hashes.json").write_text(text)
    assert BACK in refused(capsys, tmp_path, "run", video, "--depth", "plane", "--preset", "nano")


def test_qualities_that_are_none(capsys, tmp_path, folder, video):
    line = refused(capsys, tmp_path, "run", video, "--depth", "plane", "--quality", "superb")
    assert "'superb'" in line and "draft, default, best" in line and "--quality default" in line
    line = refused(capsys, tmp_path, "run", video, "--depth", "plane", "--quality", "best", "--preset", "fill")
    assert "--quality best with --preset fill" in line and "--preset nano" in line
    line = refused(capsys, tmp_path, "run", video, "--depth", "plane", "--steps", "4")
    assert "--steps with --preset nano" in line and "wan14b" in line


def test_without_embedded_weights_the_fill_stands_in_and_says_so(capsys, tmp_path, monkeypatch, video):
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "none")
    out = tmp_path / "out"
    assert main(["run", str(video), "--depth", "plane", "--out", str(out)]) == 0
    assert "no embedded model, so --preset fill" in capsys.readouterr().err
    assert json.loads((out / "manifest.json").read_text())["config"]["preset"] == "fill"
    assert main(["run", str(video), "--depth", "plane", "--preset", "fill", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "no embedded model" not in captured.err and "generate kept" in captured.out
    shutil.rmtree(out)
    for more in (("--preset", "nano"), ("--quality", "best")):
        assert BACK in refused(capsys, tmp_path, "run", video, "--depth", "plane", *more)
    assert "--depth" in refused(capsys, tmp_path, "run", video)


def test_models_and_doctor_know_the_embedded_model(capsys, folder):
    assert main(["models", "list"]) == 0
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines() if line.startswith("nano")] == ["yes"]
    assert main(["models", "verify", "nano"]) == 0 and main(["models", "download", "nano"]) == 0
    assert "6 files as published" in capsys.readouterr().out
    assert main(["doctor", "--preset", "nano"]) == 0
    assert "ok      nano" in capsys.readouterr().out
    spoil(folder / embedded.ADAPTER, "changed")
    assert main(["models", "verify", "nano"]) == 2
    assert BACK in capsys.readouterr().err
    assert main(["doctor"]) == 2
    assert "MISSING nano" in capsys.readouterr().out
    shutil.rmtree(folder)
    assert main(["models", "verify", "nano"]) == 2 and main(["models", "download", "nano"]) == 2
    assert main(["doctor"]) == 0
    assert "no embedded model in this package" in capsys.readouterr().out


# Publishing.


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_publishing_writes_hashes_configs_and_a_card(published):
    names = set(files(published))
    parts = ("autoencoder", "transformer", "adapter")
    assert names >= {embedded.HASHES, embedded.CARD, *embedded.PARTS, *(f"{part}/config.json" for part in parts)}
    assert embedded.check(published) == 6
    card = (published / embedded.CARD).read_text(encoding="utf-8")
    for word in ("Video autoencoder", "Base denoiser", "EX-4D adapter", "CC-BY-4.0", "never trained on", "Limits"):
        assert word in card
    assert "Depth network" not in card, "not published yet"
    assert b"somebody" not in b"".join(files(published).values()), "no paths of the training machine"


def test_publishing_one_part_leaves_the_others(published, sources, tmp_path):
    shutil.copytree(published, tmp_path / "nano")
    (tmp_path / "n.json").write_text(
        json.dumps({"autoencoder": {"PSNR at 256 px": "27 dB", "by angle": [{"angle": 30, "PSNR": 20.5}]}})
    )
    before = files(tmp_path / "nano")
    publish(tmp_path / "nano", numbers=tmp_path / "n.json", adapter=sources["adapter"])
    after = files(tmp_path / "nano")
    assert {n for n in before if before[n] != after[n]} == {embedded.CARD}
    card = after[embedded.CARD].decode()
    assert "PSNR at 256 px: 27 dB" in card and "| angle | PSNR |" in card and "| 30 | 20.5 |" in card


@pytest.mark.parametrize("fault", ["key", "shape", "adapter", "large", "none"])
def test_parts_that_do_not_fit_are_not_published(published, sources, tmp_path, monkeypatch, fault):
    from safetensors.torch import load_file, save_file

    shutil.copytree(published, tmp_path / "nano")
    before = files(tmp_path / "nano")
    shutil.copytree(sources["transformer"], tmp_path / "t")
    weights = tmp_path / "t" / embedded.WEIGHTS
    state = load_file(weights)
    more = {"transformer": tmp_path / "t"}
    if fault == "key":
        state["surplus"] = state["proj_out.bias"].clone()
    elif fault == "shape":
        state["proj_out.bias"] = state["proj_out.bias"][:-1].clone()
    elif fault == "adapter":
        tiny_transformer().from_config({**tiny_transformer().config, "num_layers": 1}).save_pretrained(tmp_path / "t")
        state = load_file(weights)
    elif fault == "large":
        import publish as recipe

        monkeypatch.setattr(recipe, "LIMIT_BYTES", 1000)
    else:
        more = {"depth": tmp_path / "nowhere"}
    save_file(state, weights)
    with pytest.raises(WeightsError):
        publish(tmp_path / "nano", **more)
    assert files(tmp_path / "nano") == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".publish")] == []


def test_the_wheel_holds_the_weights(published):
    """The package data patterns of pyproject.toml take every published file (setuptools globs them in the package's folder)."""
    project = tomllib.loads((RECIPE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["ex4d"]
    of_nano = [
        pattern.removeprefix("models/embedded/") for pattern in patterns if pattern.startswith("models/embedded/")
    ]
    found = {p.relative_to(published).as_posix() for pattern in of_nano for p in published.glob(pattern) if p.is_file()}
    assert found == set(files(published))
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in published.rglob("*") if p.is_file()), "readable for everybody"
