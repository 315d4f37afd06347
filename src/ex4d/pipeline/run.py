"""The line with files: every stage leaves its output in the folder, and a second call goes on from what is still valid."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.depth.resolve import depth_way
from ex4d.errors import InputError
from ex4d.folder import RenderFolder, RenderWriter
from ex4d.footage import FileFootage
from ex4d.generators.presets import default_preset, weights_of
from ex4d.geometry.mesh_rule import DepthRange, MeshRule
from ex4d.io.arrays import DepthFile
from ex4d.io.arrays import open_depth as open_depth_file
from ex4d.io.atomic import ensure_dir
from ex4d.io.manifest import content_key, is_done, is_torn, mark_done, read_record, record_file, write_manifest
from ex4d.io.video import VideoSource, VideoWriter, open_video
from ex4d.pipeline import RenderOptions, chunk_frames, stream_render
from ex4d.types import CameraPath, DepthClip, Progress, VideoClip

DEPTH, OUTPUT, MANIFEST, PREVIEW = "depth.npz", "output.mp4", "manifest.json", "preview.png"


def default_depth() -> str:
    """The embedded depth network, if the package has it; else a plane, which is no more than a trial."""
    from ex4d.depth.nano import available

    return "nano" if available() else "plane"


@dataclass(frozen=True)
class RunConfig:
    """Everything a run is made from, besides the video.

    Attributes:
        out: Folder of all outputs.
        camera: Words (`orbit:40`) or a camera file.
        depth: A depth file or folder, `plane`, or the name of a depth model; default `default_depth()`.
        preset: What completes the video: "nano", "fill" or "wan14b"; default nano, if the package has its weights.
        seed: Of everything random.
        start, frames, size_hw: Which part of the video, and its size; None keeps the source's.
        fov_deg: Horizontal field of view of the source camera, if known.
        depth_kind: What a depth file's numbers mean, if it does not say.
        fill_holes: Fill NaN, zero and negative values of a depth file from their neighbours.
        source_cameras: A camera file with the poses of the source camera, "static", or "estimate".
        clean_edges: Repair flying pixels at depth edges; None: for depth models yes, for files and planes no.
        relative_to: Whether the new path rides on the source camera's motion or stands in the world.
        reference: Reproduce the EX-4D release, faults included.
        rasterizer, supersample: See `pipeline.RenderOptions`.
        generator: Further options of the preset.
        depth_options: Further options of the depth model.
    """

    out: Path
    camera: str = "orbit:40"
    depth: str = field(default_factory=default_depth)
    preset: str = field(default_factory=default_preset)
    seed: int = 0
    start: float | None = None
    frames: int | None = None
    size_hw: tuple[int, int] | None = None
    fov_deg: float | None = None
    depth_kind: str | None = None
    fill_holes: bool = False
    source_cameras: str = "static"
    clean_edges: bool | None = None
    relative_to: str = "source"
    reference: bool = False
    rasterizer: str = "auto"
    supersample: int = 1
    generator: dict[str, Any] = field(default_factory=dict)

    @property
    def lead_in(self) -> int:
        """Frames that only lead from the source camera to the path; the generator cuts them off again."""
        return int(self.generator.get("lead_in", 0))  # type: ignore[call-overload]

    depth_options: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunResult:
    """What a run left behind.

    Attributes:
        out: The folder.
        seconds: Time of every stage; 0 where an earlier run's result was taken.
        notes: What the user should know.
        details: What each stage says of itself, for the manifest.
    """

    out: Path
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Add a note once."""
        if text and text not in self.notes:
            self.notes.append(text)


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
    source = open_video(video, start=config.start, frames=config.frames, size_hw=config.size_hw)
    result = RunResult(config.out)
    for note in source.notes:
        result.note(note)
    check_options(config)
    if until != "depth":
        from ex4d.compile_ahead import compile_ahead
        from ex4d.render.resolve import get_rasterizer

        check_camera(source, config)
        if get_rasterizer(config.rasterizer).name == "cpu":
            compile_ahead()
    inputs = {"video": video}
    if depth_way(config.depth) == "brought":
        inputs["depth"] = Path(config.depth)
    if config.source_cameras not in ("static", "estimate"):
        from ex4d.cameras.resolve import camera_file

        inputs["source_cameras"] = camera_file(config.source_cameras) or Path(config.source_cameras)
    clip_config = {"start": config.start, "frames": config.frames, "size_hw": config.size_hw}
    embedded = {"weights": weights_of("nano")} if config.depth == "nano" else {}
    depth_key = content_key(inputs, {**clip_config, **_pick(config, _DEPTH_OPTIONS), **embedded})
    depth = _stage(result, "depth", depth_key, lambda: make_depth_file(source, config, result, progress))
    if until != "depth":
        from ex4d.cameras.resolve import camera_file

        if (camera := camera_file(config.camera)) is not None:
            inputs["camera"] = camera
        render_key = content_key(inputs, {"depth": depth_key, **_pick(config, _RENDER_OPTIONS)})
        _stage(result, "render", render_key, lambda: make_render(source, depth(), config, result, progress))
        if until == "generate":
            options = {name: value for name, value in config.generator.items() if name != "state_dir"}
            chosen = {"preset": config.preset, "seed": config.seed, "generator": options}
            generate_key = content_key({}, {"render": render_key, **chosen, "weights": weights_of(config.preset)})
            _stage(result, "generate", generate_key, lambda: make_output(source, config, result, progress))
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
    return result


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


