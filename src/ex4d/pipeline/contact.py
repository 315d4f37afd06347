"""preview.png: input, render, mask and output under each other at a few times of the clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ex4d.system.atomic import written_whole
from ex4d.types import RenderClip, VideoClip

#: Height in pixels of one picture of the sheet.
TILE_HEIGHT = 180


class ContactSheet:
    """Collects a few frames of a render and of what it became while they pass by.

    Args:
        picks: Frame indices, one per column.
    """

    def __init__(self, picks: Iterable[int]) -> None:
        self._picks = set(picks)
        self._columns: dict[int, list[np.ndarray]] = {}
        self._outputs = 0

    def watch(self, chunks: Iterable[RenderClip]) -> Iterator[RenderClip]:
        """The same chunks; input, render and mask of the picked frames are kept, small."""
        start = 0
        for chunk in chunks:
            for t in (i - start for i in self._picks if start <= i < start + len(chunk)):
                mask = np.repeat(chunk.mask[t, ..., None] * np.uint8(255), 3, axis=-1)
                rows = [chunk.source.frames[t], chunk.color[t] * chunk.mask[t, ..., None], mask]
                self._columns[start + t] = [_tile(row) for row in rows]
            start += len(chunk)
            yield chunk

    def output(self, clip: VideoClip) -> None:
        """The next finished frames."""
        for t in (i - self._outputs for i in self._picks if self._outputs <= i < self._outputs + len(clip)):
            self._columns[self._outputs + t].append(_tile(clip.frames[t]))
        self._outputs += len(clip)

    def write(self, path: Path) -> None:
        """The PNG: one column per picked frame; input, render, mask and output from top to bottom."""
        import cv2

        width = max(tile.shape[1] for column in self._columns.values() for tile in column)
        columns = [np.concatenate([_padded(tile, width) for tile in self._columns[i]]) for i in sorted(self._columns)]
        ok, data = cv2.imencode(".png", np.concatenate(columns, axis=1)[..., ::-1])
        assert ok
        with written_whole(path) as temporary:
            temporary.write_bytes(data.tobytes())


def _padded(tile: np.ndarray, width: int) -> np.ndarray:
    return np.pad(tile, [(0, 0), (0, width - tile.shape[1]), (0, 0)])


def _tile(picture: np.ndarray) -> np.ndarray:
    import cv2

    h, w = picture.shape[:2]
    return cv2.resize(picture, (max(round(w * TILE_HEIGHT / h), 1), TILE_HEIGHT), interpolation=cv2.INTER_AREA)
