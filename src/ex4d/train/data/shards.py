"""WebDataset tar shards of cached arrays, written whole and read without unpacking.

A sample is `KEY.FIELD.npy` members and one `KEY.json`; a tar stores them uncompressed, so every array is a view into a
memory map of the shard. The json's "crc" holds a checksum per field, from which the data's fingerprint is made.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ex4d.errors import InputError
from ex4d.system.atomic import ensure_dir, written_whole


class ShardWriter:
    """One shard; a context manager that leaves either the whole file or none."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        ensure_dir(self.path.parent)
        self._whole = written_whole(self.path)
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> ShardWriter:
        self._tar = tarfile.open(self._whole.__enter__(), "w", format=tarfile.USTAR_FORMAT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._tar is not None
        try:
            self._tar.close()
        except OSError as close_error:
            if error is None:
                kind, error, trace = type(close_error), close_error, close_error.__traceback__
        return self._whole.__exit__(kind, error, trace)

    def write(self, key: str, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
        """Add a sample.

        Args:
            key: Letters, digits, "-" and "_": a dot would end the key.
            arrays: Field name to array; bfloat16 has no NumPy dtype, so latents are float16 (range +-65504, 11 bits).
            record: Plain values for the json.
        """
        if not key or not key.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"sample key {key!r}", "letters, digits, - and _", "")
        crc = {}
        for name, array in arrays.items():
            array = np.ascontiguousarray(array)
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
            crc[name] = zlib.crc32(buffer.getbuffer())
            self._add(f"{key}.{name}.npy", buffer.getvalue())
        self._add(f"{key}.json", json.dumps({**record, "crc": crc}, sort_keys=True).encode())

    def _add(self, name: str, data: bytes) -> None:
        assert self._tar is not None
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))


@dataclass(frozen=True)
class Sample:
    """A cached clip: arrays are read-only views into the memory-mapped shard."""

    key: str
    arrays: dict[str, np.ndarray]
    record: dict[str, Any] = field(default_factory=dict)


def read_shard(path: Path) -> list[Sample]:
    """Every sample of a shard, in file order, without reading the arrays."""
    path = Path(path)
    try:
        mapped = np.memmap(path, np.uint8, "r")
        with tarfile.open(path, "r:") as tar:
            members = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    except (OSError, tarfile.TarError, ValueError) as error:
        raise InputError(
            f"{path} is not a whole tar shard ({error})",
            "shards as `ex4d train prepare` writes them",
            f"delete {path.name} and run prepare again",
        ) from error
    samples: dict[str, Sample] = {}
    for name, offset, size in members:
        key, _, rest = name.partition(".")
        sample = samples.setdefault(key, Sample(key, {}, {}))
        data = mapped[offset : offset + size]
        if rest == "json":
            sample.record.update(json.loads(bytes(data)))
        elif rest.endswith(".npy"):
            sample.arrays[rest[:-4]] = _view(data, f"{path}: {name}")
    return list(samples.values())


def _view(data: np.ndarray, where: str) -> np.ndarray:
    header = io.BytesIO(bytes(data[: min(len(data), 1024)]))
    try:
        np.lib.format.read_magic(header)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
        if fortran:
            raise ValueError("Fortran order")
        return np.frombuffer(data, dtype, int(np.prod(shape)), header.tell()).reshape(shape)
    except ValueError as error:
        raise InputError(
            f"{where} is no plain .npy array ({error})", "C-ordered arrays", "run prepare again"
        ) from error


def read_shards(folder: Path) -> list[Sample]:
    """Samples of every shard of a folder, sorted by key; a key that occurs twice (an interrupted rebuild) counts once."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"no data folder {folder}", "shards of `ex4d train prepare`", f"ex4d train prepare VIDEOS --out {folder}"
        )
    shards = sorted(folder.glob("*.tar"))
    samples = {s.key: s for shard in shards for s in read_shard(shard)}
    if not samples:
        raise InputError(
            f"no samples in {folder}", "*.tar shards with clips", f"ex4d train prepare VIDEOS --out {folder}"
        )
    return [samples[key] for key in sorted(samples)]


def fingerprint(samples: list[Sample]) -> str:
    """Hash of every sample's key, record (with its checksums), shapes and types: equal data, equal fingerprint."""
    digest = hashlib.sha256()
    for sample in samples:
        shapes = {name: [list(a.shape), a.dtype.str] for name, a in sorted(sample.arrays.items())}
        digest.update(json.dumps([sample.key, sample.record, shapes], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def split(samples: list[Sample], held_out: float) -> tuple[list[Sample], list[Sample]]:
    """(training, held out): by the hash of the source clip (`record["source"]`, or the key), so that no clip is in both.

    At least one clip is held out when `held_out` is above 0 and there are two or more.
    """
    if held_out <= 0 or len(samples) < 2:
        return samples, []

    def chance(sample: Sample) -> float:
        source = str(sample.record.get("source", sample.key))
        return int(hashlib.sha256(source.encode()).hexdigest()[:8], 16) / 2**32

    held = [s for s in samples if chance(s) < held_out]
    if not held:
        lowest = min(map(chance, samples))
        held = [s for s in samples if chance(s) == lowest]
    names = {s.key for s in held}
    kept = [s for s in samples if s.key not in names]
    return (kept, held) if kept else (samples, [])
