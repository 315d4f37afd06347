"""From what the user typed to a depth estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from ex4d.depth.base import DepthEstimator
from ex4d.depth.estimators.given import DepthMaps, PrecomputedDepth, check_aspect, maps_intrinsics
from ex4d.depth.estimators.models import is_model_folder, make_model_depth, model_option_names
from ex4d.depth.estimators.plane import PlaneDepth, PlaneParameters
from ex4d.depth.intrinsics import Intrinsics, choose_intrinsics
from ex4d.errors import InputError
from ex4d.models.depth.cards import MODELS
from ex4d.types import KINDS, DepthKind


def depth_way(spec: str) -> Literal["plane", "model", "brought"] | None:
    """What a `--depth` option names: a plane, a network, or a file or folder of the user's own; None where it is nothing.

    `plane` and the names of networks come first, then what lies on the disk, so a folder that happens to be called `nano` hides
    no network; `./nano` is always the folder.
    """
    if spec == "plane" or spec.startswith("plane:"):
        return "plane"
    if spec in ("auto", "nano") or spec in MODELS or is_model_folder(Path(spec)):
        return "model"
    return "brought" if Path(spec).exists() else None


def make_depth(
    spec: str | DepthMaps,
    *,
    size_hw: tuple[int, int],
    num_frames: int | None = None,
    K: Float[np.ndarray, "*time 3 3"] | None = None,
    fov_deg: float | None = None,
    metadata: Mapping[str, object] | None = None,
    preset_reference: bool = False,
    kind: DepthKind | None = None,
    fill_holes: bool = False,
    scale: float = 1.0,
    open_depth: Callable[[Path], DepthMaps] | None = None,
    **model_options: object,
) -> DepthEstimator:
    """The estimator a `--depth` option names.

    Args:
        spec: `plane` or `plane:distance=4,tilt=20,turn=0`; `nano` (the embedded network); `auto`, a model name of `depth.cards.MODELS`
            or its folder; the path of a depth file or folder; or `DepthMaps`.
        size_hw: The clip's (height, width).
        num_frames: The clip's length where known, to refuse a depth file of another length at once.
        K: Intrinsics from a file, in pixels of `size_hw`, [3, 3] or [time, 3, 3].
        fov_deg: Horizontal field of view given by the user, degrees.
        metadata: EXIF or container tags of the video.
        preset_reference: Released behaviour: 500 px, clip-wide minimum and maximum, z = 10000 / (3900 d).
        kind: What a depth file's numbers mean; None: as the file says, else detected with a warning.
        fill_holes: Fill NaN, zero and negative values of a depth file from their neighbours.
        scale: Multiplies the depth of a file.
        open_depth: How a path is opened; the line passes `ex4d.io.depth.open.open_depth` (a stage does not open files).
        model_options: For estimators with a network: see `resolve_model.make_model_depth`. Files and planes have none.

    Raises:
        InputError: An unknown name, a missing file, an option that the estimator does not have, intrinsics no lens has.
    """
    way = "brought" if isinstance(spec, DepthMaps) else depth_way(spec)
    known = model_option_names() if way == "model" else frozenset[str]()
    if way is not None and (unknown := sorted(set(model_options) - known)):
        name = spec.name if isinstance(spec, DepthMaps) else spec
        raise InputError(
            f"depth option {', '.join(unknown)} with {name}",
            f"one of {', '.join(sorted(known))}" if known else "a depth model for options of networks",
            "ex4d depth --help" if known else "leave it out",
        )
    if kind is not None and kind not in KINDS:
        raise InputError(f"depth kind {kind!r}", "one of " + ", ".join(KINDS), f"--depth-kind {KINDS[0]}")
    chosen = {"K": K, "fov_deg": fov_deg, "metadata": metadata, "reference": preset_reference}
    if isinstance(spec, DepthMaps):
        maps = spec if kind is None else replace(spec, kind=kind)
        if num_frames is not None and maps.num_frames != num_frames:
            raise InputError(
                f"{maps.num_frames} depth maps in {maps.name} for a video of {num_frames} frames",
                "one depth map per frame",
                f"--frames {min(maps.num_frames, num_frames)}",
            )
        check_aspect(maps, size_hw)
        found = choose_intrinsics(size_hw, model_K=maps_intrinsics(maps, size_hw), **chosen)
        return PrecomputedDepth(maps, found, preset_reference, fill_holes, scale)
    if way == "plane":
        return PlaneDepth(PlaneParameters.parse(spec), choose_intrinsics(size_hw, **chosen))
    path = Path(spec)
    if way == "model":

        def choose(model_K: np.ndarray | None) -> Intrinsics:
            return choose_intrinsics(size_hw, model_K=model_K, **chosen)

        return make_model_depth(spec, choose, reference=preset_reference, **model_options)  # type: ignore[arg-type]
    if way == "brought":
        if open_depth is None:
            raise InputError(f"depth path {spec} without a way to open it", "open_depth=ex4d.io.depth.open.open_depth")
        return make_depth(
            open_depth(path),
            size_hw=size_hw,
            num_frames=num_frames,
            preset_reference=preset_reference,
            kind=kind,
            fill_holes=fill_holes,
            scale=scale,
            K=K,
            fov_deg=fov_deg,
            metadata=metadata,
        )
    names = "plane, nano, auto, " + ", ".join(MODELS)
    raise InputError(
        f"depth {spec!r}, which is no file", f"the path of a depth file, or one of {names}", "ex4d depth --help"
    )
