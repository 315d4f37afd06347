"""`ex4d cameras`: convert, lint, preview and suggest camera paths, and list presets and formats."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

#: What `_dispatch` of cli/main.py reads.
COMMANDS = {
    "list": ("ex4d.cli.cameras:list_words", "presets, options and file formats"),
    "convert": ("ex4d.cli.cameras:convert", "a path or camera file to another format"),
    "lint": ("ex4d.cli.cameras:lint", "likely mistakes in a camera file, named"),
    "preview": ("ex4d.cli.cameras:preview", "what a path will cost: unseen pixels, holes, collisions"),
    "suggest": ("ex4d.cli.cameras:suggest", "the largest path of a family within a hole budget"),
}


def list_words() -> int:
    """Presets with their options, time remaps, easings and file formats."""
    from ex4d.cameras.easing import EASINGS
    from ex4d.cameras.formats.registry import formats
    from ex4d.cameras.remap import REMAPS
    from ex4d.cameras.units import LENGTH_HELP
    from ex4d.cameras.words.moves import COMMON, PRESETS
    from ex4d.cameras.words.released import RELEASED, released_notes

    print("presets (A + B at the same time, A then B one after the other, @ REMAP for time):")
    for name, preset in PRESETS.items():
        print(f"  {name:<12} {preset.summary}; for example {preset.example}")
        for option, text in preset.options.items():
            print(f"    {option:<10} {text}")
    print("options of every preset:")
    for option, text in COMMON.items():
        print(f"    {option:<10} {text}")
    print(f"  lengths: {LENGTH_HELP}")
    print(f"  easings: {', '.join(EASINGS)}")
    print("presets of the EX-4D release, each with a sign (-60 mirrors):")
    for name in RELEASED:
        print(
            f"  {name:<12} {'; '.join(released_notes(name, 1)) or f'the release orbit of {name} degrees, rising a little'}"
        )
    print("time remaps, after @:")
    for text in REMAPS.values():
        print(f"  {text}")
    print("file formats (found by content, or FORMAT:FILE; FILE#NAME picks one camera of many):")
    for name, format in formats().items():
        print(f"  {name:<18} {format.title}: {format.convention}")
    return 0


def convert(
    source: Positional[str],
    out: Positional[str],
    /,
    frames: int | None = None,
    fps: float | None = None,
    size: str | None = None,
    focal: float | None = None,
    distance: float = 1.0,
    scale: float = 1.0,
    world: Literal["auto", "first", "file"] = "auto",
) -> int:
    """Write a path (words, keyframes or any camera file) as a camera file.

    Args:
        source: A path in words, or FILE, FORMAT:FILE, FILE#CAMERA.
        out: FORMAT:FILE, or a file whose ending tells (.csv; .json and others: this project's own).
        frames: Number of poses: stretches a file over that many; needed for words (default 49).
        fps: Frames a second, where the format holds it.
        size: WIDTHxHEIGHT of the picture that the lens belongs to.
        focal: Focal length in pixels, where the source has none.
        distance: Scene units to the subject, for words and for formats whose lengths are shares of it.
        scale: Multiplies positions of a file (0.01: centimetres to metres).
        world: "first" makes the first pose the identity, "file" keeps the file's world; "auto" does what the format means.
    """
    from ex4d.cameras.formats.registry import formats, get_format, losses, split_spec, without_extras
    from ex4d.cli.shared import parse_size, say
    from ex4d.errors import InputError

    name, path, _ = split_spec(out)
    if name is None and ":" in out and not Path(out).exists():
        head = out.partition(":")[0]
        if len(head) > 1:
            get_format(head)  # names close formats
    format = get_format(name or ("csv" if path.suffix == ".csv" else "ex4d"))
    if format.suffix and path.suffix != format.suffix:
        raise InputError(f"{path} for {format.title}", f"a name ending in {format.suffix}", f"{format.name}:{path.stem}{format.suffix}")  # fmt: skip
    if format.suffix and path.is_dir():
        raise InputError(f"{path} is a folder", "a file name", f"{path / ('cameras' + format.suffix)}")
    track = _load(source, frames, fps, parse_size(size), focal, distance, scale)
    source_format = _format_name(source)
    if world == "first" or (world == "auto" and track.world == "file" and format.name in _SOURCE_WORLD):
        track = track.rebased()
    keep = source_format == format.name and frames is None and scale == 1.0 and world == "auto"
    tracks = {"": track if keep else replace(without_extras(track), extras={"radius": distance})}
    _check_poses(track)
    _write(path, format, tracks)
    say(losses(path, format, tracks))
    print(f"{path}: {len(track)} poses, {formats()[format.name].title}")
    return 0


#: Formats whose world is the first source camera: files of another world are re-based into them.
_SOURCE_WORLD = {"ex4d-release", "vista4d", "infcam", "neoverse", "cam-info", "trajectorycrafter", "csv"}


def _format_name(source: str) -> str | None:
    from ex4d.cameras.formats.registry import detect, is_camera_file, split_spec

    if not is_camera_file(source):
        return None
    name, path, _ = split_spec(source)
    return name or detect(path).name if path.exists() else name


def _load(source, frames, fps, size_hw, focal, distance, scale):
    """The track of a file, or of a path in words around a subject at `distance`."""
    from ex4d.cameras.formats.base import ReadOptions
    from ex4d.cameras.formats.registry import is_camera_file, read_track
    from ex4d.cameras.formats.resample import resample_track, with_lens
    from ex4d.cameras.formats.track import track_from_path
    from ex4d.cameras.keys.keyframes import load_keyframes
    from ex4d.cameras.make import make_path
    from ex4d.errors import InputError

    if not (distance > 0 and scale > 0):
        raise InputError(f"--distance {distance} --scale {scale}", "numbers > 0", "--distance 1 --scale 1")
    rate = Fraction(fps).limit_denominator(1001) if fps else None
    is_file = is_camera_file(source) and not (Path(source).is_file() and load_keyframes(Path(source)) is not None)
    if is_file:
        track = read_track(source, ReadOptions(frames, distance)).scaled(scale)
        track = resample_track(track, frames) if frames is not None and len(track) != frames else track
        return with_lens(replace(track, fps=rate or track.fps), size_hw, focal)
    first = _plain_depth(size_hw or (576, 1024), focal, distance)
    path = make_path(source, first=first, num_frames=49 if frames is None else frames, fps=rate or Fraction(24))
    return track_from_path(path, rate or Fraction(24))


def _plain_depth(size_hw, focal, distance):
    """A flat subject at a distance, for paths that are made without a video."""
    import numpy as np

    from ex4d.geometry.pinhole import intrinsics
    from ex4d.types import DepthClip

    K = intrinsics(size_hw, focal or float(max(size_hw)))
    return DepthClip(np.full((1, *size_hw), distance, np.float32), K[None])


def _check_poses(track) -> None:
    from ex4d.types import check_rigid

    check_rigid(track.cam_from_world, "the camera path")


def _write(path: Path, format, tracks) -> None:
    """Whole or not at all, files and folders alike."""
    from ex4d.errors import ResourceError
    from ex4d.system.atomic import written_whole

    if not path.parent.is_dir():
        raise ResourceError(f"the folder {path.parent} does not exist", "an existing folder", f"mkdir {path.parent}")
    if format.suffix:
        with written_whole(path) as temporary:
            format.write(temporary, tracks)
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made = Path(folder) / "model"
        format.write(made, tracks)
        path.mkdir(exist_ok=True)
        for file in made.iterdir():
            shutil.move(str(file), path / file.name)


def lint(
    file: Positional[str],
    /,
    video: Path | None = None,
    depth: Path | None = None,
    frames: int | None = None,
    fps: float | None = None,
) -> int:
    """Name likely mistakes of a camera file; exit code 1 when there are any.

    Args:
        file: FILE, FORMAT:FILE or FILE#CAMERA.
        video: The video it is meant for: its length and fps are compared.
        depth: Depth of that video (.npz): the path is held against its surfaces and its scale.
        frames: Length to compare with, instead of a video.
        fps: Frames a second to compare with, instead of a video.
    """
    from ex4d.cameras.lint.lint import lint_file
    from ex4d.io.depth.file import read_depth
    from ex4d.io.video.read import open_video

    if video is not None:
        source = open_video(video)
        frames = frames if frames is not None else source.num_frames
        rate = source.fps if fps is None else Fraction(fps).limit_denominator(1001)
    else:
        rate = Fraction(fps).limit_denominator(1001) if fps else None
    found = lint_file(file, num_frames=frames, fps=rate, depth=read_depth(depth) if depth else None)
    for name, findings in found.items():
        label = f"{file}#{name}" if name else file
        for finding in findings:
            print(f"{label}: {finding}")
    if not any(found.values()):
        print(f"{file}: nothing to remark")
    return 1 if any(found.values()) else 0


def preview(
    camera: Positional[str],
    /,
    video: Path,
    depth: Annotated[str, arg(help="a depth file or folder, `plane`, or a depth model")],
    out: Path | None = None,
    frames: int | None = None,
    start: float | None = None,
    size_px: int = 256,
    fov: float | None = None,
    relative_to: Literal["source", "world"] = "source",
    scale: float = 1.0,
) -> int:
    """Render a path small, in seconds, and report what it will cost.

    Args:
        camera: A path in words, keyframes, or a camera file.
        video: The source video.
        depth: See above.
        out: Folder for plot.png, sheet.png and report.json; default: the terminal only.
        frames: How many frames to use; default all, at most 128 are looked at.
        start: Seconds to skip.
        size_px: Longer side of the preview.
        fov: Horizontal field of view of the source camera in degrees, if known.
        relative_to: Whether the path rides on the source camera's motion or stands in the world.
        scale: Scene units per unit of a camera file.
    """
    from ex4d.cameras.make import make_path, notes
    from ex4d.cameras.place import place_path
    from ex4d.cli.shared import progress_bars, say
    from ex4d.errors import InputError
    from ex4d.preview.report import preview_path

    if not 16 <= size_px <= 4096:
        raise InputError(f"--size-px {size_px}", "16 to 4096", "--size-px 256")
    with progress_bars() as progress:
        source, clip, maps, picked = _footage(video, depth, frames, start, fov, progress)
        path = make_path(
            camera, first=maps, num_frames=source.num_frames, fps=source.fps, relative_to=relative_to, scale=scale
        )
        part = _frames_of(path, picked)
        part = place_path(
            part, _local_poses(maps, part, picked), "world" if maps.cam_from_world is None else relative_to
        )
        report = preview_path(clip, maps, part, size_px=size_px, source_frame=picked, progress=progress)
    report = replace(report, frame=picked)
    _show(report, camera)
    say(notes(camera))
    if out is not None:
        _save(out, report, clip, maps, part, picked, camera, size_px)
        print(out)
    return 0


def suggest(
    family: Positional[str],
    /,
    video: Path,
    depth: str,
    budget: float = 0.2,
    limit: float = 180.0,
    frames: int | None = None,
    start: float | None = None,
    fov: float | None = None,
) -> int:
    """The largest path of a family whose unseen share stays within a budget on every frame.

    Args:
        family: A path with {} for its size: `orbit:yaw={}`, `dolly:out={}%`.
        video: The source video.
        depth: A depth file or folder, `plane`, or a depth model.
        budget: Largest share of unseen pixels, 0 to 1.
        limit: Largest size tried.
        frames: How many frames to use.
        start: Seconds to skip.
        fov: Horizontal field of view of the source camera in degrees, if known.
    """
    from ex4d.cli.shared import progress_bars
    from ex4d.preview.report import suggest as find

    with progress_bars() as progress:
        _, clip, maps, _ = _footage(video, depth, frames, start, fov, progress)
        words, size = find(family, clip, maps, budget=budget, limit=limit, progress=progress)
    print(words if size > 0 else f"no size of {family} keeps the unseen share under {budget:.0%}")
    return 0


#: Source frames that a preview holds at most.
MAX_FRAMES = 128


def _footage(video, depth, frames, start, fov, progress):
    """(source, frames, depth, their clip indices): at most MAX_FRAMES, evenly, no larger than a preview needs."""
    import numpy as np

    from ex4d.depth.make import make_depth
    from ex4d.io.depth.open import open_depth as open_maps
    from ex4d.io.video.read import open_video
    from ex4d.preview.report import SOURCE_PX, shrink
    from ex4d.types import DepthClip, VideoClip

    source = open_video(video, start=start, frames=frames)
    estimator = make_depth(
        depth, size_hw=source.size_hw, num_frames=source.num_frames, fov_deg=fov, open_depth=open_maps
    )
    picked = np.unique(
        np.linspace(0, source.num_frames - 1, min(MAX_FRAMES, source.num_frames)).round().astype(np.int64)
    )
    clips, maps, begin = [], [], 0
    chunks = list_pairs(source, estimator, progress)
    for clip, part in chunks:
        inside = picked[(picked >= begin) & (picked < begin + len(clip))] - begin
        begin += len(clip)
        poses = None if part.cam_from_world is None else part.cam_from_world[inside]
        small = shrink(
            VideoClip(clip.frames[inside], clip.fps),
            DepthClip(part.depth[inside], part.K[inside], part.unit, poses),
            SOURCE_PX,
        )
        if len(inside):
            clips.append(small[0])
            maps.append(small[1])
    poses = None if maps[0].cam_from_world is None else np.concatenate([m.cam_from_world for m in maps])
    joined = DepthClip(
        np.concatenate([m.depth for m in maps]), np.concatenate([m.K for m in maps]), maps[0].unit, poses
    )
    return source, VideoClip(np.concatenate([c.frames for c in clips]), source.fps), joined, picked


def list_pairs(source, estimator, progress):
    """Chunks of frames beside chunks of their depth, read side by side."""
    from ex4d.pipeline.chunks import chunk_frames

    step = chunk_frames(source.size_hw)
    yield from zip(source.chunks(step), estimator.estimate(source.chunks(step), progress=progress), strict=False)


def _frames_of(path, picked):
    from ex4d.types import CameraPath

    return CameraPath(path.cam_from_world[picked], path.K[picked], path.size_hw, path.source_time[picked], path.name)


def _local_poses(maps, part, picked):
    """Source poses for every clip index that the path may ask for: those of the nearest frame that was kept."""
    import numpy as np

    if maps.cam_from_world is None:
        return None
    index = np.abs(np.arange(picked[-1] + 1)[:, None] - picked[None, :]).argmin(axis=1)
    return maps.cam_from_world[index]


def _show(report, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from ex4d.preview.plot import terminal_rows

    table = Table(title=title, show_header=False, box=None)
    for row in terminal_rows(report):
        table.add_row(*row)
    Console().print(table)


def _save(out, report, clip, maps, part, picked, title, size_px) -> None:
    import json

    import cv2
    import numpy as np

    from ex4d.preview.plot import contact_sheet, plot
    from ex4d.preview.report import nearest_source, render_picks
    from ex4d.system.atomic import ensure_dir, written_whole

    ensure_dir(out)
    picks = np.unique(np.linspace(0, len(part) - 1, 6).round().astype(np.int64))
    local = replace(part, source_time=nearest_source(part, len(maps), picked).astype(np.float64))
    color, mask, source = render_picks(clip, maps, local, picks, size_px=size_px)
    sheet = contact_sheet(color, mask, source, report, picks)
    for name, picture in (("plot.png", plot(report, title)), ("sheet.png", sheet)):
        with written_whole(out / name) as temporary:
            if not cv2.imwrite(str(temporary), picture[..., ::-1]):
                raise OSError(f"cannot write {name}")
    names = ("frame", "seen", "unseen", "largest_hole", "grazing", "collision", "turn_deg", "distance")
    names += ("past_safe_deg", "past_safe_distance")
    record = {"camera": title} | {name: np.asarray(getattr(report, name)).tolist() for name in names}
    with written_whole(out / "report.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
