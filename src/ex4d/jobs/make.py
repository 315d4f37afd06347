"""A run of the line as a job, and a job as a run: what is content, what is only a place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ex4d.errors import InputError
from ex4d.jobs.codec import VERSION, decode, encode
from ex4d.jobs.types import Job
from ex4d.pipeline.config import RunConfig
from ex4d.pipeline.run import run, run_inputs
from ex4d.system.manifest import content_key
from ex4d.types import Progress

#: Stands for the job's own folder in a stored config.
HERE = Path("out")

#: Options of a generator that name a place and change no byte; the job's folder decides them.
PLACES = ("state_dir",)


def make_job(video: Path | str, config: RunConfig, *, name: str = "") -> Job:
    """The job of running the line over a video; the same bytes and options give the same id, wherever they lie.

    Args:
        video: The clip.
        config: What `ex4d run` would be given; its `out` is not used.
        name: What tables show.

    Raises:
        InputError: A file that cannot be read.
    """
    video = Path(video).absolute()
    generator = {key: value for key, value in config.generator.items() if key not in PLACES}
    config = replace(config, out=HERE, generator=generator)
    found = run_inputs(video, config)
    inputs = {key: Path(path).absolute() for key, path in found.items()}
    key = content_key(inputs, {"job": VERSION, "run": _with_paths(config, found, {name: name for name in found})})
    stored = encode_config(_with_paths(config, found, inputs))
    return Job(key, stored, {key: str(path) for key, path in inputs.items()}, name)


def _with_paths(config: RunConfig, found: Mapping[str, Path], instead: Mapping[str, Path | str]) -> RunConfig:
    """The config with the paths in its texts spelled in another way; whatever else the text says stays (`a.json @ slow=2`)."""
    texts = {key: getattr(config, key) for key in found if key != "video"}
    return replace(config, **{key: text.replace(str(found[key]), str(instead[key]), 1) for key, text in texts.items()})


def encode_config(config: RunConfig) -> dict[str, Any]:
    """A RunConfig as JSON."""
    return {"version": VERSION, "run": encode(config)}


def decode_config(data: Mapping[str, Any], out: Path) -> RunConfig:
    """The RunConfig of a stored job, with its outputs in `out`; InputError for a record of another version."""
    if data.get("version") != VERSION or data.keys() != {"version", "run"}:
        raise InputError(f"a job of version {data.get('version')!r}", f"version {VERSION}", "submit it again")
    config = decode(RunConfig, data["run"])
    if config.preset in ("nano", "wan14b"):
        config = replace(config, generator={**config.generator, "state_dir": out / ".latents"})
    return replace(config, out=out)


def run_job(job: Job, work: Path, progress: Progress) -> dict[str, Any]:
    """Run the line for a job in a folder: what a worker does."""
    result = run(job.inputs["video"], decode_config(job.config, work), progress=progress)
    return {"seconds": result.seconds, "notes": result.notes}
