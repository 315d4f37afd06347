"""Run a protocol on folders of outputs: pair, score, resume, summarise. What cannot be scored is named, and the rest goes on."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.errors import Ex4dError, InputError
from ex4d.evaluate.metrics.camera import FilePoses, PnpEstimator, error_where_placed
from ex4d.evaluate.metrics.distribution import frechet_distance, kernel_distance
from ex4d.evaluate.metrics.masks import mask_score
from ex4d.evaluate.metrics.statistics import Summary, summarize
from ex4d.evaluate.protocols.loaders import Output, find_outputs
from ex4d.evaluate.protocols.protocol import Protocol
from ex4d.evaluate.protocols.score import Pair, Tools, check_same, read_clip, read_mask, score_camera, score_pair
from ex4d.system.atomic import ensure_dir, written_whole
from ex4d.system.manifest import file_hash, plain, versions
from ex4d.types import Progress, VideoClip

#: Raised when scoring changes, so that kept scores are made anew.
SCORING_VERSION = 1

#: Resamples for intervals of distribution distances: their cost grows with the cube of the feature size.
FEW_RESAMPLES, MANY_RESAMPLES, SMALL_FEATURES = 20, 100, 256


@dataclass(frozen=True)
class Options:
    """What to score with.

    Attributes:
        references: Folder of reference clips; None when every reference lies beside the outputs or none is needed.
        tool: Loader, or "auto".
        tools: Networks for FID, FVD and LPIPS.
        poses: Folder of poses estimated elsewhere, one .npz per clip (a subfolder per system is looked at first).
        pose_name: Name and version of what estimated them.
        vbench: Interpreter of an environment with vbench.
        note: Free text for the report.
    """

    references: Path | None = None
    tool: str = "auto"
    tools: Tools = Tools()
    poses: Path | None = None
    pose_name: str = "poses from files"
    vbench: Path | None = None
    note: str = ""


def evaluate_folders(
    protocol: Protocol, folders: Sequence[Path], out: Path, options: Options, progress: Progress | None = None
) -> dict[str, Any]:
    """Score every folder as one system; returns the report (see `report.py`).

    Raises:
        InputError: A folder or the references folder that does not exist, or holds nothing to score.
    """
    if not folders:
        raise InputError("no folder of outputs", "one folder per system", f"ex4d evaluate {protocol.name} FOLDER...")
    if options.references is not None and not options.references.is_dir():
        raise InputError(f"{options.references} is not a folder", "a folder of reference clips", "--references DIR")
    names = _system_names(folders)
    found = [find_outputs(folder, options.tool, list(protocol.groups)) for folder in folders]
    out = ensure_dir(out)
    items, failures, features = [], [], {}
    total = sum(len(outputs) for _, outputs in found)
    done = 0
    for name, folder, (_, outputs) in zip(names, folders, found, strict=True):
        failures += _missing(protocol, name, outputs)
        for output in outputs:
            try:
                record, arrays = _scored(protocol, name, folder, output, out, options)
                items.append(record)
                features[name, output.item] = arrays
                failures += [{"system": name, "item": output.item, "problem": p} for p in record["problems"]]
            except (Ex4dError, OSError, ValueError) as error:
                failures.append({"system": name, "item": output.item, "problem": str(error)})
            done += 1
            if progress is not None:
                progress(done, total, "scoring")
        if options.vbench is not None and "vbench" in protocol.metrics:
            failures += _add_vbench(options.vbench, name, outputs, items)
    summary = _summaries(names, items) + _distributions(protocol, names, items, features)
    tools = options.tools
    return {
        "protocol": protocol.name,
        "title": protocol.title,
        "systems": [
            {"name": n, "folder": str(f), "loader": loader, "outputs": len(o)}
            for n, f, (loader, o) in zip(names, folders, found, strict=True)
        ],
        "groups": {g: {"angle_deg": protocol.angle_of(g), **s} for g, s in protocol.groups.items()},
        "settings": {
            "references": str(options.references) if options.references else None,
            "frame features": getattr(tools.frame_features, "name", None),
            "clip features": getattr(tools.clip_features, "name", None),
            "lpips": getattr(tools.lpips, "name", None),
            "pose estimator": options.pose_name if options.poses else _pnp_name(items),
            "alignment of TransErr": protocol.alignment,
            "note": options.note,
        },
        "items": items,
        "summary": summary,
        "failures": failures,
        "cautions": _departures(protocol, names, items) + list(protocol.cautions) + _unscored(protocol, options),
        "published": protocol.published,
        "versions": versions(),
    }


def _system_names(folders: Sequence[Path]) -> list[str]:
    """Folder names, made distinct by their parents where two are equal."""
    names = [f.resolve().name for f in folders]
    return [n if names.count(n) == 1 else f"{f.resolve().parent.name}/{n}" for n, f in zip(names, folders, strict=True)]


def _missing(protocol: Protocol, system: str, outputs: Sequence[Output]) -> list[dict[str, str]]:
    have = {o.clip for o in outputs}
    missing = [
        {"system": system, "item": clip, "problem": "no output for this clip"}
        for clip in protocol.items
        if clip not in have
    ]
    pairs = {(o.clip, o.group) for o in outputs}
    if protocol.groups:
        used = {g for _, g in pairs if g in protocol.groups}
        missing += [
            {"system": system, "item": f"{clip}_{group}", "problem": "no output for this clip and group"}
            for clip in sorted({c for c, g in pairs if g in protocol.groups})
            for group in used
            if (clip, group) not in pairs
        ]
        missing += [
            {
                "system": system,
                "item": o.item,
                "problem": f"group {o.group or '(none)'} is not one of {', '.join(protocol.groups)}",
            }
            for o in outputs
            if o.group not in protocol.groups
        ]
    return missing


def _departures(protocol: Protocol, systems: Sequence[str], items: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences on how what was scored differs from what the protocol asks for."""
    sets = {frozenset((i["clip"], i["group"]) for i in items if i["system"] == system) for system in systems}
    lines = ["The systems were not scored on the same clips: their means do not compare."] if len(sets) > 1 else []
    for system in systems:
        mine = [i for i in items if i["system"] == system]
        clips = len({i["clip"] for i in mine} if protocol.name == "ex4d" else mine)
        if protocol.expected_items and clips < protocol.expected_items:
            lines.append(f"{system}: {clips} of the protocol's {protocol.expected_items} clips.")
        frames = sorted({i["num_frames"] for i in mine} - {protocol.num_frames})
        if protocol.num_frames and frames:
            lines.append(
                f"{system}: clips of {', '.join(map(str, frames))} frames; the protocol has {protocol.num_frames}."
            )
        sizes = sorted({tuple(i["size_hw"]) for i in mine} - {protocol.size_hw})
        if protocol.size_hw and sizes:
            shown = ", ".join(f"{w}x{h}" for h, w in sizes)
            lines.append(f"{system}: clips of {shown}; the protocol has {protocol.size_hw[1]}x{protocol.size_hw[0]}.")
    return lines


