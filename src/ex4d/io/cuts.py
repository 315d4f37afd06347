"""Shot cuts: where a clip changes from one take to another."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def find_cuts(frames: Iterable[np.ndarray]) -> list[int]:
    """Indices of frames that begin a new shot; streamed, remembers only small copies of a few frames."""
    raise NotImplementedError
