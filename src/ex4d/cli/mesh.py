"""`ex4d mesh`: the Depth Watertight Meshes themselves, for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ex4d.cli.run import CommonOptions, make_config


def mesh(
    video: Positional[Path],
    /,
    common: Annotated[CommonOptions, arg(name="")],
    format: Literal["ply", "glb"] = "ply",
    every: int = 0,
) -> int:
    """Write the watertight mesh of the first frame, or of every N-th one.

    Args:
        video: Any video file.
        common: Shared options.
        format: File format.
        every: 0 writes the first frame only, N every N-th frame.
    """
    import numpy as np

    from ex4d.cli.shared import progress_bars, say
    from ex4d.errors import InputError
    from ex4d.io.depth.file import open_depth
    from ex4d.io.mesh import write_glb, write_ply
    from ex4d.io.video.read import open_video
    from ex4d.mesh.rule import MeshRule
    from ex4d.mesh.watertight import build_mesh
    from ex4d.pipeline.folder import DEPTH
    from ex4d.pipeline.footage import FileFootage, depth_range_of
    from ex4d.pipeline.run import run_stages
    from ex4d.system.records import check_outputs, mark_done, stage_claim

    if every < 0:
        raise InputError(f"--every {every}", "0 or more", "--every 10")
    config = make_config(video, "mesh", common, "fill")
    source = open_video(video, start=config.start, frames=config.frames, size_hw=config.size_hw)
    indices = range(0, source.num_frames, every) if every else range(1)
    names = [f"mesh_{index:06d}.{format}" for index in indices]
    check_outputs(config.out, {"mesh": names}, [video])
    with progress_bars() as progress:
        result = run_stages(video, config, until="depth", progress=progress)
        depth = open_depth(config.out / DEPTH)
        footage, clip_range = FileFootage(source, depth), depth_range_of(depth)
        rule = MeshRule.reference() if config.reference else MeshRule()
        write = write_glb if format == "glb" else write_ply
        with stage_claim(config.out, "mesh", names, [video]):
            for done, (index, name) in enumerate(zip(indices, names, strict=True)):
                frame, one = footage.video(np.array([index])), footage.depth(np.array([index]))
                made = build_mesh(one.depth[0], frame.frames[0], one.K[0], rule, clip_range)
                write(config.out / name, made)
                progress(done + 1, len(indices), "meshes")
            mark_done(config.out, "mesh", "made", names)
    say(result.notes)
    print(config.out)
    return 0