def _unscored(protocol: Protocol, options: Options) -> list[str]:
    tools, lines = options.tools, []
    for metric, given, how in (
        ("fid", tools.frame_features, "--features FILE.pt (or random)"),
        ("fvd", tools.clip_features, "--clip-features FILE.pt (or random)"),
        ("lpips", tools.lpips, "--lpips FILE"),
        ("vbench", options.vbench, "--vbench PYTHON"),
    ):
        if metric in protocol.metrics and given is None:
            lines.append(f"{metric} belongs to this protocol but was not scored: give {how}.")
    return lines


def _reference(patterns: Sequence[str], root: Path | None, output: Output) -> Path | None:
    if root is None:
        return None
    track, _, trajectory = output.clip.partition("_yaw_")
    values = {"clip": output.clip, "group": output.group, "track": track, "trajectory": f"yaw_{trajectory}"}
    for pattern in patterns:
        path = root / pattern.format(**values)
        if path.exists():
            return path
    return None


def _scored(
    protocol: Protocol, system: str, folder: Path, output: Output, out: Path, options: Options
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The record and features of one output, kept in `out/items` under the hash of all that they depend on."""
    root = options.references
    reference = _reference(protocol.reference_files, root, output)
    visible = _reference(protocol.masks, root, output)
    cameras = _reference(protocol.cameras, root, output)
    poses = _poses_folder(options.poses, system)
    used = {"output": output.path, "reference": reference, "visible": visible, "cameras": cameras}
    pose_file = poses / f"{output.item}.npz" if poses else None
    used["poses"] = pose_file if pose_file is not None and pose_file.is_file() else None
    tools = options.tools
    key = {
        "version": SCORING_VERSION,
        "files": {k: file_hash(p) for k, p in used.items() if p is not None},
        "protocol": plain(protocol),
        "tools": [getattr(t, "name", None) for t in (tools.frame_features, tools.clip_features, tools.lpips)],
        "poses": options.pose_name,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    kept = ensure_dir(out / "items") / f"{digest}.json"
    if kept.is_file() and kept.with_suffix(".npz").is_file():
        try:
            with np.load(kept.with_suffix(".npz"), allow_pickle=False) as archive:
                arrays = dict(archive)
            record = json.loads(kept.read_text(encoding="utf-8"))
            return {**record, **_identity(system, output, reference)}, arrays
        except (ValueError, OSError, zipfile.BadZipFile):
            pass  # a damaged record is made again
    record, arrays = _score(protocol, system, output, reference, visible, cameras, poses, options)
    with written_whole(kept.with_suffix(".npz")) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
    with written_whole(kept) as temporary:
        temporary.write_text(json.dumps(plain(record)), encoding="utf-8")
    return record, arrays


def _identity(system: str, output: Output, reference: Path | None) -> dict[str, Any]:
    """What a record is about; equal bytes share their scores, but not this."""
    return {
        "system": system,
        "clip": output.clip,
        "group": output.group,
        "seed": output.seed,
        "item": output.item,
        "path": str(output.path),
        "reference": str(reference) if reference else None,
    }


def _poses_folder(poses: Path | None, system: str) -> Path | None:
    return None if poses is None else poses / system if (poses / system).is_dir() else poses


def _score(
    protocol: Protocol,
    system: str,
    output: Output,
    reference: Path | None,
    visible: Path | None,
    cameras: Path | None,
    poses: Path | None,
    options: Options,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    video = read_clip(output.path)
    frames, problems, tools = video.frames, [], options.tools
    record: dict[str, Any] = {
        **_identity(system, output, reference),
        "num_frames": len(video),
        "size_hw": list(video.size_hw),
        "metrics": {},
        "problems": problems,
    }
    if reference is None and protocol.reference != "source":
        raise InputError(
            f"no reference for {output.item}", f"{' or '.join(protocol.reference_files)}", "--references DIR"
        )
    if protocol.reference == "silhouette":
        claimed, truth = frames.mean(-1) > 127.5, read_mask(reference)  # type: ignore[arg-type]
        check_same(claimed, truth, "the reference")
        record["metrics"]["silhouette_iou"] = mask_score(claimed, truth).iou
        return record, {}
    other = read_clip(reference) if reference else None
    if other is None:
        problems.append(f"no source clip {' or '.join(protocol.reference_files)}: left out of FID and FVD")
    target = other.frames if other is not None and protocol.reference == "target" else None
    if target is not None:
        check_same(frames, target, "the reference")
    pair = Pair(frames, target, read_mask(visible) if visible else None, _claimed(output.path, problems))
    record["metrics"] |= score_pair(pair, protocol.metrics, tools)
    if "camera" in protocol.metrics:
        try:
            record["metrics"] |= _camera(
                protocol, output, video, other if target is not None else None, cameras, poses, options, record
            )
        except InputError as error:
            problems.append(f"camera not scored: {error}")
    arrays: dict[str, np.ndarray] = {}
    for kind, network, wanted in (
        ("frames", tools.frame_features, {"fid", "kid"}),
        ("clip", tools.clip_features, {"fvd"}),
    ):
        if network is not None and wanted & set(protocol.metrics) and other is not None:
            of = network.of_frames if kind == "frames" else lambda x, n=network: n.of_clip(x)[None]
            arrays |= {f"{kind}_output": of(frames), f"{kind}_reference": of(other.frames)}
    return record, arrays


def _claimed(path: Path, problems: list[str]) -> np.ndarray | None:
    """The mask that a tool wrote beside its output, if it did."""
    for name in ("mask.mkv", "mask.mp4"):
        beside = path.parent / name
        if not path.is_dir() and beside.is_file() and beside != path:
            try:
                return read_mask(beside)
            except Ex4dError as error:
                problems.append(f"{beside.name} not used: {error}")
    return None


def _camera(
    protocol: Protocol,
    output: Output,
    video: VideoClip,
    target: VideoClip | None,
    cameras: Path | None,
    poses: Path | None,
    options: Options,
    record: dict[str, Any],
) -> dict[str, float]:
    if cameras is None:
        raise InputError(
            "no cameras.json", f"{' or '.join(protocol.cameras) or 'the requested path'}", "--references DIR"
        )
    from ex4d.io.cameras import read_cameras

    truth, _ = read_cameras(cameras)
    if poses is not None:
        estimate = FilePoses(poses, options.pose_name).poses_of(output.item)
        if len(estimate) != len(truth):
            raise InputError(f"{len(estimate)} poses for {len(truth)} cameras", "as many")
        error, placed = error_where_placed(estimate, truth.cam_from_world, protocol.alignment)  # type: ignore[arg-type]
        found = {"placed": placed}
        if error is not None:
            found |= {
                "rot_err": error.rot_deg,
                "rot_err_pairs": error.rot_pairs_deg,
                "trans_err": error.trans,
                "cam_mc": error.cam_mc,
            }
        return found
    source, depth = cameras.parent / "input.mkv", cameras.parent / "depth.npz"
    if not (source.is_file() and depth.is_file()):
        raise InputError(
            "no poses and no source with depth",
            "estimated poses, or input.mkv and depth.npz beside cameras.json",
            "--poses DIR",
        )
    from ex4d.io.depth.file import read_depth
    from ex4d.io.video.read import read_video

    estimator = PnpEstimator(read_video(source), read_depth(depth), truth.K[0])
    record["pose estimator"] = estimator.name
    return score_camera(video, truth.cam_from_world, estimator, protocol.alignment, target)  # type: ignore[arg-type]


def _pnp_name(items: Sequence[dict[str, Any]]) -> str | None:
    return next((i["pose estimator"] for i in items if "pose estimator" in i), None)


def _add_vbench(
    python: Path, system: str, outputs: Sequence[Output], items: list[dict[str, Any]]
) -> list[dict[str, str]]:
    """Put VBench's scores into the records; its names of files are the items'."""
    import shutil
    import tempfile

    from ex4d.evaluate.metrics.vbench import run_vbench

    with tempfile.TemporaryDirectory() as folder:
        named = {}
        for i, output in enumerate(outputs):
            if output.path.is_file():
                name = f"{i:05d}{output.path.suffix}"
                shutil.copyfile(output.path, Path(folder) / name)
                named[name] = output.item
        try:
            scores = run_vbench(python, Path(folder))
        except Ex4dError as error:
            return [{"system": system, "item": "(all)", "problem": str(error)}]
    records = {i["item"]: i for i in items if i["system"] == system}
    for dimension, values in scores.items():
        for name, value in values.items():
            if named.get(name) in records:
                records[named[name]]["metrics"][f"vbench_{dimension}"] = value
    return []


def _summaries(systems: Sequence[str], items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for system in systems:
        mine = [i for i in items if i["system"] == system]
        for group in _groups(mine):
            chosen = [i for i in mine if group in ("all", i["group"])]
            for metric in dict.fromkeys(m for i in chosen for m in i["metrics"]):
                kept = [i for i in chosen if metric in i["metrics"]]
                values = [_number(i["metrics"][metric]) for i in kept]
                s = summarize(values, [i["clip"] for i in kept])
                rows.append(_row(system, group, metric, s, kept, _seed_sd(kept, values)))
    return rows


def _groups(items: Sequence[dict[str, Any]]) -> list[str]:
    names = sorted({i["group"] for i in items}, key=lambda g: (len(g), g))
    if len(names) < 2:
        return [name or "all" for name in names]
    return [*names, "all"]


def _number(value: Any) -> float:
    return float(value)  # kept records hold "inf" and "nan" as text


def _row(
    system: str, group: str, metric: str, s: Summary, items: Sequence[dict[str, Any]], seed_sd: float | None
) -> dict[str, Any]:
    sizes = sorted({f"{i['size_hw'][1]}x{i['size_hw'][0]}" for i in items})
    return {
        "system": system,
        "group": group,
        "metric": metric,
        **{k: getattr(s, k) for k in ("mean", "low", "high", "sd", "n", "skipped")},
        "resolution": ", ".join(sizes),
        "seed_sd": seed_sd,
    }


def _seed_sd(items: Sequence[dict[str, Any]], values: Sequence[float]) -> float | None:
    """Mean standard deviation over the seeds of one clip and group; None where each has one seed."""
    by_pair: dict[tuple[str, str], list[float]] = {}
    for item, value in zip(items, values, strict=True):
        if math.isfinite(value):
            by_pair.setdefault((item["clip"], item["group"]), []).append(value)
    several = [float(np.std(v, ddof=1)) for v in by_pair.values() if len(v) > 1]
    return float(np.mean(several)) if several else None


def _distributions(
    protocol: Protocol,
    systems: Sequence[str],
    items: Sequence[dict[str, Any]],
    features: dict[tuple[str, str], dict[str, np.ndarray]],
) -> list[dict[str, Any]]:
    rows = []
    for metric, kind in (("fid", "frames"), ("kid", "frames"), ("fvd", "clip")):
        if metric not in protocol.metrics:
            continue
        for system in systems:
            mine = [
                i for i in items if i["system"] == system and f"{kind}_output" in features.get((system, i["item"]), {})
            ]
            for group in _groups(mine) if mine else []:
                chosen = [i for i in mine if group in ("all", i["group"])]
                arrays = [features[system, i["item"]] for i in chosen]
                s = _distance(metric, [a[f"{kind}_output"] for a in arrays], [a[f"{kind}_reference"] for a in arrays])
                if s is not None:
                    rows.append(_row(system, group, metric, s, chosen, None))
    return rows


def _distance(metric: str, outputs: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> Summary | None:
    """The distance of all clips, with an interval from resampled clips; None with too few vectors."""

    def of(chosen: Sequence[int]) -> float:
        a, b = (np.concatenate([x[i] for i in chosen]) for x in (outputs, references))
        return kernel_distance(a, b)[0] if metric == "kid" else frechet_distance(a, b)

    n = len(outputs)
    if sum(map(len, outputs)) < 2:
        return None
    value = of(range(n))
    if n < 3:
        return Summary(value, math.nan, math.nan, math.nan, n)
    rng = np.random.Generator(np.random.PCG64(0))
    resamples = MANY_RESAMPLES if outputs[0].shape[1] <= SMALL_FEATURES else FEW_RESAMPLES
    draws = np.array([of(rng.integers(0, n, n).tolist()) for _ in range(resamples)])
    # The distance of a resample is biased upwards (its covariances have lost rank), so the interval is centred on the value.
    low, high = np.percentile(draws - draws.mean() + value, [2.5, 97.5])
    return replace(Summary(value, float(low), float(high), float(draws.std()), n))
