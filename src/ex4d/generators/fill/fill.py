"""A finisher without any model: what other times of the clip show, then the surrounding background, held still in the world.

Observed pixels are copied exactly. It is also the baseline that every model must beat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ex4d.generators.fill.pull_push import pull_push
from ex4d.geometry.frames import invert_rigid
from ex4d.system.bands import in_bands
from ex4d.types import Progress, RenderClip, VideoClip

#: Share of the previous frame's fill that a hole keeps where the same hidden surface is still a hole: high enough that
#: invented texture stays on its surface instead of boiling, low enough that a wrong first guess fades within a second.
HISTORY = 0.85

#: Two hidden depths are the same surface when they agree within this ratio.
SAME_SURFACE = 0.05


@dataclass
class _History:
    """The last finished frame: what was invented, on which surface, from which camera."""

    filled: np.ndarray  # float32 [H, W, 3]
    invented: np.ndarray  # bool [H, W]
    depth: np.ndarray
    cam_from_world: np.ndarray
    K: np.ndarray


@dataclass(frozen=True)
class Fill:
    """Classical completion; deterministic, so the seed changes nothing.

    Args:
        temporal: Use `RenderClip.plate`, the background that other times of the clip show.
        hold: Keep what was invented fixed to its hidden surface from frame to frame.
    """

    temporal: bool = True
    hold: bool = True
    name: str = "fill"

    def generate(
        self, chunks: Iterable[RenderClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[VideoClip]:
        """Complete the clip chunk by chunk; memory does not grow with its length."""
        history: _History | None = None
        done = 0
        for chunk in chunks:
            frames = np.empty_like(chunk.color)
            for t in range(len(chunk)):
                frames[t], history = self._frame(chunk, t, history)
                done += 1
                if progress:
                    progress(done, None, "fill")
            yield VideoClip(frames, chunk.fps)

    def manifest(self) -> dict[str, object]:
        """Settings."""
        return {"generator": self.name, "temporal": self.temporal, "hold": self.hold}

    def _frame(self, chunk: RenderClip, t: int, history: _History | None) -> tuple[np.ndarray, _History]:
        color, known, depth = chunk.color[t], chunk.mask[t], chunk.depth[t]
        if self.temporal and chunk.plate is not None and chunk.plate_mask is not None:
            from_plate = chunk.plate_mask[t] & ~known
            color = np.where(from_plate[..., None], chunk.plate[t], color)
            known = known | from_plate
        cam_from_world, K = chunk.path.cam_from_world[t], chunk.path.K[t]
        if known.all():
            filled = color.astype(np.float32)
        else:
            filled = pull_push(color, known, depth)
            if self.hold and history is not None:
                filled = _held(filled, known, depth, cam_from_world, K, history)
        out = np.where(known[..., None], color, np.clip(np.rint(filled), 0, 255).astype(np.uint8))
        return out, _History(filled, ~known, depth, cam_from_world, K)


def _held(
    filled: np.ndarray, known: np.ndarray, depth: np.ndarray, cam_from_world: np.ndarray, K: np.ndarray, last: _History
) -> np.ndarray:
    """Blend in what the last frame invented on the same hidden surface."""
    from ex4d.generators.fill.kernels import held

    last_from_cam = last.cam_from_world @ invert_rigid(cam_from_world)
    K = K.astype(np.float64)
    places = np.linalg.inv(K), last_from_cam, last.K.astype(np.float64)

    def work(first: int, stop: int) -> None:
        held(
            first, stop, filled, known, depth, last.filled, last.invented, last.depth, *places, np.float32(HISTORY), SAME_SURFACE
        )  # fmt: skip

    in_bands(len(known), work)
    return filled
