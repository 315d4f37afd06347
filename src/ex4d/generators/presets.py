"""Presets by name: what completes the video."""

from __future__ import annotations

from difflib import get_close_matches

from ex4d.errors import InputError
from ex4d.generators.base import Generator

#: name -> one line for help.
PRESETS = {
    "fill": "no model: other times of the clip, then the surrounding background; runs anywhere",
    "wan14b": "the released EX-4D weights on Wan2.1-I2V-14B-480P; needs a GPU and 83 GB of weights",
}


def check_preset(name: str) -> None:
    """Raise InputError, with what is close, for a name that is no preset."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, 1)
        raise InputError(f"preset {name!r}", f"one of {', '.join(PRESETS)}", f"--preset {near[0] if near else 'fill'}")


def check_generator(name: str, options: dict[str, object]) -> None:
    """Refuse before any work what a preset would refuse after it: no GPU, missing weights, wrong options."""
    if name == "wan14b":
        from ex4d.generators.wan14b import preflight

        preflight(**options)


def make_generator(name: str, **options: object) -> Generator:
    """The generator of a preset.

    Args:
        name: One of `PRESETS`.
        options: Its own settings.
    """
    check_preset(name)
    if name == "fill":
        from ex4d.generators.fill import Fill

        return Fill(**options)  # type: ignore[arg-type]
    from ex4d.generators.wan import make_wan14b

    return make_wan14b(**options)  # type: ignore[arg-type]
