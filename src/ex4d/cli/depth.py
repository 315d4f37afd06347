"""`ex4d depth`: depth of every frame, with a preview, numbers, and poses where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from ex4d.errors import InputError

if TYPE_CHECKING:
    from ex4d.depth.base import DepthEstimator
    from ex4d.io.video.read import VideoSource


DEPTH_MANIFEST, DEPTH_PREVIEW, CONFIDENCE = "depth_manifest.json", "depth_preview.mp4", "confidence.npz"


@dataclass(frozen=True)
class ModelOptions:
    """Options of the estimators with a network."""

    device: str = "auto"
    """cpu, cuda, or auto."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Precision of the network; auto: float16 on a GPU, float32 on the CPU."""
    models_dir: Path | None = None
    """Folder of models, looked at before $EX4D_MODELS and the Hugging Face cache."""
    batch: int = 4
    """Frames at once (per-frame models)."""
    align: bool = True
    """Fit scale and shift over time (per-frame models)."""
    flow_radius: int = 0
    """Frames on either side averaged along optical flow (per-frame models); 0: none."""
    window: int = 110
    """Frames a window (DepthCrafter); fewer need less memory."""
    overlap: int = 25
    """Frames that neighbouring windows share (DepthCrafter)."""
    steps: int = 5
    """Denoising steps (DepthCrafter)."""
    guidance: float = 1.0
    """Classifier-free guidance (DepthCrafter)."""
    memory: Literal["auto", "fast", "low", "lowest"] = "auto"
    """What stays on the GPU (DepthCrafter): everything, one network at a time, or one block at a time."""


def depth(
    video: Positional[Path] | None = None,
    /,
    model: str = "auto",
    out: Path | None = None,
    options: Annotated[ModelOptions, arg(name="")] = ModelOptions(),
    prompt: Path | None = None,
    depth_kind: Literal["metric", "relative", "inverse", "disparity"] | None = None,
    fill_holes: bool = False,
    scale: float = 1.0,
    fov: float | None = None,
    source_cameras: str = "static",
    clean_edges: bool | None = None,
    confidence: bool = False,
    preview: bool = True,
    reference: bool = False,
    half: bool = False,
    seed: int = 0,
    start: float | None = None,
    frames: int | None = None,
    size: str | None = None,
    list_models: bool = False,
) -> int:
    """Depth of every frame: depth.npz, a preview video in colours, and depth_manifest.json.

    Args:
        video: Any video file.
        model: A model's name, auto (the first permissive one that is here), plane, or a depth file to convert.
        out: Folder of the outputs; default out/VIDEO_depth.
        options: Options of the networks.
        prompt: Coarse metric depth for models that take it (a depth file).
        depth_kind: What the numbers of a depth file mean, where it does not say.
        fill_holes: Fill NaN, zero and negative values of a depth file from their neighbours.
        scale: Multiplies the depth of a file.
        fov: Horizontal field of view in degrees, if known.
        source_cameras: static, estimate, or a camera file with the source camera's poses.
        clean_edges: Repair flying pixels at depth edges; default: for networks yes, for files no.
        confidence: Also write confidence.npz (1 on smooth surfaces, 0 at depth edges).
        preview: Write depth_preview.mp4.
        reference: The EX-4D release's conversion, focal length and seed.
        half: float16 in depth.npz: half the size, relative error up to 5e-4.
        seed: Of everything random.
        start: Seconds to skip at the start.
        frames: How many frames to use; default all.
        size: WIDTHxHEIGHT; default the source's own.
        list_models: Print the models with sizes and licences, and stop.
    """
    from ex4d.models.depth.cards import licence_table

    if list_models:
        print(licence_table())
        return 0
    if video is None:
        raise InputError("no video", "a video file", "ex4d depth VIDEO --model auto")
    from ex4d.cameras.make import camera_file
    from ex4d.cli.shared import parse_size
    from ex4d.depth.make import depth_way
    from ex4d.io.video.read import open_video
    from ex4d.pipeline.folder import DEPTH
    from ex4d.system.records import check_outputs, mark_done, stage_claim

    source = open_video(video, start=start, frames=frames, size_hw=parse_size(size))
    folder = out or Path("out") / f"{video.stem}_depth"
    inputs = [video, *([Path(model)] if depth_way(model) == "brought" else []), *([prompt] if prompt else [])]
    if (cameras := camera_file(source_cameras)) is not None:
        inputs.append(cameras)
    names = [DEPTH, DEPTH_MANIFEST, *([DEPTH_PREVIEW] if preview else []), *([CONFIDENCE] if confidence else [])]
    check_outputs(folder, {"depth": names}, inputs)
    estimator = _estimator(source, model, options, prompt, depth_kind, fill_holes, scale, fov, reference, folder)
    with stage_claim(folder, "depth", names, inputs):
        summary = _write(
            source, estimator, folder, video, model, source_cameras, reference, clean_edges, confidence, preview, half, seed
        )  # fmt: skip
        mark_done(folder, "depth", "ex4d depth", names)
    print(f"{folder} ({', '.join(f'{name} {value:.4g}' for name, value in summary.items())})")
    return 0


