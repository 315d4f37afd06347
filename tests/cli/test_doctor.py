"""`ex4d doctor` names what is here and, for a preset, how it would fit."""

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
