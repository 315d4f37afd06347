"""Where weights are looked for on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

#: Folder of models that the user keeps, beside the Hugging Face cache (`HF_HOME`).
MODELS_DIR_VARIABLE = "EX4D_MODELS"


def cache_root() -> Path:
    """Folder of small things worth keeping, such as text embeddings."""
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(base) if base else Path.home() / ".cache") / "ex4d"


def hf_cache() -> Path:
    """The Hugging Face cache; HF_HUB_CACHE and HF_HOME are honoured."""
    home = os.environ.get("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", str(Path(home) / "hub")))


def places(repo: str, models_dir: Path | None = None) -> list[Path]:
    """Where a repository's files may be, best first: `models_dir` (ORG/NAME, ORG--NAME or NAME), $EX4D_MODELS, the HF cache."""
    organisation, _, name = repo.partition("/")
    roots = [models_dir, os.environ.get(MODELS_DIR_VARIABLE)]
    found = [Path(root) / tail for root in roots if root for tail in (repo, f"{organisation}--{name}", name)]
    snapshots = hf_cache() / f"models--{organisation}--{name}" / "snapshots"
    if snapshots.is_dir():
        found += sorted(snapshots.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    return found


def find_repo(repo: str, models_dir: Path | None, patterns: Iterable[str]) -> Path | None:
    """A folder that holds at least one file of every pattern, or None."""
    wanted = [p for p in patterns if not p.startswith("LICENSE")]
    return next((p for p in places(repo, models_dir) if all(any(p.glob(pattern)) for pattern in wanted)), None)
