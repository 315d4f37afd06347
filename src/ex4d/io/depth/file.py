"""Depth and camera files between stages: depth.npz, EXR and 16-bit PNG sequences, cameras.json."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

from ex4d.errors import InputError
from ex4d.io.depth.checks import checked_K, checked_kind, checked_poses, fraction
from ex4d.system.atomic import written_whole
from ex4d.types import DepthClip


@dataclass(frozen=True)
class DepthFile:
    """Depth maps on disk, read by range.

    Attributes:
        read: (start, stop) -> [stop - start, height, width] of any real dtype; in any order, as often as wanted.
        num_frames: How many maps there are.
        size_hw: Their (height, width).
        kind: "metric", "relative", "inverse" or "disparity" when the file says so, else None.
        K: [3, 3] or [num_frames, 3, 3] in pixels of `size_hw`, or None.
        cam_from_world: [num_frames, 4, 4] float64, or None.
        fps: Frames per second, or None.
        name: The path, for messages.
    """

    read: Callable[[int, int], np.ndarray]
    num_frames: int
    size_hw: tuple[int, int]
    kind: str | None = None
    K: np.ndarray | None = None
    cam_from_world: np.ndarray | None = None
    fps: Fraction | None = None
    name: str = "depth"


def open_depth(path: Path | str) -> DepthFile:
    """Open a depth file or folder; maps are read when asked for.

    depth.npz: `depth` (or `disparity`) [T, H, W] or [H, W], any float or integer dtype; optional `K` [3, 3] or [T, 3, 3],
    `cam_from_world` [T, 4, 4], `unit` (metric or relative) or `kind` (also inverse, disparity), `fps`.
    Folders and single files: `.exr` (channel Z, else the only one), 16-bit `.png` (values times `scale`), with an optional
    depth.json in the folder: {"unit" or "kind", "scale", "fps", "K"}.

    Raises:
        InputError: a path that is none of these, an array of the wrong shape, an 8-bit picture.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist", "a depth.npz, or EXR or 16-bit PNG files", "--depth FILE")
    if path.is_file() and path.suffix.lower() == ".npz":
        return _open_npz(path)
    from ex4d.io.depth.pictures import open_pictures

    return open_pictures(path)


def read_depth(path: Path | str) -> DepthClip:
    """A whole depth file as one value; for clips that fit in memory. The file must say its unit and hold K."""
    file = open_depth(path)
    if file.kind not in ("metric", "relative") or file.K is None:
        raise InputError(
            f"{file.name} holds {file.kind or 'unlabelled numbers'}{'' if file.K is not None else ' and no K'}",
            "depth with unit metric or relative, and K",
            "ex4d depth writes such a file",
        )
    K = np.broadcast_to(np.asarray(file.K, np.float32), (file.num_frames, 3, 3)).copy()
    depth = np.asarray(file.read(0, file.num_frames), np.float32)
    return DepthClip(depth, K, file.kind, file.cam_from_world)  # type: ignore[arg-type]


class DepthWriter:
    """Writes depth.npz chunk by chunk; memory does not grow. A context manager; the file appears whole.

    Args:
        path: The .npz.
        num_frames: Frames that will be written in all.
        fps: Frames per second.
        half: float16 instead of float32 (relative error up to 5e-4).
        compress: Deflate the maps: half the size or less, some twenty times slower to write.
    """

    def __init__(
        self,
        path: Path | str,
        num_frames: int,
        fps: Fraction | None = None,
        *,
        half: bool = False,
        compress: bool = False,
    ) -> None:
        self.path, self.num_frames, self.fps, self.half, self.compress = Path(path), num_frames, fps, half, compress
        self._K: list[np.ndarray] = []
        self._poses: list[np.ndarray] = []
        self._unit = ""
        self._size_hw: tuple[int, int] | None = None
        self._written = 0
        self._whole: Any = None
        self._zip: zipfile.ZipFile | None = None
        self._member: IO[bytes] | None = None

    def __enter__(self) -> DepthWriter:
        self._whole = written_whole(self.path)
        temporary = self._whole.__enter__()
        try:
            self._zip = zipfile.ZipFile(temporary, "w", allowZip64=True)
        except OSError as error:
            self._whole.__exit__(type(error), error, error.__traceback__)
        return self

    def write(self, clip: DepthClip) -> None:
        """Append a chunk."""
        dtype = np.dtype("<f2" if self.half else "<f4")
        if self._member is None:
            self._size_hw, self._unit = clip.size_hw, clip.unit
            assert self._zip is not None
            self._member = self._zip.open(self._info("depth"), "w", force_zip64=True)
            shape = (self.num_frames, *clip.size_hw)
            np.lib.format.write_array_header_1_0(
                self._member,  # type: ignore[arg-type]
                {"descr": dtype.str, "fortran_order": False, "shape": shape},
            )
        if clip.size_hw != self._size_hw or self._written + len(clip) > self.num_frames:
            raise InputError(
                f"got {self._written + len(clip)} frames of {clip.size_hw}", f"{self.num_frames} of {self._size_hw}"
            )
        for frame in clip.depth:
            self._member.write(np.ascontiguousarray(frame, dtype).data)
        self._K.append(clip.K)
        if clip.cam_from_world is not None:
            self._poses.append(clip.cam_from_world)
        self._written += len(clip)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._finish(kind is None)
        except BaseException as failure:
            if not self._whole.__exit__(type(failure), failure, failure.__traceback__):
                raise
        self._whole.__exit__(kind, error, trace)

    def _finish(self, good: bool) -> None:
        if self._member is not None:
            self._member.close()
        assert self._zip is not None
        if good:
            if self._written != self.num_frames:
                raise InputError(f"got {self._written} frames of depth", f"the {self.num_frames} announced")
            more: dict[str, Any] = {"K": np.concatenate(self._K).astype(np.float32), "unit": np.array(self._unit)}
            if self._poses:
                more["cam_from_world"] = np.concatenate(self._poses).astype(np.float64)
            if self.fps is not None:
                more["fps"] = np.array(float(self.fps))
            for name, array in more.items():
                with self._zip.open(self._info(name), "w") as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)  # type: ignore[arg-type]
        self._zip.close()

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, so that the same arrays give the same bytes
        info.compress_type = zipfile.ZIP_DEFLATED if self.compress else zipfile.ZIP_STORED
        info._compresslevel = 6  # type: ignore[attr-defined]
        info.external_attr = 0o644 << 16
        return info


