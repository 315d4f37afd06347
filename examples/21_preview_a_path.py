"""What a path will cost, on the sample clip: coverage, holes, and the largest orbit within a budget."""

from __future__ import annotations

from pathlib import Path

import ex4d
from ex4d.cameras.make import make_path
from ex4d.io.depth.file import read_depth
from ex4d.io.video.read import read_video
from ex4d.preview.plot import terminal_rows
from ex4d.preview.report import preview_path, suggest


def main() -> None:
    """A few seconds on two cores."""
    samples = Path(ex4d.__file__).parent / "samples"
    video, depth = read_video(samples / "sample.mp4"), read_depth(samples / "sample_depth.npz")
    path = make_path("orbit:25", first=depth, num_frames=len(video), fps=video.fps)
    for name, line, numbers in terminal_rows(preview_path(video, depth, path)):
        print(f"{name:<14} {line} {numbers}")
    words, _ = suggest("orbit:yaw={}", video, depth, budget=0.3)
    print("largest orbit with at most 30 % unseen:", words)


if __name__ == "__main__":
    main()
