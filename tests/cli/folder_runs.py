"""Small clips with their depth, and whole runs over them through the command line."""

from fractions import Fraction

import numpy as np

from ex4d.cli.main import main
from ex4d.io.depth.file import write_depth
from ex4d.io.video.read import VideoWriter
from ex4d.types import DepthClip

FRAMES, H, W = 5, 48, 64
K = np.tile(np.array([[W, 0, W / 2], [0, W, H / 2], [0, 0, 1]], np.float32), (FRAMES, 1, 1))


def write_clip(folder, name="in", seed=0, moving=False, frames=FRAMES):
    """NAME.mkv and NAME.npz: a wall with a box before it, which moves (so that a plate is found) or stands still."""
    rng = np.random.default_rng(seed)
    wall = np.kron(rng.integers(60, 200, (H // 8, W // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    pictures, depth = np.repeat(wall[None], frames, axis=0), np.full((frames, H, W), 5, np.float32)
    for t in range(frames):
        left = 8 + (8 * t if moving else 8)
        pictures[t, 16:32, left : left + 10] = 20
        depth[t, 16:32, left : left + 10] = 2
    with VideoWriter(folder / f"{name}.mkv", Fraction(24), lossless=True) as writer:
        writer.write(pictures)
    write_depth(folder / f"{name}.npz", DepthClip(depth, K[:1].repeat(frames, 0)), Fraction(24))
    return folder / f"{name}.mkv"


def run(folder, *more, name="in", out="out", camera="orbit:20"):
    files = [str(folder / f"{name}.mkv"), "--out", str(folder / out), "--camera", camera, "--preset", "fill"]
    more = [str(word) for word in more]
    return main(["run", *files, *([] if "--depth" in more else ["--depth", str(folder / f"{name}.npz")]), *more])


def kept(capsys):
    """The stages that the last command took from an earlier run."""
    line = capsys.readouterr().out.strip().splitlines()[-1]
    return {part.split()[0] for part in line[line.rindex("(") + 1 : -1].split(", ") if part.endswith("kept")}
