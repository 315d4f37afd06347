"""`ex4d models`: list, download, verify and convert weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from ex4d.models.hub.catalogue import WeightSet

COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("ex4d.cli.models:list_models", "what there is, its size and licence, and whether it is here"),
    "download": ("ex4d.cli.models:download", "fetch weights; a stopped download goes on where it stopped"),
    "verify": ("ex4d.cli.models:verify", "check downloaded files against their checksums"),
    "convert": ("ex4d.cli.models:convert", "between released, our own, ComfyUI's and diffusers' naming"),
}


#: The name of the weights that come with the package.
EMBEDDED = "nano"


def weight_sets() -> dict[str, WeightSet]:
    """Everything that can be downloaded: the generator and the depth models."""
    from ex4d.models.depth.cards import MODELS
    from ex4d.models.hub.catalogue import SETS, WeightSet

    depth = {
        card.name: WeightSet(card.name, card.repos, card.megabytes / 1000, card.licence, f"depth: {card.gives}")
        for card in MODELS.values()
    }
    return {**SETS, **depth}


def _set(name: str) -> WeightSet:
    from difflib import get_close_matches

    from ex4d.errors import InputError

    sets = weight_sets()
    if name not in sets:
        near = get_close_matches(name, sets, 1)
        raise InputError(
            f"weights {name!r}", f"one of {EMBEDDED}, {', '.join(sets)}", near[0] if near else "ex4d models list"
        )
    return sets[name]


def list_models(models: Path | None = None) -> None:
    """Weights by name: size, licence, and where they are on this machine.

    Args:
        models: Folder of models, looked at before $EX4D_MODELS and the Hugging Face cache.
    """
    from ex4d.models.embedded.load import LICENCE, available, megabytes
    from ex4d.models.hub.download import find_set

    rows = [("name", "size", "here", "use", "licence")]
    size = f"{megabytes() / 1000:.2f} GB" if available() else "0.06 GB"
    rows.append((EMBEDDED, size, "yes" if available() else "no", "generator and depth, in the package", LICENCE))
    for item in weight_sets().values():
        found = find_set(item, models).values()
        here = "yes" if all(found) else "partly" if any(found) else "no"
        rows.append((item.name, f"{item.gigabytes:.1f} GB", here, item.use, item.licence))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print("  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]))


def download(name: Positional[str], /, models: Path | None = None, yes: bool = False) -> int:
    """Fetch weights, after showing their size and licence.

    Args:
        name: A name from `ex4d models list`, such as wan14b.
        models: Folder to put them in, as ORG/NAME; default the Hugging Face cache (HF_HOME).
        yes: Do not ask.
    """
    from ex4d.cli.shared import progress_bars
    from ex4d.errors import WeightsError
    from ex4d.models.embedded.load import GET_BACK, available
    from ex4d.models.hub.download import download as fetch
    from ex4d.models.hub.download import remote_repo, target_folder

    if name == EMBEDDED:
        if not available():
            raise WeightsError("this package has no embedded model", "the package with its weights", GET_BACK)
        print(f"{EMBEDDED}: comes with the package, nothing to download")
        return 0
    item = _set(name)
    remotes = [remote_repo(repo, patterns) for repo, patterns in item.repos.items()]
    total = sum(f.size for remote in remotes for f in remote.files)
    print(f"{item.name}: {item.use}; {total / 1e9:.2f} GB; licence: {item.licence}")
    for remote in remotes:
        size = sum(f.size for f in remote.files) / 1e9
        print(f"  {remote.repo} ({len(remote.files)} files, {size:.2f} GB) -> {target_folder(remote, models)}")
    if not yes and not _agreed():
        print("nothing downloaded")
        return 0
    with progress_bars() as progress:
        for remote in remotes:
            print(fetch(remote, models, progress))
    return 0


def _agreed() -> bool:
    try:
        return input("download? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def verify(name: Positional[str], /, models: Path | None = None) -> int:
    """Check files against the checksums kept when they were downloaded.

    Args:
        name: A name from `ex4d models list`.
        models: Folder of models, looked at before $EX4D_MODELS and the Hugging Face cache.
    """
    from ex4d.cli.shared import progress_bars
    from ex4d.errors import WeightsError
    from ex4d.models.hub.download import find_set, read_checksums
    from ex4d.models.hub.download import verify as check

    if name == EMBEDDED:
        from ex4d.models.embedded.load import FOLDER
        from ex4d.models.embedded.load import check as check_embedded

        print(f"{EMBEDDED}: {check_embedded()} files as published ({FOLDER})")
        return 0
    item = _set(name)
    for repo, folder in find_set(item, models).items():
        if folder is None:
            raise WeightsError(
                f"{repo} is not on this machine",
                f"{item.gigabytes:.1f} GB under the licence {item.licence}",
                f"ex4d models download {item.name}",
            )
        count = len(read_checksums(folder))
        with progress_bars() as progress:
            problems = check(folder, progress)
        if problems:
            raise WeightsError(
                f"{repo}: {'; '.join(problems[:3])}", "the published bytes", f"ex4d models download {item.name}"
            )
        print(
            f"{repo}: {count} files as published" if count else f"{repo}: here, but without kept checksums ({folder})"
        )
    return 0


def convert(
    source: Positional[Path],
    target: Positional[Path],
    /,
    to: Literal["ex4d", "released", "comfy", "original", "diffusers"],
) -> None:
    """Rewrite an adapter, or a folder of base shards, in another naming.

    Args:
        source: An adapter file (ex4d.ckpt, ours, or ComfyUI's), or a folder of denoiser shards.
        target: The file or folder to write.
        to: ex4d (safetensors with its config), released (ex4d.ckpt), comfy (ComfyUI's LoRA naming); original or diffusers for a base.
    """
    from ex4d.errors import InputError
    from ex4d.models.wan.files.convert import convert_adapter, convert_base

    if to in ("original", "diffusers"):
        if not source.is_dir():
            raise InputError(f"source {source}", "a folder of denoiser shards", "--to ex4d for an adapter file")
        convert_base(source, target, to)  # type: ignore[arg-type]
    else:
        if source.is_dir():
            raise InputError(f"source {source} is a folder", "an adapter file", "--to diffusers for a base model")
        convert_adapter(source, target, to)  # type: ignore[arg-type]
    print(target)