def _estimator(
    source: VideoSource,
    model: str,
    options: ModelOptions,
    prompt: Path | None,
    depth_kind: str | None,
    fill_holes: bool,
    scale: float,
    fov: float | None,
    reference: bool,
    folder: Path,
) -> DepthEstimator:
    from dataclasses import asdict

    from ex4d.depth.make import depth_way, make_depth
    from ex4d.io.depth.open import open_depth
    from ex4d.models.depth.cards import MODELS

    chosen, given = asdict(options), asdict(ModelOptions())
    more: dict[str, Any] = {name: value for name, value in chosen.items() if value != given[name]}
    if depth_way(model) == "model":
        more["work_dir"] = folder / ".depth"
    if prompt is not None:
        more["prompt"] = open_depth(prompt)
    if model in MODELS:
        print(MODELS[model])
    return make_depth(
        model,
        size_hw=source.size_hw,
        num_frames=source.num_frames,
        fov_deg=fov,
        preset_reference=reference,
        kind=depth_kind,  # type: ignore[arg-type]
        fill_holes=fill_holes,
        scale=scale,
        open_depth=open_depth,
        **more,
    )


def _write(
    source: VideoSource,
    estimator: DepthEstimator,
    folder: Path,
    video: Path,
    model: str,
    source_cameras: str,
    reference: bool,
    clean: bool | None,
    confidence: bool,
    preview: bool,
    half: bool,
    seed: int,
) -> dict[str, float]:
    import shutil

    from ex4d.cli.shared import progress_bars, say
    from ex4d.pipeline.depth_stage import placed_depth, repairs_edges, write_depth_clips
    from ex4d.pipeline.stage import RunResult
    from ex4d.system.manifest import write_manifest

    result, cleaned = RunResult(folder), repairs_edges(model, clean, reference)
    with progress_bars() as progress:
        clips = estimator.estimate(source.chunks(16), seed=seed, progress=progress)
        clips = placed_depth(
            clips, source, model, result, clean=clean, reference=reference, source_cameras=source_cameras
        )
        write_depth_clips(folder / "depth.npz", clips, source, half=half)
        summary = _second_look(source, folder, confidence, preview)
    manifest = estimator.manifest()
    for note in getattr(estimator, "notes", lambda: [])():
        result.note(note)
    say([*source.notes, *result.notes, f"intrinsics: {manifest.get('intrinsics', '?')}"])
    write_manifest(
        folder / DEPTH_MANIFEST,
        config={"model": model, "source_cameras": source_cameras, "clean_edges": cleaned, "half": half},
        seed=seed,
        inputs={"video": video},
        warnings=result.notes,
        depth=manifest,
        stats=summary,
        cameras=result.details.get("source_cameras", {"from": source_cameras}),
    )
    shutil.rmtree(folder / ".depth", ignore_errors=True)  # the pieces kept for resuming are of no more use
    names = ("depth_min", "depth_median", "depth_max", "flicker", "flying_pixels_share")
    return {name: float(summary[name]) for name in names}  # type: ignore[arg-type]


def _second_look(source: VideoSource, folder: Path, confidence: bool, preview: bool) -> dict[str, object]:
    """Preview, numbers and confidence of the depth that was written, chunk by chunk."""
    from contextlib import ExitStack

    import numpy as np

    from ex4d.depth.maps.edges import edge_confidence
    from ex4d.depth.maps.picture import preview_frame
    from ex4d.depth.maps.stats import DepthStats
    from ex4d.io.depth.file import DepthWriter, open_depth
    from ex4d.io.video.read import VideoWriter
    from ex4d.pipeline.footage import depth_range_of
    from ex4d.types import DepthClip

    file, stats, done = open_depth(folder / "depth.npz"), DepthStats(), 0
    span = depth_range_of(file)
    unit = "metric" if file.kind == "metric" else "relative"
    with ExitStack() as stack:
        show = stack.enter_context(VideoWriter(folder / DEPTH_PREVIEW, source.fps)) if preview else None
        sure = (
            stack.enter_context(DepthWriter(folder / CONFIDENCE, source.num_frames, source.fps, half=True))
            if confidence
            else None
        )
        for chunk in source.chunks(16):
            maps = np.asarray(file.read(done, done + len(chunk)), np.float32)
            clip = DepthClip(maps, np.zeros((len(maps), 3, 3), np.float32), unit)
            stats.add(chunk, clip)
            if show is not None:
                show.write(np.stack([preview_frame(map_, span.near, span.far, unit) for map_ in maps]))
            if sure is not None:
                sure.write(DepthClip(np.stack([edge_confidence(map_) for map_ in maps]), clip.K, unit))
            done += len(chunk)
    return stats.summary()
