"""depth.npz written as it is computed and read without loading it: a stored (uncompressed) archive is its own memory map.

The layout is the plain one of docs/conventions.md, so NumPy and every other tool read it: depth [T, H, W], K, unit, fps and
perhaps cam_from_world.
"""

from __future__ import annotations

import io
import zipfile
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.errors import InputError
from ex4d.io.atomic import written_whole
from ex4d.types import DepthClip, Unit


class DepthWriter:
    """Writes chunks as they come; the file appears under its name only when all frames are there.

    Args:
        path: depth.npz.
        num_frames: How many frames will come.
        fps: Of the clip.
    """

    def __init__(self, path: Path, num_frames: int, fps: Fraction) -> None:
        self.path, self.num_frames, self.fps = Path(path), num_frames, fps
        self._stack = ExitStack()
        self._written = 0
        self._K: list[np.ndarray] = []
        self._poses: list[np.ndarray] = []
        self._unit: Unit = "relative"

    def __enter__(self) -> DepthWriter:
        temporary = self._stack.enter_context(written_whole(self.path))
        self._archive = self._stack.enter_context(zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED))
        self._member = None
        return self

    def write(self, clip: DepthClip) -> None:
        """Append a chunk; the first one sets the size."""
        if self._member is None:
            self._member = self._archive.open("depth.npy", "w", force_zip64=True)
            shape = (self.num_frames, *clip.size_hw)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._member, header)  # type: ignore[arg-type]
        self._member.write(np.ascontiguousarray(clip.depth, "<f4").data)
        self._written += len(clip)
        self._K.append(clip.K)
        self._unit = clip.unit
        if clip.cam_from_world is not None:
            self._poses.append(clip.cam_from_world)

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            if self._member is None or self._written != self.num_frames:
                self.__exit__(InputError, InputError(""), None)
                raise InputError(
                    f"depth for {self._written} frames of {self.num_frames}", "one depth map per frame", "--frames"
                )
            self._member.close()
            K = np.concatenate(self._K)
            extra = {
                "K": K[0] if (K == K[0]).all() else K,
                "unit": np.array(self._unit),
                "fps": np.array(str(self.fps)),
            }
            if self._poses:
                extra["cam_from_world"] = np.concatenate(self._poses)
            for name, value in extra.items():
                buffer = io.BytesIO()
                np.save(buffer, value, allow_pickle=False)
                self._archive.writestr(f"{name}.npy", buffer.getvalue())
        elif self._member is not None and not self._member.closed:
            self._member.close()
        self._stack.__exit__(*error)  # type: ignore[arg-type]


class DepthFile:
    """A depth.npz that `DepthWriter` or `np.savez` wrote, mapped into memory where it is stored uncompressed.

    Attributes:
        depth: [T, H, W], a memory map or an array.
        K: [T, 3, 3] float32.
        unit, cam_from_world: As in `types.DepthClip`.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            with np.load(self.path, allow_pickle=False) as data:
                self.K = np.asarray(data["K"], np.float32)
                self.unit: Unit = "metric" if "unit" in data and str(data["unit"]) == "metric" else "relative"
                poses = np.asarray(data["cam_from_world"], np.float64) if "cam_from_world" in data else None
                mapped = _mapped(self.path, "depth.npy")
                self.depth: np.ndarray = data["depth"] if mapped is None else mapped
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{self.path} is not a depth file ({error})", "depth [T, H, W] and K in an .npz", "ex4d depth VIDEO"
            ) from error
        self.cam_from_world = poses
        if self.K.ndim == 2:
            self.K = np.broadcast_to(self.K, (len(self.depth), 3, 3))

    def __len__(self) -> int:
        return len(self.depth)

    def clip(self, index: slice | np.ndarray) -> DepthClip:
        """Frames as a value."""
        poses = None if self.cam_from_world is None else self.cam_from_world[index]
        depth = np.ascontiguousarray(self.depth[index], np.float32)
        return DepthClip(depth, np.ascontiguousarray(self.K[index]), self.unit, poses)


def _mapped(path: Path, member: str) -> np.ndarray | None:
    """The member as a memory map; None where it is compressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with path.open("rb") as stream:
            # the local header repeats name and extra field with lengths of its own (APPNOTE 4.3.7)
            stream.seek(info.header_offset + 26)
            name_length, extra_length = np.frombuffer(stream.read(4), "<u2")
            stream.seek(info.header_offset + 30 + int(name_length) + int(extra_length))
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            if fortran or dtype.hasobject:
                return None
            return np.memmap(path, dtype, "r", stream.tell(), shape)
