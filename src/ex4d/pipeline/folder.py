"""A render folder: what one stage leaves for the next, ours or the EX-4D release's color_*.mp4 and mask_*.mp4."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.errors import InputError
from ex4d.io.cameras import read_cameras, write_cameras
from ex4d.io.depth.file import DepthWriter, open_depth
from ex4d.io.video.frames import FrameReader
from ex4d.io.video.read import VideoSource, VideoWriter, open_video
from ex4d.pipeline.chunks import chunk_frames, join_paths
from ex4d.system.records import is_torn, read_record, record_file
from ex4d.types import CameraPath, DepthClip, RenderClip, VideoClip

DEPTH, OUTPUT, MANIFEST, PREVIEW = "depth.npz", "output.mp4", "manifest.json", "preview.png"
COLOR, MASK, CAMERAS = "color.mkv", "mask.mkv", "cameras.json"
PLATE, PLATE_MASK, RENDER_DEPTH = "plate.mkv", "plate_mask.mkv", "render_depth.npz"
COVERAGE = "coverage.mkv"

#: Every file that a render may hold, and the name of the stage whose record lists those it does.
RENDER_FILES = (COLOR, MASK, COVERAGE, PLATE, PLATE_MASK, RENDER_DEPTH, CAMERAS)
RENDER_STAGE = "render"
#: What each stage may write into the folder, in the order they run; the manifest counts as one.
STAGE_FILES = {
    "depth": (DEPTH,),
    RENDER_STAGE: RENDER_FILES,
    "generate": (OUTPUT, PREVIEW),
    "manifest": (MANIFEST,),
}

#: A mask pixel of a lossy file counts as seen above this level; the release writes 0 and 255 through H.264.
SEEN_LEVEL = 127


class RenderWriter:
    """Writes a render chunk by chunk into a folder; every file appears whole or not at all.

    `files` holds the names written once the block has ended well.
    """

    def __init__(self, folder: Path, num_frames: int, fps: Fraction) -> None:
        self.folder, self.num_frames, self.fps = folder, num_frames, fps
        self.files: list[str] = []
        self._stack = ExitStack()
        self._open: dict[str, VideoWriter] = {}
        self._paths: list[CameraPath] = []

    def __enter__(self) -> RenderWriter:
        self._depth = self._stack.enter_context(
            DepthWriter(self.folder / RENDER_DEPTH, self.num_frames, self.fps, half=True)
        )
        return self

    def write(self, render: RenderClip) -> None:
        """Append a chunk."""
        self._video(COLOR, render.color)
        self._video(MASK, render.mask)
        if render.coverage is not None:
            self._video(COVERAGE, render.coverage)
        if render.plate is not None and render.plate_mask is not None:
            self._video(PLATE, render.plate)
            self._video(PLATE_MASK, render.plate_mask)
        self._depth.write(DepthClip(np.minimum(render.depth, np.float32(65504)), render.path.K, "relative"))
        self._paths.append(render.path)

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            write_cameras(self.folder / CAMERAS, join_paths(self._paths), self.fps)
        self._stack.__exit__(*error)  # type: ignore[arg-type]
        if error[0] is None:
            self.files = [*self._open, RENDER_DEPTH, CAMERAS]

    def _video(self, name: str, frames: np.ndarray) -> None:
        if name not in self._open:
            writer = VideoWriter(self.folder / name, self.fps, lossless=True)
            self._open[name] = self._stack.enter_context(writer)
        self._open[name].write(frames)


class RenderFolder:
    """A render on disk, read chunk by chunk as often as wanted.

    Args:
        folder: Where the render is. With a record of ours, only the files that it names are read; without one (another tool's
            folder) those with the known names.
        source: The video it was made from, for `RenderClip.source`; the render itself stands in without one.

    Attributes:
        color_file, mask_file: What was found.
        num_frames, size_hw, fps: Of the render.
        path: Its cameras; a camera that stands still where the folder has none.
        released: True for a pair of the EX-4D release.
    """

    def __init__(self, folder: Path, source: VideoSource | None = None) -> None:
        self.folder, self._source = Path(folder), source
        if not self.folder.is_dir():
            raise InputError(
                f"{folder} is not a folder", "a render folder", "ex4d render VIDEO --camera orbit:40 --out DIR"
            )
        self._listed = self._recorded()
        color, mask = self._pair()
        self.color_file, self.mask_file = color, mask
        self.released = color.suffix == ".mp4"
        self._color, self._mask = open_video(color), open_video(mask)
        if self._color.num_frames != self._mask.num_frames:
            raise InputError(
                f"{color.name} has {self._color.num_frames} frames and {mask.name} {self._mask.num_frames}",
                "one mask per colour frame",
                "ex4d render again",
            )
        if self._color.size_hw != self._mask.size_hw:
            raise InputError(
                f"{color.name} is {_size(self._color)} and {mask.name} {_size(self._mask)}",
                "one size",
                "ex4d render again",
            )
        self.num_frames, self.size_hw, self.fps = self._color.num_frames, self._color.size_hw, self._color.fps
        self.path = self._cameras()

    def chunks(self) -> Iterator[RenderClip]:
        """The render, in chunks of at most `pipeline.chunk_frames` frames."""
        step = chunk_frames(self.size_hw)
        more = {
            name: open_video(self.folder / file).chunks(step)
            for name, file in (("coverage", COVERAGE), ("plate", PLATE), ("plate_mask", PLATE_MASK))
            if self._has(file) and not self.released
        }
        reader = None if self._source is None else FrameReader(self._source)
        depth = None
        if self._has(RENDER_DEPTH) and not self.released:
            depth = open_depth(self.folder / RENDER_DEPTH)
        start = 0
        for color, mask in zip(self._color.chunks(step), self._mask.chunks(step), strict=True):
            stop = start + len(color)
            part = {name: next(chunks).frames for name, chunks in more.items()}
            z = (
                np.full(color.frames.shape[:3], np.inf, np.float32)
                if depth is None
                else depth.read(start, stop).astype(np.float32)
            )
            z = np.where(z >= 65504, np.float32(np.inf), z)
            path = self.path[start:stop]
            frames = color.frames
            if reader is not None:
                index, back = np.unique(np.floor(path.source_time + 0.5).astype(int), return_inverse=True)
                frames = reader.read(index).frames[back]
            seen = mask.frames[..., 0] > SEEN_LEVEL
            yield RenderClip(
                color=color.frames,
                mask=seen,
                depth=z,
                path=path,
                source=VideoClip(frames, self.fps),
                fps=self.fps,
                coverage=part["coverage"][..., 0] if "coverage" in part else None,
                plate=part.get("plate"),
                plate_mask=part["plate_mask"][..., 0] > SEEN_LEVEL if "plate_mask" in part else None,
            )
            start = stop

    def _recorded(self) -> frozenset[str] | None:
        """Names that the record of the render lists; None where another tool made it."""
        record = read_record(self.folder, RENDER_STAGE)
        if record is not None and record.key:
            return frozenset(record.files)
        if record is None and not is_torn(self.folder, RENDER_STAGE):
            return None
        raise InputError(
            f"the render in {self.folder} was not finished, or {record_file(self.folder, RENDER_STAGE).name} is damaged",
            "a whole render",
            "the same ex4d render or ex4d run again",
        )

    def _has(self, name: str) -> bool:
        return (self._listed is None or name in self._listed) and (self.folder / name).is_file()

    def _pair(self) -> tuple[Path, Path]:
        if self._has(COLOR) and self._has(MASK):
            return self.folder / COLOR, self.folder / MASK
        if self._listed is not None:
            raise InputError(f"{COLOR} or {MASK} is missing in {self.folder}", "a whole render", "ex4d render again")
        for color in sorted([*self.folder.glob("color_*.mp4"), *self.folder.glob("render_*.mp4")]):
            mask = self.folder / f"mask_{color.stem.split('_', 1)[1]}.mp4"
            if mask.is_file():
                return color, mask
        raise InputError(
            f"{self.folder} has no {COLOR} with {MASK} and no color_*.mp4 with mask_*.mp4",
            "a render",
            "ex4d render VIDEO --camera orbit:40 --out DIR",
        )

    def _cameras(self) -> CameraPath:
        file = self.folder / CAMERAS
        if self._has(CAMERAS) and not self.released:
            path, _ = read_cameras(file)
            if len(path) != self.num_frames:
                raise InputError(
                    f"{file} has {len(path)} poses for {self.num_frames} frames", "one per frame", "ex4d render again"
                )
            return path
        h, w = self.size_hw
        K = np.array([[500, 0, w / 2], [0, 500, h / 2], [0, 0, 1]], np.float32)
        n = self.num_frames
        return CameraPath(
            np.tile(np.eye(4), (n, 1, 1)), np.tile(K, (n, 1, 1)), (h, w), np.arange(n, dtype=np.float64), "unknown"
        )


def _size(video: VideoSource) -> str:
    return f"{video.size_hw[1]}x{video.size_hw[0]}"
