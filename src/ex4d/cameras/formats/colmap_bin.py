"""COLMAP sparse model, binary: a folder with `cameras.bin` and `images.bin`.

Convention: as the text model, little-endian. cameras.bin: u64 count; u32 id, i32 model, u64 width, u64 height, f64 params.
images.bin: u64 count; u32 id, f64 qw qx qy qz tx ty tz, u32 camera, name and a zero byte, u64 count of points, each f64 x,
f64 y, u64 point id. (colmap/colmap 5d968cf3, src/colmap/scene/reconstruction_io_binary.cc)
"""

from __future__ import annotations

import struct
from pathlib import Path

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, one_track
from ex4d.cameras.formats.colmap import MODELS, Camera, Image, model_of, track_of
from ex4d.errors import InputError

_NAME_OF_ID = {entry[0]: name for name, entry in MODELS.items()}
_POINT_BYTES = 24


def detect(probe: Probe) -> bool:
    """A folder with images.bin, or that file."""
    return probe.has_file("images.bin")


def read(path: Path, options: ReadOptions) -> Tracks:
    """The model's images in the order of their names."""
    folder = path if path.is_dir() else path.parent
    return {"": track_of(read_cameras(folder / "cameras.bin"), read_images(folder / "images.bin"), path)}


class _Bytes:
    def __init__(self, path: Path) -> None:
        self.path, self.at = path, 0
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} is missing", "cameras.bin and images.bin in one folder", "export the model again") from error  # fmt: skip

    def take(self, layout: str) -> tuple:
        size = struct.calcsize("<" + layout)
        if self.at + size > len(self.data):
            raise InputError(f"{self.path} ends after {len(self.data)} bytes", "the whole file", "copy it again")
        self.at += size
        return struct.unpack_from("<" + layout, self.data, self.at - size)

    def name(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise InputError(f"{self.path} ends inside an image name", "the whole file", "copy it again")
        text = self.data[self.at : end].decode("utf-8", errors="replace")
        self.at = end + 1
        return text

    def raw(self, size: int) -> bytes:
        self.take(f"{size}x")
        return self.data[self.at - size : self.at]


def read_cameras(path: Path) -> dict[int, Camera]:
    """Cameras by id."""
    file, cameras = _Bytes(path), {}
    for _ in range(file.take("Q")[0]):
        key, model, width, height = file.take("IiQQ")
        if model not in _NAME_OF_ID:
            raise InputError(f"{path} has camera model {model}", f"0..{max(_NAME_OF_ID)}", "undistort with COLMAP")
        name = _NAME_OF_ID[model]
        cameras[key] = Camera(name, width, height, file.take(f"{MODELS[name][1]}d"))
    return cameras


def read_images(path: Path) -> list[Image]:
    """Images with their 2D points as bytes."""
    file, images = _Bytes(path), []
    for _ in range(file.take("Q")[0]):
        image_id, *numbers = file.take("I7d")
        (camera_id,) = file.take("I")
        name = file.name()
        points = file.raw(file.take("Q")[0] * _POINT_BYTES)
        images.append(Image(image_id, tuple(numbers[:4]), tuple(numbers[4:]), camera_id, name, points))
    return images


def write(path: Path, tracks: Tracks) -> None:
    """`cameras.bin`, `images.bin` and an empty `points3D.bin` in the folder."""
    cameras, images = model_of(one_track(tracks, "a COLMAP model"))
    path.mkdir(parents=True, exist_ok=True)
    out = [struct.pack("<Q", len(cameras))]
    for key, camera in sorted(cameras.items()):
        out.append(struct.pack("<IiQQ", key, MODELS[camera.model][0], camera.width, camera.height))
        out.append(struct.pack(f"<{len(camera.params)}d", *camera.params))
    (path / "cameras.bin").write_bytes(b"".join(out))
    out = [struct.pack("<Q", len(images))]
    for image in images:
        points = image.points if isinstance(image.points, bytes) else b""
        out.append(struct.pack("<I7dI", image.image_id, *image.q, *image.t, image.camera_id))
        out.append(image.name.encode() + b"\0" + struct.pack("<Q", len(points) // _POINT_BYTES) + points)
    (path / "images.bin").write_bytes(b"".join(out))
    (path / "points3D.bin").write_bytes(struct.pack("<Q", 0))


FORMAT = Format(
    name="colmap-bin",
    title="COLMAP sparse model, binary",
    suffix="",
    convention="as colmap, little-endian binary",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"lens", "size", "names"}),
)