def check_options(config: RunConfig) -> None:
    """Refuse what can be refused before any work: unknown presets, rasterisers, an unwritable folder."""
    from ex4d.generators.presets import check_generator, check_preset
    from ex4d.render.resolve import get_rasterizer

    check_preset(config.preset)
    get_rasterizer(config.rasterizer)
    if config.supersample not in (1, 2, 3, 4):
        raise InputError(f"--supersample {config.supersample}", "1 to 4", "--supersample 2")
    check_generator(config.preset, config.generator)
    if config.relative_to not in ("source", "world"):
        raise InputError(f"--relative-to {config.relative_to}", "source or world", "--relative-to source")
    ensure_dir(config.out)


def check_camera(source: VideoSource, config: RunConfig) -> None:
    """Refuse a camera path that cannot be used before any depth is computed: words, files, lengths, poses."""
    from ex4d.cameras.resolve import make_path
    from ex4d.depth.intrinsics import choose_intrinsics

    K = choose_intrinsics(source.size_hw, fov_deg=config.fov_deg).for_frames(0, 1)
    flat = DepthClip(np.ones((1, *source.size_hw), np.float32), K)
    make_path(
        config.camera,
        first=flat,
        num_frames=source.num_frames,
        fps=source.fps,
        reference=config.reference,
        num_source_frames=source.num_frames,
    )


def _stage(result: RunResult, name: str, key: str, work: Callable[[], list[str]]) -> Callable[[], DepthFile]:
    begin = time.perf_counter()
    if is_torn(result.out, name):
        result.note(f"{record_file(result.out, name)} cannot be read, so the {name} stage is made again")
    record = read_record(result.out, name)
    if record is not None and is_done(result.out, name, key):
        result.seconds[name] = 0.0
        result.details.update(record.details)
        for note in record.notes:
            result.note(note)
    else:
        notes, details = len(result.notes), set(result.details)
        files = work()
        said = {part: value for part, value in result.details.items() if part not in details}
        mark_done(result.out, name, key, files, result.notes[notes:], said)
        result.seconds[name] = round(time.perf_counter() - begin, 3)
    return lambda: open_depth_file(result.out / DEPTH)


