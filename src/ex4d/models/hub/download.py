"""Weights: what there is, where it is on this machine, and how it gets here (resumable, checked, offline first)."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ex4d.errors import ResourceError, WeightsError
from ex4d.models.hub.catalogue import WeightSet
from ex4d.models.hub.find import find_repo, hf_cache
from ex4d.types import Progress

ENDPOINT = "https://huggingface.co"
#: Written beside downloaded files: their sizes and SHA-256 sums, so that `verify` needs no network.
CHECKSUMS = ".ex4d-checksums.json"
BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60


def find_any(repos: dict[str, tuple[str, ...]], models_dir: Path | None) -> Path | None:
    """The folder of the first repository that is here, of several that serve the same purpose, or None."""
    return next((found for repo, files in repos.items() if (found := find_repo(repo, models_dir, files))), None)


def find_set(weights: WeightSet, models_dir: Path | None) -> dict[str, Path | None]:
    """Repository -> the folder that a run would use for it, or None; in any layout that a run takes."""
    return {
        repo: find_any(weights.instead.get(repo, {repo: patterns}), models_dir)
        for repo, patterns in weights.repos.items()
    }


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository.

    Attributes:
        repo: Its repository.
        path: Inside it.
        size: Bytes.
        sha256: From the server's large-file record; None for small text files.
    """

    repo: str
    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class RemoteRepo:
    """What a repository offers at one commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]


def endpoint() -> str:
    """The server; HF_ENDPOINT chooses a mirror."""
    return os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")


def remote_repo(repo: str, patterns: Iterable[str]) -> RemoteRepo:
    """Ask the server for a repository's matching files."""
    with _open(f"{endpoint()}/api/models/{repo}/revision/main?blobs=true") as response:
        record = json.loads(response.read())
    files = []
    for sibling in record["siblings"]:
        path = sibling["rfilename"]
        if any(fnmatch.fnmatch(path, pattern) for pattern in patterns):
            lfs = sibling.get("lfs") or {}
            files.append(RemoteFile(repo, path, int(sibling.get("size") or lfs.get("size") or 0), lfs.get("sha256")))
    if not files:
        raise WeightsError(f"{repo} offers none of {', '.join(patterns)}", "the published files", "try again later")
    return RemoteRepo(repo, record["sha"], tuple(files))


def target_folder(remote: RemoteRepo, models_dir: Path | None) -> Path:
    """`models_dir`/ORG/NAME, or the Hugging Face cache's folder of this commit."""
    if models_dir is not None:
        return models_dir / remote.repo
    return hf_cache() / f"models--{remote.repo.replace('/', '--')}" / "snapshots" / remote.commit


def download(remote: RemoteRepo, models_dir: Path | None = None, progress: Progress | None = None) -> Path:
    """Fetch what is missing; a stopped download goes on where it stopped, and every file is checked before it gets its name."""
    folder = target_folder(remote, models_dir)
    folder.mkdir(parents=True, exist_ok=True)
    sums = read_checksums(folder)
    missing = [f for f in remote.files if not _present(folder, f, sums)]
    _check_space(folder, missing)
    for file in missing:
        digest = _fetch(remote, file, folder / file.path, progress)
        sums[file.path] = {"size": file.size, "sha256": digest}
        _write_json(folder / CHECKSUMS, sums)
    if models_dir is None:  # what huggingface_hub reads to know the newest commit
        refs = folder.parents[1] / "refs"
        refs.mkdir(exist_ok=True)
        (refs / "main").write_text(remote.commit, encoding="utf-8")
    return folder


def read_checksums(folder: Path) -> dict[str, dict[str, object]]:
    """Sizes and sums kept by `download`; empty when the files came another way."""
    path = folder / CHECKSUMS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def verify(folder: Path, progress: Progress | None = None) -> list[str]:
    """Problems with the files of a folder that `download` filled: missing, wrong size, wrong bytes."""
    problems = []
    sums = read_checksums(folder)
    for number, (name, record) in enumerate(sums.items()):
        if progress is not None:
            progress(number, len(sums), f"checking {name}")
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != record["size"]:
            problems.append(f"{name} has {path.stat().st_size} bytes, not {record['size']}")
        elif sha256(path) != record["sha256"]:
            problems.append(f"{name} is damaged (another SHA-256)")
    return problems


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _present(folder: Path, file: RemoteFile, sums: dict[str, dict[str, object]]) -> bool:
    path = folder / file.path
    if not path.is_file() or (file.size and path.stat().st_size != file.size):
        return False
    return file.sha256 is None or sums.get(file.path, {}).get("sha256", file.sha256) == file.sha256


def _check_space(folder: Path, files: list[RemoteFile]) -> None:
    partial = sum(p.stat().st_size for f in files if (p := _part(folder / f.path)).is_file())
    needed, free = sum(f.size for f in files) - partial, shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{free / 1e9:.1f} GB free at {folder}",
            f"{needed / 1e9:.1f} GB",
            "--models DIR on another disk, or HF_HOME",
        )


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _fetch(remote: RemoteRepo, file: RemoteFile, path: Path, progress: Progress | None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    have = part.stat().st_size if part.is_file() else 0
    if have > file.size:
        part.unlink()
        have = 0
    if have < file.size or file.size == 0:
        _stream(remote, file, part, have, progress)
    digest = sha256(part)
    if part.stat().st_size != file.size or (file.sha256 is not None and digest != file.sha256):
        part.unlink()
        raise WeightsError(f"{file.path} arrived damaged", "the server's bytes", "the same command again")
    os.replace(part, path)
    return digest


def _stream(remote: RemoteRepo, file: RemoteFile, part: Path, have: int, progress: Progress | None) -> None:
    url = f"{endpoint()}/{remote.repo}/resolve/{remote.commit}/{urllib.parse.quote(file.path)}"
    with _open(url, {"Range": f"bytes={have}-"} if have else {}) as response:
        append = have > 0 and response.status == 206
        done = have if append else 0
        with part.open("ab" if append else "wb") as out:
            try:
                while block := response.read(BLOCK_BYTES):
                    out.write(block)
                    done += len(block)
                    if progress is not None:
                        progress(done, file.size, f"{remote.repo}/{file.path}")
            except (OSError, urllib.error.URLError) as error:
                raise WeightsError(
                    f"the connection broke at {done / 1e9:.2f} of {file.size / 1e9:.2f} GB of {file.path}",
                    "the rest",
                    "the same command again: it goes on from there",
                ) from error
    if done < file.size:
        raise WeightsError(
            f"the server stopped at {done} of {file.size} bytes of {file.path}", "the rest", "the same command again"
        )


def _open(url: str, headers: dict[str, str] | None = None):
    token = os.environ.get("HF_TOKEN")
    extra = {"User-Agent": "ex4d", **(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes"):
        raise WeightsError("HF_HUB_OFFLINE is set", "the network for a download", "unset it, or copy the files here")
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=extra), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        raise WeightsError(
            f"{url} answered {error.code}", "a readable repository", "accept its licence and set HF_TOKEN, or try later"
        ) from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"no connection to {endpoint()} ({reason})", "the network", "HF_ENDPOINT for a mirror"
        ) from error


def _write_json(path: Path, record: object) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.json")
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    os.replace(temporary, path)
