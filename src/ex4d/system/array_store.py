"""Arrays on disk by content key: what keeps a long clip out of memory, and what a second run resumes from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from ex4d.errors import ResourceError

#: Hex digits of a key: 80 bits, no collision in any clip.
KEY_DIGITS = 20


def content_key(*parts: object) -> str:
    """A short hash of arrays (dtype, shape and bytes) and of anything with a stable `repr`."""
    digest = hashlib.blake2b(digest_size=KEY_DIGITS // 2)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


class ArrayStore:
    """Named arrays in a folder; without a folder, in a temporary one that goes when the store does.

    Every array is written beside and renamed, so a killed run leaves whole arrays or none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="ex4d-depth-") if folder is None else None
        self.folder = Path(self._temporary.name if self._temporary else folder)  # type: ignore[arg-type]
        self.folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def save(self, key: str, array: np.ndarray) -> None:
        """Write one array; ResourceError when the disk is full."""
        path = self._path(key)
        temporary = path.with_name(f".{key}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as stream:
                np.save(stream, array, allow_pickle=False)
            os.replace(temporary, path)
        except OSError as error:
            raise ResourceError(
                f"cannot keep intermediate depth in {self.folder} ({error.strerror or error})",
                f"{array.nbytes / 2**20:.0f} MiB more of free space",
                "TMPDIR or --out on another disk",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, key: str) -> np.ndarray:
        """An array saved before."""
        return np.load(self._path(key), allow_pickle=False)

    def get(self, key: str) -> np.ndarray | None:
        """An array saved before, or None when it is absent or torn."""
        try:
            return self.load(key)
        except (OSError, ValueError, EOFError):
            return None

    def close(self) -> None:
        """Remove the temporary folder, if this store made one."""
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> ArrayStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npy"


class MapSpool:
    """Maps of a clip in order, appended in groups and read back by frame range."""

    def __init__(self, store: ArrayStore) -> None:
        self.store = store
        self._groups: list[tuple[int, int, str]] = []  # first frame, one past the last, key

    def __len__(self) -> int:
        return self._groups[-1][1] if self._groups else 0

    def append(self, maps: np.ndarray, key: str | None = None) -> None:
        """Add [n, ...] maps; with a key that the store already holds, nothing is written again."""
        key = key or f"spool-{id(self):x}-{len(self._groups):06d}"
        if key not in self.store:
            self.store.save(key, maps)
        self._groups.append((len(self), len(self) + len(maps), key))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Maps start..stop-1 as one array."""
        parts = []
        for first, last, key in self._groups:
            low, high = max(start, first), min(stop, last)
            if low < high:
                parts.append(self.store.load(key)[low - first : high - first])
        return np.concatenate(parts)
