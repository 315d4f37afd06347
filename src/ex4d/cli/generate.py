"""`ex4d generate`: complete a render folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ex4d.generators.wan14b.config import Wan14bOptions

NO_WAN_OPTIONS = Wan14bOptions()
RECORD = "generate.json"


def generate(
    folder: Positional[Path],
    /,
    wan: Annotated[Wan14bOptions, arg(name="")] = NO_WAN_OPTIONS,
    preset: str | None = None,
    quality: str | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> int:
    """Complete a render folder of `ex4d render`, or a color_*.mp4 with mask_*.mp4 of the EX-4D release.

    Args:
        folder: Where the render is.
        wan: Choices of --preset wan14b.
        preset: What completes the video: nano (the embedded model, the default), fill (no model) or wan14b.
        quality: Of --preset nano: draft, default or best.
        seed: Of everything random.
        out: Where output.mp4 and preview.png go; default the same folder.
    """
    from ex4d.cli.shared import progress_bars, say
    from ex4d.generators.make import check_generator, choose_preset, make_generator
    from ex4d.pipeline.complete_stage import complete
    from ex4d.pipeline.folder import OUTPUT, PREVIEW, RenderFolder
    from ex4d.system.manifest import write_manifest
    from ex4d.system.records import check_outputs, mark_done, stage_claim

    name, options, note = choose_preset(preset, quality, wan, (out or folder) / ".latents")
    check_generator(name, options)
    render = RenderFolder(folder, _source_of(folder))
    out = out or folder
    inputs, names = [render.color_file, render.mask_file], [OUTPUT, PREVIEW, RECORD]
    check_outputs(out, {"generate": names}, inputs)
    generator = make_generator(name, **options)
    with stage_claim(out, "generate", names, inputs):
        with progress_bars() as progress:
            complete(render, generator, out, seed, progress)
        say([*([note] if note else []), *getattr(generator, "notes", lambda: [])()])
        write_manifest(
            out / RECORD,
            config={"preset": name, "folder": folder, **options},
            seed=seed,
            inputs={"color": render.color_file, "mask": render.mask_file},
            generate=generator.manifest(),
        )
        mark_done(out, "generate", "ex4d generate", names)
    print(out / OUTPUT)
    return 0


def _source_of(folder: Path):
    """The source video as the manifest of the render names it, where it still is."""
    from ex4d.errors import Ex4dError
    from ex4d.io.video.read import open_video

    try:
        record = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        config, file = record["config"], Path(record["inputs"]["video"]["path"])
        size_hw = tuple(config["size_hw"]) if config["size_hw"] else None
        return open_video(file, start=config["start"], frames=config["frames"], size_hw=size_hw)
    except (OSError, ValueError, KeyError, TypeError, Ex4dError):
        return None
