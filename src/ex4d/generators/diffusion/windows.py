"""Clips longer than the denoiser was trained for go through overlapping windows; the overlap is given, then cross-faded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from ex4d.errors import InputError

#: Frames that a window takes over from the one before: four latent frames and the first.
OVERLAP_FRAMES = 17


@dataclass(frozen=True)
class WindowRule:
    """How long clips are cut.

    Attributes:
        frames: Longest window, stride k + 1.
        overlap: Frames a later window takes over as known.
    """

    frames: int = 81
    overlap: int = OVERLAP_FRAMES

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.frames:
            raise InputError(
                f"an overlap of {self.overlap} frames in windows of {self.frames}",
                f"1 to {self.frames - 1}",
                f"--overlap {min(OVERLAP_FRAMES, self.frames - 1)}",
            )

    def spans(self, num_frames: int) -> list[tuple[int, int]]:
        """(start, stop) of every window; each but the first starts `overlap` frames before the last one's stop."""
        spans = [(0, min(self.frames, num_frames))]
        while spans[-1][1] < num_frames:
            start = spans[-1][1] - self.overlap
            spans.append((start, min(start + self.frames, num_frames)))
        return spans


def fade_weights(overlap: int) -> Float32[np.ndarray, " overlap"]:
    """Weight of the newer window: rising, never quite 0 or 1."""
    return ((np.arange(overlap) + 1) / (overlap + 1)).astype(np.float32)


def cross_fade(
    old: UInt8[np.ndarray, "overlap h w 3"], new: UInt8[np.ndarray, "overlap h w 3"]
) -> UInt8[np.ndarray, "overlap h w 3"]:
    """From the older to the newer window over their common frames."""
    weight = fade_weights(len(old))[:, None, None, None]
    return np.rint(old * (1 - weight) + new * weight).astype(np.uint8)
