"""Presets by name: what completes the video."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from ex4d.errors import InputError, WeightsError
from ex4d.generators.base import Generator
from ex4d.generators.wan14b.config import Wan14bOptions, preset_options

#: name -> one line for help.
PRESETS = {
    "nano": "the embedded model: refines the fill with a small network of our own; runs anywhere",
    "fill": "no model: other times of the clip, then the surrounding background; runs anywhere",
    "wan14b": "the released EX-4D weights on Wan2.1-I2V-14B-480P; needs a GPU and 83 GB of weights",
}


def default_preset() -> str:
    """What completes the video where nothing was asked for: the embedded model, if the package has it."""
    from ex4d.models.embedded.load import available

    return "nano" if available() else "fill"


def check_preset(name: str) -> None:
    """Raise InputError, with what is close, for a name that is no preset."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, 1)
        raise InputError(f"preset {name!r}", f"one of {', '.join(PRESETS)}", f"--preset {near[0] if near else 'fill'}")


def choose_preset(
    preset: str | None, quality: str | None, wan: Wan14bOptions, state_dir: Path
) -> tuple[str, dict[str, object], str]:
    """What the user typed as (preset, options for `make_generator`, a note or "").

    Args:
        preset: None takes `default_preset`.
        quality: Of the embedded model; None is its default.
        wan: Choices of wan14b.
        state_dir: Where a stopped run keeps what it has denoised.

    Raises:
        InputError: An unknown preset, or options of another one.
        WeightsError: A quality of an embedded model that is not there.
    """
    from ex4d.models.embedded.load import GET_BACK

    name = preset or default_preset()
    check_preset(name)
    options = preset_options(name, wan, state_dir=state_dir)
    if name == "nano":
        return name, {"quality": quality or "default", "state_dir": state_dir}, ""
    if preset is None and quality is not None:
        raise WeightsError(f"--quality {quality} without the embedded model", "the package with its weights", GET_BACK)
    if quality is not None:
        raise InputError(f"--quality {quality} with --preset {name}", "--preset nano for it", "leave it out")
    note = (
        "" if preset else f"this package has no embedded model, so --preset {name} completes the video; try: {GET_BACK}"
    )
    return name, options, note


def check_generator(name: str, options: dict[str, object]) -> None:
    """Refuse before any work what a preset would refuse after it: no GPU, missing weights, wrong options."""
    if name == "wan14b":
        from ex4d.generators.wan14b.generator import preflight

        preflight(**options)
    if name == "nano":
        from ex4d.generators.nano import generator as nano

        nano.check_quality(options.get("quality", "default"))
        nano.preflight()


def weights_of(name: str) -> dict[str, str]:
    """Hashes that decide a preset's result besides its options: another version of the weights is another result."""
    from ex4d.models.embedded.load import hashes

    return hashes() if name == "nano" else {}


def make_generator(name: str, **options: object) -> Generator:
    """The generator of a preset.

    Args:
        name: One of `PRESETS`.
        options: Its own settings.
    """
    check_preset(name)
    if name == "fill":
        from ex4d.generators.fill.fill import Fill

        return Fill(**options)  # type: ignore[arg-type]
    if name == "nano":
        from ex4d.generators.nano.generator import Nano

        return Nano(**options)  # type: ignore[arg-type]
    from ex4d.generators.diffusion.generator import make_wan14b

    return make_wan14b(**options)  # type: ignore[arg-type]
