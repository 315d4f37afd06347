"""A finisher without any model: what other times of the clip show, then the surrounding background, held still in the world.

Observed pixels are copied exactly. It is also the baseline that every model must beat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ex4d.generators.pull_push import pull_push
from ex4d.geometry.frames import invert_rigid
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
    import cv2

    rows, cols = np.nonzero(~known & np.isfinite(depth))
    if not len(rows):
        return filled
    z = depth[rows, cols].astype(np.float64)
    rays = np.linalg.inv(K.astype(np.float64)) @ np.stack([cols + 0.5, rows + 0.5, np.ones_like(z)])
    last_from_cam = last.cam_from_world @ invert_rigid(cam_from_world)
    points = last_from_cam[:3, :3] @ (rays * z) + last_from_cam[:3, 3:]
    front = points[2] > 1e-6
    px = (last.K.astype(np.float64) @ points)[:2] / np.where(front, points[2], 1.0)
    h, w = known.shape
    front &= (px[0] > 0) & (px[0] < w) & (px[1] > 0) & (px[1] < h)
    rows, cols, px, z_last = rows[front], cols[front], px[:, front], points[2, front]
    if not len(rows):
        return filled
    x, y = px[0].astype(int), px[1].astype(int)
    same = last.invented[y, x] & (np.abs(last.depth[y, x] - z_last) < SAME_SURFACE * z_last)
    rows, cols, px = rows[same], cols[same], px[:, same].astype(np.float32)
    map_x = np.full((h, w), -1, np.float32)
    map_y = np.full((h, w), -1, np.float32)
    map_x[rows, cols], map_y[rows, cols] = px[0] - 0.5, px[1] - 0.5
    before = cv2.remap(last.filled, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    filled = filled.copy()
    filled[rows, cols] += HISTORY * (before[rows, cols] - filled[rows, cols])
    return filled
