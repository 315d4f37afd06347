"""preview.png: input, render, mask and output under each other at a few times of the clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ex4d.folder import RenderFolder
from ex4d.io.atomic import written_whole

#: Height in pixels of one picture of the sheet.
TILE_HEIGHT = 180


def write_preview(path: Path, folder: RenderFolder, picks: list[int], outputs: list[np.ndarray]) -> None:
    """Write the sheet.

    Args:
        path: The PNG.
        folder: The render.
        picks: Rising frame indices, one per column.
        outputs: The finished frames at these indices, uint8 [height, width, 3].
    """
    import cv2

    columns = []
    start = 0
    for chunk in folder.chunks():
        for index in [i for i in picks if start <= i < start + len(chunk)]:
            t = index - start
            mask = np.repeat(chunk.mask[t, ..., None] * np.uint8(255), 3, axis=-1)
            rows = [chunk.source.frames[t], chunk.color[t] * chunk.mask[t, ..., None], mask, outputs[len(columns)]]
            columns.append(np.concatenate([_tile(row) for row in rows]))
        start += len(chunk)
    ok, data = cv2.imencode(".png", np.concatenate(columns, axis=1)[..., ::-1])
    assert ok
    with written_whole(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _tile(picture: np.ndarray) -> np.ndarray:
    import cv2

    h, w = picture.shape[:2]
    return cv2.resize(picture, (max(round(w * TILE_HEIGHT / h), 1), TILE_HEIGHT), interpolation=cv2.INTER_AREA)
