"""Which weights a depth model needs and where they are on this machine; nothing is downloaded here."""

from __future__ import annotations

from pathlib import Path

from ex4d.errors import WeightsError
from ex4d.models.depth.cards import DEFAULT_CHAIN, MODELS, ModelCard
from ex4d.models.hub.find import find_repo


def find_repos(card: ModelCard, models_dir: Path | None = None) -> dict[str, Path]:
    """Folder of each repository of a card: in `models_dir`, `$EX4D_MODELS` or the Hugging Face cache.

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


def first_available(models_dir: Path | None = None) -> ModelCard:
    """The first model of the default chain (permissive licences only) whose weights are here."""
    for name in DEFAULT_CHAIN:
        if all(find_repo(repo, models_dir, patterns) for repo, patterns in MODELS[name].repos.items()):
            return MODELS[name]
    card = MODELS[DEFAULT_CHAIN[0]]
    raise WeightsError(
        f"none of {', '.join(DEFAULT_CHAIN)} on this machine",
        f"{card.megabytes} MB for {card.name}, licence {card.licence}",
        f"ex4d models download {card.name}",
    )
