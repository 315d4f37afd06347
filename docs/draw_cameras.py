"""Draws the pictures of docs/cameras.md from the sample clip: one strip a preset. Run: python docs/draw_cameras.py"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

import ex4d
from ex4d.cameras.make import make_path
from ex4d.io.depth.file import read_depth
from ex4d.io.video.read import read_video
from ex4d.preview.plot import contact_sheet, plot
from ex4d.preview.report import preview_path, render_picks

OUT = Path(__file__).parent / "pictures"
SAMPLES = Path(ex4d.__file__).parent / "samples"

#: picture -> path in words. Angles are small because the sample's room has walls close by.
PRESETS = {
    "orbit": "orbit:yaw=20,pitch=5",
    "dolly": "dolly:in=30%",
    "dolly-zoom": "dolly-zoom:in=40%",
    "truck": "truck:right=12%",
    "pedestal": "pedestal:up=12%",
    "roll": "roll:20",
    "pan": "pan:12",
    "tilt": "tilt:10",
    "lens": "lens:x=1.6",
    "spiral": "spiral:turns=1,angle=10",
    "bullet-time": "bullet-time:yaw=20,frame=24",
    "static": "static",
    "30": "30",
    "60": "60",
    "90": "90",
    "180": "180",
    "180_outer": "180_outer",
    "zoom_in": "zoom_in",
    "zoom_out": "zoom_out",
}


def main() -> None:
    """Every strip, and the plot of one preview."""
    OUT.mkdir(exist_ok=True)
    video, depth = read_video(SAMPLES / "sample.mp4"), read_depth(SAMPLES / "sample_depth.npz")
    picks = np.array([0, 12, 24, 36, 48])
    for name, words in PRESETS.items():
        path = make_path(words, first=depth, num_frames=len(video), fps=video.fps)
        report = preview_path(video, depth, path)
        color, mask, source = render_picks(video, depth, path, picks, size_px=176)
        sheet = contact_sheet(color, mask, source, report, picks)
        sheet = sheet[color.shape[1] :]  # the source row is the same everywhere
        cv2.imwrite(str(OUT / f"camera_{name}.jpg"), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
        if name == "orbit":
            cv2.imwrite(str(OUT / "preview_plot.png"), plot(report, words)[..., ::-1])
        print(f"{name}: {words}")


if __name__ == "__main__":
    main()
