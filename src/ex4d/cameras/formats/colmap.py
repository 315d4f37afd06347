"""COLMAP sparse model, text: a folder with `cameras.txt` and `images.txt`.

Convention: world to camera, x_cam = R x_world + t, Hamilton quaternion w x y z, OpenCV axes, arbitrary scale; the world is no
camera's own. Pixels with (0.5, 0.5) in the middle of the first one. Two lines an image, the second (2D points) may be empty
but must exist. Images are unordered: sorted by name here. No fps. (colmap/colmap 5d968cf3, doc/format.rst)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ex4d.cameras.formats.base import Format, Probe, ReadOptions, Tracks, one_track, text_number
from ex4d.cameras.formats.track import CameraTrack, need_intrinsics
from ex4d.errors import InputError
from ex4d.geometry.frames import rigid
from ex4d.geometry.quaternion import quaternion_from_rotation, rotation_from_quaternion

#: model -> (id in binary files, number of parameters, how many of them are focal lengths). Later ids exist only in recent
#: versions. Parameters after the focal lengths and the principal point are distortion.
MODELS = {
    "SIMPLE_PINHOLE": (0, 3, 1),
    "PINHOLE": (1, 4, 2),
    "SIMPLE_RADIAL": (2, 4, 1),
    "RADIAL": (3, 5, 1),
    "OPENCV": (4, 8, 2),
    "OPENCV_FISHEYE": (5, 8, 2),
    "FULL_OPENCV": (6, 12, 2),
    "FOV": (7, 5, 2),
    "SIMPLE_RADIAL_FISHEYE": (8, 4, 1),
    "RADIAL_FISHEYE": (9, 5, 1),
    "THIN_PRISM_FISHEYE": (10, 12, 2),
}


@dataclass(frozen=True)
class Camera:
    """One line of cameras.txt."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class Image:
    """One image of a model. `points` is the text, or the bytes, of its 2D points, kept as found."""

    image_id: int
    q: tuple[float, ...]
    t: tuple[float, ...]
    camera_id: int
    name: str
    points: str | bytes = ""


def detect(probe: Probe) -> bool:
    """A folder with both files and no binary ones, or either file's own comment."""
    if probe.path.is_dir():
        return probe.has_file("images.txt") and not probe.has_file("images.bin")
    return any("IMAGE_ID" in line and "QW" in line for line in probe.lines[:6])


def read(path: Path, options: ReadOptions) -> Tracks:
    """The model's images in the order of their names."""
    folder = path if path.is_dir() else path.parent
    images_path = folder / "images.txt" if path.is_dir() else path
    return {"": track_of(_read_cameras(folder / "cameras.txt"), _read_images(images_path), path)}


