"""The README can be believed: its commands, options, files and links exist, and the Arabic one keeps step."""

import re
import shlex
from pathlib import Path

import pytest

from ex4d.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "README.ar.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/conventions.md"]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, body) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)


def shell_lines(text: str) -> list[str]:
    return [
        line.strip()
        for language, body in blocks(text)
        if language == "sh"
        for line in body.splitlines()
        if line.strip()
    ]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    text = re.sub(r"^```.*?^```", "", page(name), flags=re.M | re.S)
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
    missing = [target for target in targets if not ((ROOT / name).parent / target).exists()]
    assert not missing


def test_the_arabic_readme_keeps_step():
    english, arabic = page("README.md"), page("README.ar.md")
    assert blocks(english) == blocks(arabic)
    for pattern in (r"^#+ ", r"^\| "):
        assert len(re.findall(pattern, english, flags=re.M)) == len(re.findall(pattern, arabic, flags=re.M)), pattern
    code = r"`([^`\n]+)`"
    assert set(re.findall(code, english)) == set(re.findall(code, arabic))


def test_named_commands_exist():
    named = {match for match in re.findall(r"\bex4d (\w+)", page("README.md")) if match not in ("rebuilds",)}
    assert named and named <= set(COMMANDS), named - set(COMMANDS)


def test_named_options_exist(capsys):
    assert main(["run", "--help"]) == 0
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"`(--[a-z-]+)`", page("README.md")))
    assert len(named) > 8 and named <= known, named - known


def test_command_lines_parse_and_their_files_exist():
    lines = shell_lines(page("README.md"))
    assert [line for line in lines if line.startswith("python3 start.py run")]
    assert [line for line in lines if line.startswith("python3 start.py test")]
    for line in lines:
        program, *args = shlex.split(line)
        assert program in ("python3", ".venv/bin/ex4d"), line
        if program == "python3":
            assert (ROOT / args[0]).is_file(), line
        else:
            assert args[0] in COMMANDS, line
        for arg in args:
            if arg.startswith("src/"):
                assert (ROOT / arg).is_file(), line


def test_the_sample_of_the_setup_script_is_the_shipped_one(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import start

    from ex4d import samples

    video, _, depth, *_ = start.sample_arguments()
    assert Path(video).samefile(samples.video_path()) and Path(depth).samefile(samples.depth_path())


def test_setup_is_skipped_only_for_what_was_set_up(monkeypatch, tmp_path):
    """The stamp answers for the same requirements, Python and place; the test tools are a second level."""
    monkeypatch.syspath_prepend(str(ROOT))
    import start

    calls = []
    python = tmp_path / "python"
    monkeypatch.setattr(start, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(start, "PYTHON", python)
    monkeypatch.setattr(start, "VENV", tmp_path)
    monkeypatch.setattr(start, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(start, "works", lambda _: True)
    monkeypatch.setattr(start, "install_cpu_torch", lambda: calls.append("torch") or 0)
    monkeypatch.setattr(start, "pip", lambda *args: calls.append(str(args[-1]).removeprefix(str(ROOT))) or 0)
    python.touch()
    assert start.install() == 0 and calls == ["torch", ""]
    assert start.install() == 0 and len(calls) == 2, "nothing to do"
    assert start.install(test=True) == 0 and calls[2:] == ["torch", "[dev]"]
    assert start.install() == 0 and start.install(test=True) == 0 and len(calls) == 4
    monkeypatch.setattr(start, "has_nvidia_gpu", lambda: True)
    assert start.install() == 0 and calls[4:] == [""], "another machine: installed again, with its own torch"


def test_every_command_of_the_table_has_a_module():
    for name, (target, line) in COMMANDS.items():
        assert line and not line.endswith("."), name
        assert target.startswith("ex4d.cli."), name