def write_depth(
    path: Path | str, clip: DepthClip, fps: Fraction | None = None, *, half: bool = False, compress: bool = False
) -> None:
    """depth.npz of a clip held in memory; the same bytes for the same values."""
    with DepthWriter(path, len(clip), fps, half=half, compress=compress) as writer:
        writer.write(clip)


def _open_npz(path: Path) -> DepthFile:
    try:
        archive = zipfile.ZipFile(path)
        names = {Path(info.filename).stem: info for info in archive.infolist() if info.filename.endswith(".npy")}
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not an .npz file ({error})", "a depth.npz", "--depth FILE.npz") from error
    key = next((name for name in ("depth", "disparity") if name in names), None)
    if key is None:
        raise InputError(
            f"{path} holds {', '.join(sorted(names)) or 'nothing'}", "an array named depth [time, height, width]"
        )
    try:
        maps = _NpyMember(archive, names[key])
        small = {
            name: _small(archive, names[name])
            for name in ("K", "cam_from_world", "unit", "kind", "fps")
            if name in names
        }
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error})", "a depth.npz written by numpy.savez") from error
    if len(maps.shape) not in (2, 3) or 0 in maps.shape[-2:]:
        raise InputError(f"{key} of shape {maps.shape} in {path}", "[time, height, width]")
    kind = str(small.get("kind", small.get("unit", "disparity" if key == "disparity" else ""))) or None
    shape = maps.shape if len(maps.shape) == 3 else (1, *maps.shape)
    poses = small.get("cam_from_world")
    return DepthFile(
        read=maps.read,
        num_frames=shape[0],
        size_hw=(shape[1], shape[2]),
        kind=checked_kind(kind, path),
        K=checked_K(small.get("K"), shape[0], path),
        cam_from_world=None if poses is None else checked_poses(poses, shape[0], path),
        fps=None if "fps" not in small else fraction(small["fps"]),
        name=str(path),
    )


def _small(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


class _NpyMember:
    """Rows of one array of an .npz, without reading the rest."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._archive, self._info = archive, info
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, fortran, self.dtype = header(member)
            self._offset = member.tell()
        if fortran or self.dtype.kind not in "fiu":
            raise ValueError(f"array of type {self.dtype}{', Fortran order' if fortran else ''}")
        if info.compress_type == zipfile.ZIP_STORED:  # straight from the file: any frame at once
            stream = Path(str(archive.filename)).open("rb")
            stream.seek(info.header_offset + 26)
            # the local header repeats name and extra field with lengths of its own (APPNOTE 4.3.7)
            name_length, extra_length = struct.unpack("<2H", stream.read(4))
            self._offset += info.header_offset + 30 + name_length + extra_length
            self._member: IO[bytes] = stream
        else:  # inflated from the start when asked to go back
            self._member = archive.open(info)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop-1, [stop - start, height, width]."""
        hw = self.shape[-2:]
        frame_bytes = hw[0] * hw[1] * self.dtype.itemsize
        self._member.seek(self._offset + start * frame_bytes)
        data = self._member.read((stop - start) * frame_bytes)
        if len(data) != (stop - start) * frame_bytes:
            raise InputError(f"{self._archive.filename} ends early", f"{self.shape} values")
        return np.frombuffer(data, self.dtype).reshape(stop - start, *hw)
