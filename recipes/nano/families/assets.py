"""Real material made by families_assets.py: bodies, panoramas, photographs. Held-out clips take other pictures and bodies than training."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ex4d.errors import InputError

#: Environment variable with the folder; without it the folder beside this file.
VARIABLE = "NANO_FAMILIES_ASSETS"

#: Every so many-th item is for held-out clips only.
HELD_OUT_EVERY = 6

#: First seed of held-out clips.
FIRST_HELD_OUT = 1_000_000


class Rig(NamedTuple):
    """See families_assets.bodies."""

    rest: np.ndarray
    joints: np.ndarray
    parents: np.ndarray
    names: tuple[str, ...]
    faces: np.ndarray
    uv: np.ndarray
    bone: np.ndarray
    weight: np.ndarray
    shape: np.ndarray


def folder() -> Path:
    """Where the material lies."""
    return Path(os.environ.get(VARIABLE) or Path(__file__).parent / "assets")


def available() -> bool:
    """Whether it was made."""
    return (folder() / "bodies.npz").is_file()


@cache
def rig() -> Rig:
    """All bodies."""
    path = folder() / "bodies.npz"
    if not path.is_file():
        raise InputError(f"no {path}", "the families' material", f"make it with families_assets.py or set {VARIABLE}")
    with np.load(path) as data:
        found = {name: data[name] for name in data.files}
    return Rig(
        found["rest"].astype(np.float32) * 1e-4, found["joints"].astype(np.float64), found["parents"].astype(int),
        tuple(str(n) for n in found["names"]), found["faces"], found["uv"].astype(np.float32),
        found["bone"].astype(np.int64), found["weight"].astype(np.float32), found["shape"],
    )  # fmt: skip


@cache
def names(prefix: str) -> tuple[str, ...]:
    """File names that start with "panorama-" or "photo-", sorted; none where the folder has none."""
    return tuple(sorted(p.name for p in folder().glob(f"{prefix}*.jpg")))


@cache
def picture(name: str) -> np.ndarray:
    """RGB uint8."""
    found = cv2.imread(str(folder() / name))
    if found is None:
        raise InputError(f"no picture {name}", f"a file of {folder()}")
    return np.ascontiguousarray(found[..., ::-1])


def pick(rng: np.random.Generator, count: int, seed: int) -> int:
    """An index below count that training and held-out seeds never share (where there are enough)."""
    own = [k for k in range(count) if (k % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == (seed >= FIRST_HELD_OUT)]
    return int(own[rng.integers(len(own))]) if own else int(rng.integers(count))
