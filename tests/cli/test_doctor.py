"""`ex4d doctor` names what is here and, for a preset, how it would fit."""

import pytest

from ex4d.cli import doctor
from ex4d.cli.main import main


def test_a_working_machine_is_called_so(capsys):
    assert main(["doctor", "--preset", "fill"]) == 0
    out = capsys.readouterr().out
    for word in (
        "machine",
        "python",
        "torch",
        "PyAV",
        "weights",
        "everything that is needed is here",
        "needs no model",
    ):
        assert word in out
    assert "MISSING" not in out


def test_a_model_that_does_not_fit_says_what_would(capsys):
    assert main(["doctor", "--preset", "wan14b", "--vram", "1GB"]) == 2
    out = capsys.readouterr().out
    assert "MISSING wan14b" in out and "need" in out and "try:" in out


def test_what_is_missing_is_named_with_what_to_type(capsys, monkeypatch):
    monkeypatch.setattr(
        doctor, "requires", lambda _: ["numpy>=2", "a-package-that-is-not-there>=1", "extra ; extra == 'dev'"]
    )
    assert main(["doctor"]) == 2
    out = capsys.readouterr().out
    assert "MISSING packages     a-package-that-is-not-there" in out and "try: python3 start.py install" in out
    assert "1 thing missing" in out


def test_an_unknown_preset_is_refused(capsys):
    assert main(["doctor", "--preset", "fil"]) == 2
    assert "--preset fill" in capsys.readouterr().err


ORIGINAL = (
    "Wan-AI/Wan2.1-I2V-14B-480P/diffusion_pytorch_model-00001-of-00007.safetensors",
    "Wan-AI/Wan2.1-I2V-14B-480P/models_t5_umt5-xxl-enc-bf16.pth",
    "Wan-AI/Wan2.1-I2V-14B-480P/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    "Wan-AI/Wan2.1-I2V-14B-480P/Wan2.1_VAE.pth",
)
DIFFUSERS = (
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers/transformer/diffusion_pytorch_model.safetensors",
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers/vae/diffusion_pytorch_model.safetensors",
)


@pytest.mark.parametrize("base", [ORIGINAL, DIFFUSERS], ids=["original", "diffusers"])
def test_weights_are_found_in_every_layout_that_a_run_takes(capsys, monkeypatch, tmp_path, base):
    monkeypatch.setenv("EX4D_MODELS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))

    def said() -> tuple[bool, str]:
        assert main(["doctor"]) == 0
        lines = capsys.readouterr().out.splitlines()
        found = next(line.split("found: ")[1] for line in lines if "weights" in line and "; found:" in line)
        assert main(["models", "list"]) == 0
        row = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("wan14b"))
        return "wan14b" in found.split(", "), row[3]

    assert said() == (False, "no")
    for name in base:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert said() == (False, "partly")
    (tmp_path / "yihouxiang" / "EX-4D").mkdir(parents=True)
    (tmp_path / "yihouxiang" / "EX-4D" / "ex4d.ckpt").touch()
    assert said() == (True, "yes")
