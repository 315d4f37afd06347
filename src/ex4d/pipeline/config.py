"""What a run is made from, besides the video; and what is refused before any work."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ex4d.errors import InputError
from ex4d.generators.make import default_preset
from ex4d.mesh.rule import MeshRule


@dataclass(frozen=True)
class RenderOptions:
    """How the line renders.

    Attributes:
        rule: How depth becomes a mesh; `MeshRule.reference()` reproduces the EX-4D release.
        rasterizer: "auto", "cpu", "cuda", "reference" or "nvdiffrast".
        supersample: 2 for smooth mask edges and `RenderClip.coverage`.
        plate: Look for what other times of the clip show behind things that move.
    """

    rule: MeshRule = MeshRule()
    rasterizer: str = "auto"
    supersample: int = 1
    plate: bool = True


def default_depth() -> str:
    """The embedded depth network, if the package has it; else a plane, which is no more than a trial."""
    from ex4d.depth.estimators.nano import available

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


def check_options(config: RunConfig) -> None:
    """Refuse what can be refused before any work: unknown presets and rasterisers."""
    from ex4d.generators.make import check_generator, check_preset
    from ex4d.render.make import get_rasterizer

    check_preset(config.preset)
    get_rasterizer(config.rasterizer)
    if config.supersample not in (1, 2, 3, 4):
        raise InputError(f"--supersample {config.supersample}", "1 to 4", "--supersample 2")
    check_generator(config.preset, config.generator)
    if config.relative_to not in ("source", "world"):
        raise InputError(f"--relative-to {config.relative_to}", "source or world", "--relative-to source")
