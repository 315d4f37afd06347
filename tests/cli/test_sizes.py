"""Sizes as people type them: WIDTHxHEIGHT, the same in every command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ex4d.cli.main import main
from ex4d.cli.shared import parse_size
from ex4d.errors import InputError

pixels = st.integers(1, 10**5)


@given(width=pixels, height=pixels, x=st.sampled_from("xX"))
def test_width_comes_first_outside_and_height_inside(width, height, x):
    assert parse_size(f"{width}{x}{height}") == (height, width)


@pytest.mark.parametrize("text", ["832", "0x0", "0x480", "832x0", "-3x5", "3x5x7", "x", "832 x", "1.5x2", ""])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="above 0"):
        parse_size(text)
    assert parse_size(None) is None


@pytest.mark.parametrize("option", ["--size", "--work-size"])
@pytest.mark.parametrize("text", ["0x0", "big"])
def test_every_option_refuses_the_same_in_one_line(capsys, tmp_path, sample, option, text):
    assert main(["run", str(sample), "--out", str(tmp_path / "out"), "--preset", "wan14b", f"{option}={text}"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line == f"ex4d: size {text}; need WIDTHxHEIGHT in pixels above 0; try: --size 1280x720"
    assert not (tmp_path / "out").exists()


@pytest.fixture
def sample():
    from ex4d.samples import video_path

    return video_path()
