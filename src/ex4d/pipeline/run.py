"""The line with files: every stage leaves its output in the folder, and a second call goes on from what is still valid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ex4d.depth.make import depth_way
from ex4d.generators.make import weights_of
from ex4d.io.depth.file import open_depth as open_depth_file
from ex4d.io.video.read import open_video
from ex4d.pipeline.complete_stage import make_output
from ex4d.pipeline.config import RunConfig, check_options
from ex4d.pipeline.depth_stage import make_depth_file
from ex4d.pipeline.folder import DEPTH, MANIFEST, STAGE_FILES
from ex4d.pipeline.render_stage import check_camera, make_render
from ex4d.pipeline.stage import RunResult, _stage
from ex4d.system.atomic import check_writable
from ex4d.system.manifest import content_key, write_manifest
from ex4d.system.records import check_outputs, mark_done, stage_claim
from ex4d.types import Progress


def run_stages(
    video: Path, config: RunConfig, *, until: str = "generate", progress: Progress | None = None
) -> RunResult:
    """Depth, render, generate; stages whose inputs and options have not changed are taken from the folder.

    Args:
        video: The source video.
        config: See `RunConfig`.
        until: The last stage to run: "depth", "render" or "generate".
        progress: Called as work proceeds; it may raise to stop, and the next call goes on.

    Raises:
        Ex4dError: Input that cannot be used, before anything is written where that can be known.
    """
    from ex4d.pipeline.warm_up import compile_ahead
    from ex4d.render.make import get_rasterizer

    source = open_video(video, start=config.start, frames=config.frames, size_hw=config.size_hw)
    result = RunResult(config.out)
    for note in source.notes:
        result.note(note)
    check_options(config)
    if until != "depth":
        check_camera(source, config)
    inputs = run_inputs(video, config)
    depth_inputs = {name: path for name, path in inputs.items() if name != "camera"}
    if until == "depth":
        inputs = depth_inputs
    stages = tuple(STAGE_FILES)[: 1 + ("depth", "render", "generate").index(until)]
    names = {stage: STAGE_FILES[stage] for stage in (*stages, "manifest")}
    check_outputs(config.out, names, inputs.values())
    check_writable(config.out)
    if until != "depth" and get_rasterizer(config.rasterizer).name == "cpu":
        compile_ahead()

    def stage(name: str, key: str, work: Callable[[], list[str]]) -> None:
        _stage(result, name, key, work, inputs.values())

    clip_config = {"start": config.start, "frames": config.frames, "size_hw": config.size_hw}
    embedded = {"weights": weights_of("nano")} if config.depth == "nano" else {}
    depth_key = content_key(depth_inputs, {**clip_config, **_pick(config, _DEPTH_OPTIONS), **embedded})
    stage("depth", depth_key, lambda: make_depth_file(source, config, result, progress))
    if until != "depth":
        depth = open_depth_file(config.out / DEPTH)
        render_key = content_key(inputs, {"depth": depth_key, **_pick(config, _RENDER_OPTIONS)})
        stage("render", render_key, lambda: make_render(source, depth, config, result, progress))
        if until == "generate":
            options = {name: value for name, value in config.generator.items() if name != "state_dir"}
            chosen = {"preset": config.preset, "seed": config.seed, "generator": options}
            generate_key = content_key({}, {"render": render_key, **chosen, "weights": weights_of(config.preset)})
            stage("generate", generate_key, lambda: make_output(source, config, result, progress))
    with stage_claim(config.out, "manifest", (MANIFEST,), inputs.values()):
        write_manifest(
            config.out / MANIFEST,
            config=config,
            seed=config.seed,
            inputs=inputs,
            warnings=result.notes,
            seconds=result.seconds,
            clip={
                "fps": str(source.fps),
                "frames": source.num_frames,
                "size_hw": source.size_hw,
                "start_s": source.start_s,
            },
            **result.details,
        )
        mark_done(config.out, "manifest", depth_key, [MANIFEST])
    return result


def run_inputs(video: Path, config: RunConfig) -> dict[str, Path]:
    """Name -> path of every file and folder that a run reads, weights aside."""
    from ex4d.cameras.make import camera_file

    inputs = {"video": video}
    if depth_way(config.depth) == "brought":
        inputs["depth"] = Path(config.depth)
    if config.source_cameras not in ("static", "estimate"):
        inputs["source_cameras"] = camera_file(config.source_cameras) or Path(config.source_cameras)
    if (camera := camera_file(config.camera)) is not None:
        inputs["camera"] = camera
    return inputs


_DEPTH_OPTIONS = (
    "depth",
    "seed",
    "fov_deg",
    "depth_kind",
    "source_cameras",
    "clean_edges",
    "reference",
    "depth_options",
)
_RENDER_OPTIONS = ("camera", "relative_to", "reference", "supersample", "lead_in")


def _pick(config: RunConfig, names: tuple[str, ...]) -> dict[str, object]:
    return {name: getattr(config, name) for name in names}


def run(video: Path | str, config: RunConfig, *, progress: Progress | None = None) -> RunResult:
    """The whole line from a file to a folder; see `ex4d.pipeline.run.run_stages`."""
    return run_stages(Path(video), config, progress=progress)
