"""Minimal OpenEXR: write one float or half channel, read one channel of scanline files (none, RLE, ZIPS, ZIP).

From the file layout published at openexr.com (OpenEXRFileLayout). Other compressions, tiles and deep data are read through the
optional package OpenEXR where it is installed. Writing needs nothing but zlib.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from ex4d.errors import InputError
from ex4d.system.atomic import written_whole

MAGIC, VERSION = 20000630, 2
UNSUPPORTED_FLAGS = 0x200 | 0x800 | 0x1000  # tiled, deep, multi-part
NONE, RLE, ZIPS, ZIP = 0, 1, 2, 3
LINES_PER_BLOCK = {NONE: 1, RLE: 1, ZIPS: 1, ZIP: 16}
PIXEL_TYPES = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
#: Channel names that mean depth, best first; then a channel whose last part is one of them; then the only channel.
DEPTH_CHANNELS = ("Z", "depth", "Depth", "V", "Y", "R")


def write_exr(path: Path, depth: np.ndarray, *, channel: str = "Z", half: bool = False) -> None:
    """Write [H, W] as one channel, losslessly ZIP-compressed; infinities and NaN are kept."""
    h, w = depth.shape
    dtype = PIXEL_TYPES[1 if half else 2]
    box = struct.pack("<4i", 0, 0, w - 1, h - 1)
    header = struct.pack("<2i", MAGIC, VERSION) + b"".join(
        name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value
        for name, kind, value in (
            (
                "channels",
                "chlist",
                channel.encode() + b"\0" + struct.pack("<i4x2i", 1 if half else 2, 1, 1) + b"\0",
            ),
            ("compression", "compression", bytes([ZIP])),
            ("dataWindow", "box2i", box),
            ("displayWindow", "box2i", box),
            ("lineOrder", "lineOrder", b"\0"),
            ("pixelAspectRatio", "float", struct.pack("<f", 1)),
            ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
            ("screenWindowWidth", "float", struct.pack("<f", 1)),
        )
    )
    rows = np.ascontiguousarray(depth, dtype)
    blocks = []
    for top in range(0, h, LINES_PER_BLOCK[ZIP]):
        raw = rows[top : top + LINES_PER_BLOCK[ZIP]].tobytes()
        packed = zlib.compress(_scrambled(raw), 4)
        data = packed if len(packed) < len(raw) else raw  # the format stores a block raw when that is smaller
        blocks.append(struct.pack("<2i", top, len(data)) + data)
    sizes = np.cumsum([len(header) + 1 + 8 * len(blocks), *map(len, blocks[:-1])])
    with written_whole(path) as temporary:
        temporary.write_bytes(header + b"\0" + sizes.astype("<u8").tobytes() + b"".join(blocks))


def read_exr(path: Path, channel: str | None = None) -> np.ndarray:
    """float32 [H, W] of the channel named, or of the one that means depth."""
    data = Path(path).read_bytes()
    if len(data) < 8 or struct.unpack_from("<i", data)[0] != MAGIC:
        raise InputError(f"{path} is not an OpenEXR file", "an .exr", "--depth FILE.npz")
    flags = struct.unpack_from("<i", data, 4)[0]
    try:
        attributes, at = _attributes(data)
        compression = attributes["compression"][0]
        if flags & UNSUPPORTED_FLAGS or compression not in LINES_PER_BLOCK:
            return _read_with_openexr(path, channel)
        return _scanlines(data, at, attributes, path, channel)
    except (struct.error, KeyError, IndexError, ValueError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({error})", "a whole OpenEXR file") from error


def _attributes(data: bytes) -> tuple[dict[str, bytes], int]:
    at, found = 8, {}
    while data[at]:
        end = data.index(0, at)
        name, at = data[at:end].decode("latin-1"), end + 1
        at = data.index(0, at) + 1  # the type's name; the attribute's name says as much
        (size,) = struct.unpack_from("<i", data, at)
        found[name], at = data[at + 4 : at + 4 + size], at + 4 + size
    return found, at + 1


def _scanlines(data: bytes, at: int, attributes: dict[str, bytes], path: Path, channel: str | None) -> np.ndarray:
    x0, y0, x1, y1 = struct.unpack("<4i", attributes["dataWindow"])
    w, h = x1 - x0 + 1, y1 - y0 + 1
    channels = _channels(attributes["channels"])
    name = _depth_channel([name for name, _ in channels], path, channel)
    out = np.empty((h, w), np.float32)
    row_bytes = sum(dtype.itemsize for _, dtype in channels) * w
    before = 0
    for other, dtype in channels:
        if other == name:
            break
        before += dtype.itemsize * w
    dtype = dict(channels)[name]
    compression = attributes["compression"][0]
    lines = LINES_PER_BLOCK[compression]
    for offset in np.frombuffer(data, "<u8", -(-h // lines), at):
        y, size = struct.unpack_from("<2i", data, int(offset))
        count = min(lines, h - (y - y0))
        block = data[int(offset) + 8 : int(offset) + 8 + size]
        if size < row_bytes * count and compression != NONE:
            block = _unscrambled(zlib.decompress(block) if compression != RLE else _unpacked_runs(block))
        for i in range(count):
            out[y - y0 + i] = np.frombuffer(block, dtype, w, i * row_bytes + before)
    return out


def _channels(chlist: bytes) -> list[tuple[str, np.dtype]]:
    at, found = 0, []
    while chlist[at]:
        end = chlist.index(0, at)
        kind, x_sampling, y_sampling = struct.unpack_from("<i4x2i", chlist, end + 1)
        if (x_sampling, y_sampling) != (1, 1):
            raise ValueError("subsampled channels")
        found.append((chlist[at:end].decode("latin-1"), PIXEL_TYPES[kind]))
        at = end + 17
    return found


def _depth_channel(names: list[str], path: Path, channel: str | None) -> str:
    candidates = (channel,) if channel else DEPTH_CHANNELS
    for wanted in candidates:
        for name in names:
            if name == wanted or (name.rpartition(".")[2] == wanted and not channel):
                return name
    if len(names) == 1 and not channel:
        return names[0]
    raise InputError(f"{path} has channels {', '.join(names)}", f"one named {' or '.join(map(str, candidates[:2]))}")


def _scrambled(raw: bytes) -> bytes:
    """Even bytes before odd ones, then differences plus 128: what ZIP blocks hold."""
    data = np.frombuffer(raw, np.uint8)
    data = np.concatenate([data[::2], data[1::2]])
    data[1:] = data[1:] - data[:-1] + np.uint8(128)
    return data.tobytes()


def _unscrambled(packed: bytes) -> bytes:
    data = np.frombuffer(packed, np.uint8).copy()
    data[1:] -= np.uint8(128)
    data = np.cumsum(data, dtype=np.uint8)
    out = np.empty_like(data)
    middle = (len(data) + 1) // 2
    out[::2], out[1::2] = data[:middle], data[middle:]
    return out.tobytes()


def _unpacked_runs(block: bytes) -> bytes:
    at, out = 0, bytearray()
    while at < len(block):
        count = block[at] - 256 if block[at] > 127 else block[at]
        if count < 0:
            out += block[at + 1 : at + 1 - count]
            at += 1 - count
        else:
            out += block[at + 1 : at + 2] * (count + 1)
            at += 2
    return bytes(out)


def _read_with_openexr(path: Path, channel: str | None) -> np.ndarray:
    try:
        import OpenEXR  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(
            f"{path} is tiled, deep, multi-part or compressed otherwise than ZIP",
            "a ZIP-compressed scanline .exr, or the package OpenEXR",
            "pip install OpenEXR",
        ) from error
    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = file.channels()
        return np.asarray(channels[_depth_channel(list(channels), path, channel)].pixels, np.float32)
