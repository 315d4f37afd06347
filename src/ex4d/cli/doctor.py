"""`ex4d doctor`: what this machine has, what is missing, what to type."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ex4d.errors import Ex4dError

State = Literal["ok", "missing", "optional"]

#: Optional package -> what it adds and what to type.
OPTIONAL = {
    "triton": ("the GPU rasteriser", "pip install triton (Linux; it comes with the CUDA build of torch)"),
    "OpenEXR": ("EXR files that are tiled or compressed otherwise than ZIP", "pip install OpenEXR"),
    "nvdiffrast": (
        "the rasteriser of the EX-4D release (non-commercial licence)",
        "pip install git+https://github.com/NVlabs/nvdiffrast (needs a CUDA compiler)",
    ),
    "viser": ("the browser studio", 'pip install -e ".[studio]"'),
    "ray": ("batch work over machines", 'pip install -e ".[batch]"'),
    "tensorboard": ("training curves", 'pip install -e ".[train]"'),
}
MIN_FREE_DISK_GB = 2.0


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked at.
        state: "ok", "missing" (something does not work without it) or "optional".
        text: What was found.
        fix: What to type, when it is not ok.
    """

    name: str
    state: State
    text: str
    fix: str = ""


def doctor(preset: str | None = None, vram: str | None = None) -> int:
    """Say what this machine has, what is missing and what to type.

    Args:
        preset: Also say whether this preset (nano, fill, wan14b) fits into the machine's memory, and how.
        vram: Plan that preset for a GPU memory of this size, such as 12GB, instead of the machine's own.
    """
    missing = 0
    for finding in [*examine(), *(fit(preset, vram) if preset else [])]:
        mark = {"ok": "ok     ", "missing": "MISSING", "optional": "-      "}[finding.state]
        print(f"{mark} {finding.name:<12} {finding.text}")
        if finding.fix:
            print(f"{'':20} try: {finding.fix}")
        missing += finding.state == "missing"
    print(f"{missing} thing{'s' * (missing != 1)} missing" if missing else "everything that is needed is here")
    return 2 if missing else 0


def examine() -> Iterator[Finding]:
    """Machine, Python, packages, video libraries, GPU, weights."""
    yield from _machine()
    yield from _packages()
    yield from _video()
    yield from _torch()
    yield from _optional()
    yield from _weights()


def fit(preset: str, vram: str | None = None) -> Iterator[Finding]:
    """Whether and how a preset fits into this machine's memory, or into `vram`."""
    from ex4d.generators.make import check_preset

    check_preset(preset)
    describe = getattr(
        import_module(f"ex4d.generators.{preset}.{'fill' if preset == 'fill' else 'generator'}"), "describe", None
    )
    if describe is None:
        yield Finding(preset, "ok", "needs no model and no GPU; its memory does not grow with the clip's length")
        return
    try:
        for line in describe(vram):
            yield Finding(preset, "ok", line)
    except Ex4dError as error:
        yield Finding(preset, "missing", f"{error.got}; need {error.need}" if error.need else error.got, error.fix)


def _machine() -> Iterator[Finding]:
    memory = _memory_gb()
    memory_text = "" if memory is None else f", {memory:.0f} GB memory"
    yield Finding("machine", "ok", f"{platform.platform()}, {os.cpu_count()} cores{memory_text}")
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    enough = free >= MIN_FREE_DISK_GB
    text = f"{free:.1f} GB free in {Path.cwd()}"
    yield Finding(
        "disk", "ok" if enough else "missing", text, "" if enough else "free some space, or --out on another disk"
    )
    good = sys.version_info >= (3, 11)
    yield Finding(
        "python",
        "ok" if good else "missing",
        f"{platform.python_version()} at {sys.executable}",
        "" if good else "3.11+",
    )


def _memory_gb() -> float | None:
    if find_spec("psutil") is None:
        return None
    import psutil

    return psutil.virtual_memory().total / 1e9


def _packages() -> Iterator[Finding]:
    names = [
        line.split(";")[0].split("[")[0].split("<")[0].split(">")[0].split("=")[0].strip()
        for line in requires("ex4d") or []
        if "extra ==" not in line
    ]
    found, absent = [], []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            absent.append(name)
    yield Finding("packages", "ok", ", ".join(found))
    if absent:
        yield Finding("packages", "missing", ", ".join(absent), "python3 start.py install")


def _video() -> Iterator[Finding]:
    try:
        import av
    except ImportError as error:
        yield Finding("video", "missing", f"PyAV does not load ({error})", "python3 start.py install")
        return
    libraries = ", ".join(
        f"{name} {'.'.join(map(str, number))}" for name, number in sorted(av.library_versions.items())[:3]
    )
    lacking = [codec for codec in ("libx264", "ffv1", "aac") if codec not in av.codecs_available]
    yield Finding("video", "ok", f"PyAV {av.__version__} with its own FFmpeg ({libraries})")
    if lacking:
        yield Finding("video", "missing", f"encoders {', '.join(lacking)}", "pip install --force-reinstall av")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "missing", f"does not load ({error})", "python3 start.py install")
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            yield Finding(
                "GPU", "ok", f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute {card.major}.{card.minor}"
            )
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "ok", "Apple GPU (mps)")
    elif shutil.which("nvidia-smi"):
        text = "there is an NVIDIA driver, but this torch cannot use it"
        yield Finding("GPU", "optional", text, "delete .venv, then python3 start.py install")
    else:
        yield Finding("GPU", "optional", "none; --preset nano and fill need none")


def _optional() -> Iterator[Finding]:
    for name, (what, fix) in OPTIONAL.items():
        if find_spec(name) is None:
            yield Finding(name, "optional", f"not installed: {what}", fix)
            continue
        try:
            yield Finding(name, "ok", f"{version(name)}: {what}")
        except PackageNotFoundError:
            yield Finding(name, "ok", what)


def _embedded() -> Finding:
    from ex4d.models.embedded import load as embedded

    if not embedded.available():
        return Finding(
            "nano", "optional", "no embedded model in this package; --preset fill is used", embedded.GET_BACK
        )
    try:
        count = embedded.check()
    except Ex4dError as error:
        return Finding("nano", "missing", f"{error.got}; need {error.need}", error.fix)
    return Finding("nano", "ok", f"the embedded model, {count} files as published, {embedded.megabytes():.0f} MB")


def _weights() -> Iterator[Finding]:
    yield _embedded()
    from ex4d.cli.models import weight_sets
    from ex4d.models.hub.download import find_set
    from ex4d.models.hub.find import MODELS_DIR_VARIABLE

    folder = os.environ.get(MODELS_DIR_VARIABLE)
    places = f"${MODELS_DIR_VARIABLE} ({folder or 'not set'}) and the Hugging Face cache"
    found, absent = [], []
    for name, weights in weight_sets().items():
        (found if all(find_set(weights, None).values()) else absent).append(name)
    yield Finding("weights", "ok", f"looked for in {places}; found: {', '.join(found) or 'none'}")
    if absent:
        yield Finding("weights", "optional", "not found: " + ", ".join(absent), "ex4d models list")
