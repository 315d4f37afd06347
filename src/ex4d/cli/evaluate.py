"""`ex4d evaluate`: score folders of outputs, any tool's, by the field's protocols."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from tyro.conf import Positional, arg

from ex4d.errors import InputError

if TYPE_CHECKING:
    from ex4d.render.base import DepthRasterizer


def evaluate(
    protocol: Positional[str],
    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="FOLDER...")] = (),
    /,
    out: Path = Path("evaluation"),
    references: Path | None = None,
    tool: str = "auto",
    features: str | None = None,
    clip_features: str | None = None,
    lpips: Path | None = None,
    poses: Path | None = None,
    pose_name: str = "poses from files",
    vbench: Path | None = None,
    make: Path | None = None,
    seeds: tuple[int, ...] = (),
    angles: tuple[float, ...] = (),
    size: int = 256,
    frames: int = 49,
    key: Path | None = None,
    max_pairs: int | None = None,
    note: str = "",
) -> int:
    """Score outputs of any tool; writes report.json, report.md and a self-contained report.html.

    PROTOCOL is one of: ex4d, davis-50x10, iphone-ptz, kubric4d, redirect4d, rendered, a .yaml file of your own; geometry (no
    outputs needed: four representations on rendered scenes); user-study (two or more folders; with --key, files of answers).
    Every FOLDER holds one system's outputs. What cannot be scored is named and the rest goes on; the exit code is then 1.

    Args:
        protocol: Protocol name or file.
        folders: One folder per system.
        out: Where reports go; scores kept there are used again.
        references: Folder of reference clips (true targets or sources, as the protocol says).
        tool: Naming of the outputs: auto, ex4d, ex-4d, trajectorycrafter, recammaster, redirector, gen3c, vista4d, neoverse,
            frames or flat.
        features: Network for FID and KID: a TorchScript file, or random (untrained, for own comparisons only).
        clip_features: Network for FVD: a TorchScript file, or random.
        lpips: LPIPS weights in the lpips package's naming.
        poses: Folder of poses that another program estimated, CLIP.npz each.
        pose_name: Name and version of that program.
        vbench: Python interpreter of an environment with the vbench package.
        make: For the rendered protocol: write its references into this folder and stop.
        seeds: Scenes of the geometry tier and of --make (default: ten test seeds).
        angles: Angles of the geometry tier and of --make, degrees (default: 15 30 60 90).
        size: Side of their pictures, pixels.
        frames: Length of the clips that --make writes.
        key: key.json of a user study whose answers the folders are.
        max_pairs: At most this many pairs in a user study.
        note: Free text for the report.
    """
    from ex4d.cli.shared import progress_bars

    with progress_bars() as progress:
        if protocol == "geometry":
            return _geometry(out, seeds, angles, size, progress)
        if protocol == "user-study":
            return _study(folders, out, references, tool, key, max_pairs)
        from ex4d.evaluate.protocols.folders import Options, evaluate_folders
        from ex4d.evaluate.protocols.protocol import load_protocol
        from ex4d.evaluate.report.report import worst_clips, write_report

        loaded = load_protocol(protocol)
        if make is not None:
            return _make(make, seeds, angles, size, frames, progress)
        options = Options(
            references=references,
            tool=tool,
            tools=_tools(features, clip_features, lpips),
            poses=poses,
            pose_name=pose_name,
            vbench=vbench,
            note=note,
        )
        report = evaluate_folders(loaded, folders, out, options, progress)
        paths = write_report(report, out, worst_clips(report))
    for failure in report["failures"]:
        print(f"ex4d: {failure['system']}, {failure['item']}: {failure['problem']}", file=sys.stderr)
    print(f"{len(report['items'])} clips scored, {len(report['failures'])} problems; {paths[-1]}")
    return 1 if report["failures"] else 0


def _tools(features: str | None, clip_features: str | None, lpips: Path | None):
    from ex4d.evaluate.metrics.features import load_features
    from ex4d.evaluate.metrics.lpips import Lpips
    from ex4d.evaluate.protocols.score import Tools

    return Tools(
        load_features(features) if features else None,
        load_features(clip_features) if clip_features else None,
        Lpips(lpips) if lpips else None,
    )


def _scenes(seeds: tuple[int, ...], angles: tuple[float, ...], size: int):
    from ex4d.evaluate.rendered.geometry import ANGLES_DEG, SEEDS

    if not 32 <= size <= 2048:
        raise InputError(f"--size {size}", "32 to 2048 pixels", "--size 256")
    if any(s < 0 for s in seeds):
        raise InputError(f"--seeds {min(seeds)}", "seeds of 0 or more", "--seeds 1000000 1000001")
    if any(not 0 < a <= 180 for a in angles):
        raise InputError(
            f"--angles {' '.join(f'{a:g}' for a in angles)}", "angles above 0, up to 180 degrees", "--angles 30 60 90"
        )
    return seeds or SEEDS, angles or ANGLES_DEG


def _rasterizer() -> DepthRasterizer:
    from ex4d.render.make import get_rasterizer

    return cast("DepthRasterizer", get_rasterizer("auto"))


def _geometry(out: Path, seeds: tuple[int, ...], angles: tuple[float, ...], size: int, progress) -> int:
    from ex4d.evaluate.rendered.geometry import run_tier, tier_table
    from ex4d.evaluate.rendered.references import geometry_clips, geometry_report
    from ex4d.evaluate.report.report import write_report
    from ex4d.system.atomic import ensure_dir

    chosen, at = _scenes(seeds, angles, size)
    ensure_dir(out)
    rasterizer = _rasterizer()
    rows = run_tier(chosen, at, size, rasterizer, progress)
    paths = write_report(geometry_report(rows, size), out, geometry_clips(rows, size, rasterizer))
    print(tier_table(rows))
    print(paths[-1])
    return 0


def _make(folder: Path, seeds: tuple[int, ...], angles: tuple[float, ...], size: int, frames: int, progress) -> int:
    from ex4d.evaluate.rendered.references import make_references

    if frames < 2:
        raise InputError(f"--frames {frames}", "2 frames or more", "--frames 49")
    chosen, at = _scenes(seeds, angles, size)
    made = make_references(folder, chosen, at, (size, size), frames, _rasterizer(), progress)
    print(
        f"{len(made)} references in {folder}: run a tool on each input.mkv along its cameras.json, then score its outputs"
    )
    return 0


def _study(
    folders: tuple[Path, ...], out: Path, sources: Path | None, tool: str, key: Path | None, max_pairs: int | None
) -> int:
    import json

    from ex4d.evaluate.study.study import analyse_study, make_study, study_table
    from ex4d.system.atomic import ensure_dir, written_whole

    if key is None:
        pairs = make_study(folders, out, sources, tool, max_pairs=max_pairs)
        print(f"{pairs} pairs; open {out / 'index.html'}; keep {out / 'key.json'} to yourself")
        return 0
    answers = [f for folder in folders for f in (sorted(folder.glob("*.json")) if folder.is_dir() else [folder])]
    result = analyse_study(key, [a for a in answers if a.resolve() != key.resolve()])
    for name, text in (("study.json", json.dumps(result, indent=2) + "\n"), ("study.md", study_table(result))):
        with written_whole(ensure_dir(out) / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(study_table(result))
    return 0