def _rows(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    except OSError as error:
        raise InputError(f"{path} is missing", "cameras.txt and images.txt in one folder", "export the text model again") from error  # fmt: skip


def _read_cameras(path: Path) -> dict[int, Camera]:
    cameras = {}
    for line in filter(str.strip, _rows(path)):
        fields = line.split()
        try:
            cameras[int(fields[0])] = Camera(fields[1], int(fields[2]), int(fields[3]), tuple(map(float, fields[4:])))
        except (ValueError, IndexError) as error:
            raise InputError(f"{path} has the line {line[:60]!r}", "CAMERA_ID MODEL WIDTH HEIGHT PARAMS", "export it again") from error  # fmt: skip
    return cameras


def _read_images(path: Path) -> list[Image]:
    rows = _rows(path)
    while rows and not rows[0].strip():
        rows = rows[1:]
    images = []
    for pose, points in zip(rows[::2], [*rows[1::2], ""], strict=False):
        fields = pose.split()
        try:
            numbers = tuple(map(float, fields[1:8]))
            images.append(Image(int(fields[0]), numbers[:4], numbers[4:], int(fields[8]), fields[9], points))
        except (ValueError, IndexError) as error:
            raise InputError(f"{path} has the line {pose[:60]!r} where an image should be", "two lines an image, the second may be empty", "export it again") from error  # fmt: skip
    return images


def track_of(cameras: dict[int, Camera], images: list[Image], path: Path) -> CameraTrack:
    """Poses of the model's world, K without distortion."""
    if not images:
        raise InputError(f"{path} has no images", "at least one registered image", "reconstruct it again")
    images = sorted(images, key=lambda image: image.name)
    missing = {image.camera_id for image in images} - set(cameras)
    if missing:
        raise InputError(f"{path} lacks cameras {sorted(missing)}", "every camera that images name", "export it again")
    poses = rigid(rotation_from_quaternion(np.array([i.q for i in images])), np.array([i.t for i in images]))
    K = np.stack([_intrinsics(cameras[image.camera_id], path) for image in images])
    first = cameras[images[0].camera_id]
    extras = {"cameras": cameras, "images": images}
    names = tuple(image.name for image in images)
    return CameraTrack(poses, K, (first.height, first.width), names=names, world="file", extras=extras)


def _intrinsics(camera: Camera, path: Path) -> np.ndarray:
    if camera.model not in MODELS or len(camera.params) != MODELS[camera.model][1]:
        raise InputError(f"{path} has a camera {camera.model} of {len(camera.params)} parameters", f"one of {', '.join(MODELS)}", "undistort with COLMAP")  # fmt: skip
    focals = MODELS[camera.model][2]
    fx, fy = camera.params[0], camera.params[focals - 1]
    cx, cy = camera.params[focals : focals + 2]
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def model_of(track: CameraTrack) -> tuple[dict[int, Camera], list[Image]]:
    """The model to write: the one that was read with new poses, or a fresh PINHOLE one."""
    q = quaternion_from_rotation(track.cam_from_world[:, :3, :3])
    t = track.cam_from_world[:, :3, 3]
    old: list[Image] | None = track.extras.get("images")
    if old is not None and len(old) == len(track):
        signs = [-1.0 if np.dot(new, image.q) < 0 else 1.0 for new, image in zip(q, old, strict=True)]
        images = [
            Image(image.image_id, tuple(sign * q[i]), tuple(t[i]), image.camera_id, image.name, image.points)
            for i, (image, sign) in enumerate(zip(old, signs, strict=True))
        ]
        return track.extras["cameras"], images
    K, (h, w) = need_intrinsics(track, "a COLMAP model")
    cameras: dict[int, Camera] = {}
    ids: dict[tuple[float, ...], int] = {}
    images = []
    for i in range(len(track)):
        params = tuple(float(v) for v in (K[i, 0, 0], K[i, 1, 1], K[i, 0, 2], K[i, 1, 2]))
        camera_id = ids.setdefault(params, len(ids) + 1)
        cameras[camera_id] = Camera("PINHOLE", w, h, params)
        name = track.names[i] if track.names else f"frame_{i:05d}.png"
        images.append(Image(i + 1, tuple(q[i]), tuple(t[i]), camera_id, name))
    return cameras, images


def write(path: Path, tracks: Tracks) -> None:
    """`cameras.txt`, `images.txt` and an empty `points3D.txt` in the folder."""
    cameras, images = model_of(one_track(tracks, "a COLMAP model"))
    path.mkdir(parents=True, exist_ok=True)
    spaced = next((image.name for image in images if len(image.name.split()) != 1), None)
    if spaced is not None:
        raise InputError(f"an image named {spaced!r} in a COLMAP text model", "names without spaces", "colmap-bin")
    lines = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
    for key, camera in sorted(cameras.items()):
        params = " ".join(text_number(v) for v in camera.params)
        lines.append(f"{key} {camera.model} {camera.width} {camera.height} {params}")
    (path / "cameras.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME", "# POINTS2D[] as (X, Y, POINT3D_ID)"]
    for image in images:
        numbers = " ".join(text_number(v) for v in (*image.q, *image.t))
        lines.append(f"{image.image_id} {numbers} {image.camera_id} {image.name}")
        lines.append(image.points if isinstance(image.points, str) else "")
    (path / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (path / "points3D.txt").write_text("# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[]\n", encoding="utf-8")


FORMAT = Format(
    name="colmap",
    title="COLMAP sparse model, text",
    suffix="",
    convention="world to camera as quaternion w x y z and translation, OpenCV axes, arbitrary scale and world; K in pixels per camera",
    detect=detect,
    read=read,
    write=write,
    keeps=frozenset({"lens", "size", "names"}),
)
