"""Where weights are on this machine; nothing is downloaded here."""

from __future__ import annotations

import os
from pathlib import Path

from ex4d.depth.cards import ModelCard
from ex4d.errors import WeightsError

#: Folder of models that the user keeps, beside the Hugging Face cache (`HF_HOME`).
MODELS_DIR_VARIABLE = "EX4D_MODELS"


def find_repos(card: ModelCard, models_dir: Path | None = None) -> dict[str, Path]:
    """Folder of each repository of a card: in `models_dir` (ORG/NAME, ORG--NAME or NAME), `$EX4D_MODELS`, or the HF cache.

    Raises:
        WeightsError: Naming what is missing, its size and licence, and the one command that fetches it.
    """
    found = {repo: find_repo(repo, models_dir, patterns) for repo, patterns in card.repos.items()}
    missing = [repo for repo, folder in found.items() if folder is None]
    if missing:
        raise WeightsError(
            f"no weights of {card.name} on this machine (looked for {', '.join(missing)})",
            f"{card.megabytes} MB under the licence {card.licence}",
            f"ex4d models download {card.name}",
        )
    return {repo: folder for repo, folder in found.items() if folder is not None}


def find_repo(repo: str, models_dir: Path | None, patterns: tuple[str, ...]) -> Path | None:
    """A folder that holds at least one file of every pattern, or None."""
    organisation, _, name = repo.partition("/")
    roots = [models_dir, os.environ.get(MODELS_DIR_VARIABLE)]
    places = [Path(root) / tail for root in roots if root for tail in (repo, f"{organisation}--{name}", name)]
    places += _cached(organisation, name)
    return next((place for place in places if all(any(place.glob(pattern)) for pattern in patterns)), None)


def _cached(organisation: str, name: str) -> list[Path]:
    """Snapshots of the Hugging Face cache, newest first; HF_HUB_CACHE and HF_HOME are honoured."""
    home = os.environ.get("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", str(Path(home) / "hub")))
    snapshots = cache / f"models--{organisation}--{name}" / "snapshots"
    if not snapshots.is_dir():
        return []
    return sorted(snapshots.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
