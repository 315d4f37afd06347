"""Completion: the render in a folder becomes output.mp4 and preview.png."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.io.video.read import VideoSource, VideoWriter
from ex4d.pipeline.config import RunConfig
from ex4d.pipeline.folder import OUTPUT, PREVIEW, RenderFolder
from ex4d.pipeline.stage import RunResult
from ex4d.types import CameraPath, Progress


def make_output(source: VideoSource, config: RunConfig, result: RunResult, progress: Progress | None) -> list[str]:
    """output.mp4 and preview.png from the render in the folder."""
    from ex4d.generators.make import make_generator

    folder = RenderFolder(config.out, source)
    generator = make_generator(config.preset, **config.generator)
    audio = source.path if source.has_audio and _plays_forward(folder.path) else None
    complete(folder, generator, config.out, config.seed, progress, audio=audio, audio_start_s=source.start_s)
    result.details["generate"] = generator.manifest()
    for note in getattr(generator, "notes", lambda: [])():
        result.note(note)
    return [OUTPUT, PREVIEW]


def complete(
    folder: RenderFolder,
    generator,
    out: Path,
    seed: int,
    progress: Progress | None,
    *,
    audio: Path | None = None,
    audio_start_s: float = 0.0,
) -> None:
    """Write output.mp4 and preview.png of a render folder into `out`."""
    from ex4d.pipeline.contact import ContactSheet

    def tell(done: int, _total: int | None, what: str) -> None:
        if progress is not None:
            progress(done, _total or folder.num_frames, what)

    sheet = ContactSheet(np.linspace(0, folder.num_frames - 1, 5).round().astype(int).tolist())
    with VideoWriter(out / OUTPUT, folder.fps, audio_from=audio, audio_start_s=audio_start_s) as writer:
        done = 0
        for clip in generator.generate(sheet.watch(folder.chunks()), seed=seed, progress=tell):
            writer.write(clip.frames)
            sheet.output(clip)
            done += len(clip)
        if done != folder.num_frames - getattr(generator, "lead_in", 0):
            raise RuntimeError(f"{generator.name} returned {done} frames for {folder.num_frames}")
    sheet.write(out / PREVIEW)


def _plays_forward(path: CameraPath) -> bool:
    """Whether time runs as in the source, so that its sound still fits."""
    return bool(np.allclose(path.source_time, np.arange(len(path)), atol=0.5))
