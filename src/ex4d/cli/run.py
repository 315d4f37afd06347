"""`ex4d run`: the whole line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ex4d.errors import InputError
from ex4d.generators.wan14b.config import Wan14bOptions

NO_WAN_OPTIONS = Wan14bOptions()


@dataclass(frozen=True)
class CommonOptions:
    """Options of every command that renders."""

    depth: str | None = None
    """A depth file or folder (.npz, EXR or 16-bit PNG sequence), `plane`, or the name of a depth model; default nano, the embedded one."""
    out: Path | None = None
    """Folder of all outputs; default out/VIDEO_CAMERA."""
    seed: int = 0
    """Of everything random."""
    start: float | None = None
    """Seconds to skip at the start."""
    frames: int | None = None
    """How many frames to use; default all."""
    size: str | None = None
    """WIDTHxHEIGHT; default the source's own."""
    fov: float | None = None
    """Horizontal field of view of the source camera in degrees, if known."""
    depth_kind: Literal["metric", "relative", "inverse", "disparity"] | None = None
    """What the numbers of a depth file mean, where it does not say."""
    fill_holes: bool = False
    """Fill NaN, zero and negative values of a depth file from their neighbours (sensor depth has holes)."""
    source_cameras: str = "static"
    """`static`, `estimate`, or a camera file with the source camera's poses."""
    clean_edges: bool | None = None
    """Repair flying pixels at depth edges; default: for depth models yes, for files no."""
    relative_to: Literal["source", "world"] = "source"
    """Whether the new path rides on the source camera's motion or stands in the world."""
    reference: bool = False
    """Reproduce the EX-4D release, faults included."""
    rasterizer: Literal["auto", "cpu", "cuda", "reference", "nvdiffrast"] = "auto"
    """What draws the mesh."""
    supersample: int = 1
    """Samples per pixel and axis; 2 gives smooth mask edges."""


def default_out(video: Path, camera: str) -> Path:
    """out/NAME_CAMERA without characters that some file system refuses."""
    return Path("out") / re.sub(r"[^A-Za-z0-9.+-]+", "_", f"{video.stem}_{Path(camera).name}").strip("_")


def make_config(
    video: Path, camera: str, common: CommonOptions, preset: str, generator: dict[str, object] | None = None
):
    """A RunConfig from what was typed."""
    from ex4d.cli.shared import parse_size
    from ex4d.pipeline.config import RunConfig, default_depth

    depth = common.depth or default_depth()
    if common.depth is None and depth == "plane":  # a plane is a trial, never chosen by itself
        raise InputError(
            "no --depth, and this package has no embedded depth network",
            "a depth file, `plane`, or a depth model",
            "--depth FILE.npz, or --depth plane for a trial",
        )
    return RunConfig(
        out=common.out or default_out(video, camera),
        camera=camera,
        depth=depth,
        preset=preset,
        seed=common.seed,
        start=common.start,
        frames=common.frames,
        size_hw=parse_size(common.size),
        fov_deg=common.fov,
        depth_kind=common.depth_kind,
        fill_holes=common.fill_holes,
        source_cameras=common.source_cameras,
        clean_edges=common.clean_edges,
        relative_to=common.relative_to,
        reference=common.reference,
        rasterizer=common.rasterizer,
        supersample=common.supersample,
        generator=generator or {},
    )


def run_line(video: Path, config, until: str, note: str = "") -> int:
    """Run the stages with progress bars and say what came out."""
    from ex4d.cli.shared import progress_bars, say
    from ex4d.pipeline.run import run_stages

    with progress_bars() as progress:
        result = run_stages(video, config, until=until, progress=progress)
    say([note, *result.notes] if note else result.notes)
    times = ", ".join(f"{stage} {'kept' if not s else f'{s:.1f} s'}" for stage, s in result.seconds.items())
    print(f"{result.out} ({times})")
    return 0


def run(
    video: Positional[Path],
    /,
    common: Annotated[CommonOptions, arg(name="")],
    wan: Annotated[Wan14bOptions, arg(name="")] = NO_WAN_OPTIONS,
    camera: str = "orbit:40",
    preset: str | None = None,
    quality: str | None = None,
) -> int:
    """Re-shoot a video along a new camera path.

    Args:
        video: Any video file.
        common: Shared options.
        wan: Choices of --preset wan14b.
        camera: The new path: orbit:40, orbit:yaw=60,pitch=10, dolly:in=30%, a preset of the release (30, 60, 90, 180), or a
            camera file. `ex4d cameras --help` tells more. The released 180 slides 45 degrees to either side; orbit:180 turns 180.
        preset: What completes the video: nano (the embedded model, the default), fill (no model) or wan14b.
        quality: Of --preset nano: draft, default or best.
    """
    from ex4d.generators.make import choose_preset

    out = common.out or default_out(video, camera)
    name, generator, note = choose_preset(preset, quality, wan, out / ".latents")
    return run_line(video, make_config(video, camera, common, name, generator), "generate", note)
