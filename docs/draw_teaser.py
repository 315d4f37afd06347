"""Draws docs/images/teaser.png, the picture of the README, from what its first command makes. Run: python docs/draw_teaser.py

Source, render, mask and output from top to bottom, at four moments of the sample clip.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from ex4d.cli.main import main as ex4d
from ex4d.io.video.read import read_video

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "images" / "teaser.png"
MOMENTS, TILE_HW = 4, (135, 240)


def draw() -> None:
    """Run the README's first command and put its files under each other."""
    sys.path.insert(0, str(ROOT))
    from start import sample_arguments

    arguments = [str(word) for word in sample_arguments()]
    if code := ex4d(["run", *arguments]):
        raise SystemExit(code)
    folder = Path(arguments[arguments.index("--out") + 1])
    source = read_video(Path(arguments[0])).frames
    color, mask = (read_video(folder / name).frames for name in ("color.mkv", "mask.mkv"))
    rows = [source, np.where(mask > 127, color, 0), mask, read_video(folder / "output.mp4").frames]
    picks = np.linspace(0, len(source) - 1, MOMENTS).round().astype(int)
    tiles = [[cv2.resize(row[t], TILE_HW[::-1], interpolation=cv2.INTER_AREA) for t in picks] for row in rows]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in tiles])
    OUT.write_bytes(cv2.imencode(".png", sheet[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())
    print(OUT)


if __name__ == "__main__":
    draw()
