"""What made an output: config, seed, versions, input hashes; and the key that says when it must be made again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ex4d.errors import InputError
from ex4d.system.atomic import written_whole

#: Packages whose version can change a result.
PACKAGES = ("ex4d", "torch", "numpy", "numba", "av", "opencv-python-headless", "diffusers", "transformers", "triton")


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes; of a folder, of its files' names and bytes."""
    path = Path(path)
    digest = hashlib.sha256()
    try:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            if file != path:
                digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "a readable file", "check the path") from error
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Python, platform and the installed packages that can change a result; nothing is imported."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_manifest(
    path: Path | str,
    *,
    config: object,
    seed: int,
    inputs: Mapping[str, Path | str],
    warnings: Iterable[str] = (),
    seconds: Mapping[str, float] | float | None = None,
    **more: object,
) -> None:
    """manifest.json beside an output.

    Args:
        path: The file to write.
        config: Everything that was asked for: a dataclass, a mapping, or anything `plain` understands.
        seed: The seed.
        inputs: Name -> path of every file or folder read; paths and SHA-256 are written.
        warnings: What the user was told.
        seconds: Time taken, in all or by stage.
        more: Further entries, such as `stages=` or `generator=`.
    """
    record = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        "seed": seed,
        "config": config,
        "inputs": {name: {"path": str(file), "sha256": file_hash(file)} for name, file in inputs.items()},
        "warnings": list(warnings),
        **more,
        "versions": versions(),
    }
    with written_whole(Path(path)) as temporary:
        temporary.write_text(json.dumps(plain(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """JSON for dataclasses, paths, fractions, NumPy scalars and arrays; anything else by its str()."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: plain(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # JSON has no NaN and no infinity
    if isinstance(value, Fraction):
        return float(value)
    tolist = getattr(value, "tolist", None)
    return plain(tolist()) if callable(tolist) else str(value)


def content_key(inputs: Mapping[str, Path | str], config: object) -> str:
    """A stage's key: it changes when the bytes of an input, an option, or ex4d itself change; paths do not matter."""
    record = {
        "inputs": {name: file_hash(path) for name, path in inputs.items()},
        "config": plain(config),
        "ex4d": versions().get("ex4d", ""),
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