def make_depth_file(source: VideoSource, config: RunConfig, result: RunResult, progress: Progress | None) -> list[str]:
    """depth.npz of the clip."""
    from ex4d.depth.resolve import make_depth
    from ex4d.sources import depth_of_part, open_depth, placed_depth, write_depth_clips

    estimator = make_depth(
        config.depth,
        size_hw=source.size_hw,
        num_frames=source.num_frames,
        fov_deg=config.fov_deg,
        preset_reference=config.reference,
        kind=config.depth_kind,  # type: ignore[arg-type]
        fill_holes=config.fill_holes,
        open_depth=lambda path: depth_of_part(open_depth(path), source),
        **config.depth_options,
    )
    step = chunk_frames(source.size_hw)
    clips = estimator.estimate(source.chunks(step), seed=config.seed, progress=progress)
    clips = placed_depth(
        clips,
        source,
        config.depth,
        result,
        clean=config.clean_edges,
        reference=config.reference,
        source_cameras=config.source_cameras,
    )
    write_depth_clips(config.out / DEPTH, clips, source)
    if cuts := source.cuts():
        shown = ", ".join(map(str, cuts[:8])) + (", ..." if len(cuts) > 8 else "")
        result.note(
            f"a new shot begins at frame {shown}: a path is made for one shot; pick one with --start and --frames"
        )
    result.details["depth"] = {**estimator.manifest(), "cuts": cuts}
    for note in getattr(estimator, "notes", lambda: [])():
        result.note(note)
    return [DEPTH]


def depth_range_of(depth: DepthFile) -> DepthRange:
    """Nearest and farthest depth of the whole file, read in pieces."""
    found: DepthRange | None = None
    for start in range(0, depth.num_frames, 16):
        part = DepthRange.of(np.asarray(depth.read(start, min(start + 16, depth.num_frames)), np.float32))
        found = part if found is None else found.union(part)
    assert found is not None
    return found


def make_path_for(source: VideoSource, depth: DepthFile, config: RunConfig, result: RunResult) -> CameraPath:
    """The new cameras, in the world of the source's."""
    from ex4d.cameras import resolve
    from ex4d.geometry.relative import place_path

    first = FileFootage(source, depth).depth(np.array([0]))
    path = resolve.make_path(
        config.camera,
        first=first,
        num_frames=source.num_frames,
        fps=source.fps,
        reference=config.reference,
        relative_to=config.relative_to,  # type: ignore[arg-type]
        num_source_frames=source.num_frames,
    )
    for note in resolve.notes(config.camera):
        result.note(note)
    if config.lead_in:
        from ex4d.cameras.lead_in import with_lead_in

        path = with_lead_in(path, config.lead_in)
    if not np.allclose(path.cam_from_world[0], np.eye(4), atol=1e-6):
        result.note(
            "the first pose is not the source camera: its frame is rendered too, and the model lacks a clean first frame"
        )
    return place_path(path, depth.cam_from_world, config.relative_to)  # type: ignore[arg-type]


def make_render(
    source: VideoSource, depth: DepthFile, config: RunConfig, result: RunResult, progress: Progress | None
) -> list[str]:
    """Colour, mask, plate and depth along the new path."""
    from ex4d.render.plate import background_layers, key_indices

    path = make_path_for(source, depth, config, result)
    footage = FileFootage(source, depth)
    rule = MeshRule.reference() if config.reference else MeshRule()
    options = RenderOptions(rule, config.rasterizer, config.supersample, plate=not config.reference)
    layers = []
    if options.plate:
        keys = key_indices(source.num_frames)
        layers, note = background_layers(*_keys(footage, keys))
        result.note(note)
    seen = []
    with RenderWriter(config.out, len(path), source.fps) as writer:
        for render in stream_render(footage, path, depth_range_of(depth), options, layers, progress=progress):
            writer.write(render)
            seen.append(render.mask.mean(axis=(1, 2)))
    share = np.concatenate(seen)
    result.details["render"] = {
        "camera": path.name,
        "rule": rule,
        "seen_share": {"mean": float(share.mean()), "min": float(share.min())},
    }
    return writer.files


def _keys(footage: FileFootage, keys: np.ndarray) -> tuple[VideoClip, DepthClip]:
    """Key frames, read in rising order a few at a time."""
    videos = [footage.video(keys[k : k + 1]) for k in range(len(keys))]
    video = VideoClip(np.concatenate([clip.frames for clip in videos]), videos[0].fps)
    return video, footage.depth(keys)


def make_output(source: VideoSource, config: RunConfig, result: RunResult, progress: Progress | None) -> list[str]:
    """output.mp4 and preview.png from the render in the folder."""
    from ex4d.generators.presets import make_generator

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
    from ex4d.contact import ContactSheet

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
