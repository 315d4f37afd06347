"""Finding training clips in a video: shots, windows of one length, and whether a window is worth training on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ex4d.errors import InputError
from ex4d.io.video.read import VideoSource, open_video
from ex4d.types import VideoClip

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")

#: Measures are taken on copies of this width, so that thresholds mean the same at every resolution.
MEASURE_WIDTH = 256


@dataclass(frozen=True)
class ClipFilter:
    """Which windows are kept. Zero thresholds keep everything.

    Attributes:
        min_sharpness: Least variance of the Laplacian of 0..255 luminance; about 20 is visibly out of focus.
        min_contrast: Least standard deviation of luminance: black frames and title cards have less.
        min_motion, max_motion: Mean optical flow between neighbouring frames, pixels at 256 wide: stills and slide shows
            have less, whip pans more.
    """

    min_sharpness: float = 15.0
    min_contrast: float = 8.0
    min_motion: float = 0.05
    max_motion: float = 24.0


@dataclass(frozen=True)
class Measures:
    """What the filter looks at."""

    sharpness: float
    contrast: float
    motion: float

    def refusal(self, rule: ClipFilter) -> str:
        """Why a window is not kept; "" when it is."""
        if self.contrast < rule.min_contrast:
            return f"contrast {self.contrast:.1f} below {rule.min_contrast:g}"
        if self.sharpness < rule.min_sharpness:
            return f"sharpness {self.sharpness:.1f} below {rule.min_sharpness:g}"
        if self.motion < rule.min_motion:
            return f"motion {self.motion:.2f} px below {rule.min_motion:g}"
        if self.motion > rule.max_motion:
            return f"motion {self.motion:.1f} px above {rule.max_motion:g}"
        return ""


def measure(frames: np.ndarray) -> Measures:
    """Measures of RGB frames [T, H, W, 3], from up to 9 of them and their successors."""
    import cv2

    height = max(2, round(MEASURE_WIDTH * frames.shape[1] / frames.shape[2]))

    def gray(t: int) -> np.ndarray:
        small = cv2.resize(frames[t], (MEASURE_WIDTH, height), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)

    sharpness, contrast, motion = [], [], []
    for t in np.unique(np.linspace(0, max(len(frames) - 2, 0), 9).astype(int)):
        now = gray(t)
        sharpness.append(cv2.Laplacian(now, cv2.CV_32F).var())
        contrast.append(now.std())
        if t + 1 < len(frames):
            flow = cv2.calcOpticalFlowFarneback(now, gray(t + 1), None, 0.5, 3, 15, 2, 5, 1.1, 0)  # type: ignore[call-overload]
            motion.append(np.linalg.norm(flow, axis=2).mean())
    return Measures(float(np.median(sharpness)), float(np.median(contrast)), float(np.mean(motion or [0.0])))


def find_videos(folder: Path) -> list[Path]:
    """Video files under a folder (or the one file), sorted; InputError when there are none."""
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"no folder {folder}", "a folder of videos", "check the path")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise InputError(f"no videos in {folder}", f"files ending in {', '.join(SUFFIXES)}", "another folder")
    return found


def windows(source: VideoSource, frames: int, limit: int) -> Iterator[tuple[int, VideoClip]]:
    """(first frame, clip) of at most `limit` windows of `frames` frames inside one shot each, evenly over the video.

    Raises:
        InputError: No shot is long enough.
    """
    edges = [0, *source.cuts(), len(source)]
    starts = [a + i * frames for a, b in zip(edges, edges[1:], strict=False) for i in range((b - a) // frames)]
    if not starts:
        longest = max(b - a for a, b in zip(edges, edges[1:], strict=False))
        raise InputError(
            f"the longest shot of {source.path.name} has {longest} frames", f"{frames}", f"--frames {longest}"
        )
    chosen = [starts[i] for i in np.unique(np.linspace(0, len(starts) - 1, limit).round().astype(int))]
    pending: dict[int, list[np.ndarray]] = {}
    for t, frame in enumerate(source.frames()):
        if t in chosen:
            pending[t] = []
        for first in list(pending):
            pending[first].append(frame)
            if len(pending[first]) == frames:
                yield first, VideoClip(np.stack(pending.pop(first)), source.fps)
        if t >= chosen[-1] + frames:
            break


def open_at(path: Path, size_hw: tuple[int, int]) -> VideoSource:
    """The video, cropped and resized to the training size."""
    return open_video(path, size_hw=size_hw)
