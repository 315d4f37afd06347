"""How many frames travel together, and pieces of a render as one."""

from __future__ import annotations

import numpy as np

from ex4d.types import CameraPath, RenderClip, VideoClip

#: Pixels that one chunk of a render holds at most: colour, mask, plate and depth of these are about 0.3 GB.
CHUNK_PIXELS = 12_000_000


def join(clips: list[RenderClip]) -> RenderClip:
    """Chunks as one clip."""
    if len(clips) == 1:
        return clips[0]

    def maybe(parts: list[np.ndarray | None]) -> np.ndarray | None:
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None

    first = clips[0]
    return RenderClip(
        color=np.concatenate([clip.color for clip in clips]),
        mask=np.concatenate([clip.mask for clip in clips]),
        depth=np.concatenate([clip.depth for clip in clips]),
        path=join_paths([clip.path for clip in clips]),
        source=VideoClip(np.concatenate([clip.source.frames for clip in clips]), first.fps),
        fps=first.fps,
        coverage=maybe([clip.coverage for clip in clips]),
        plate=maybe([clip.plate for clip in clips]),
        plate_mask=maybe([clip.plate_mask for clip in clips]),
    )


def join_paths(paths: list[CameraPath]) -> CameraPath:
    """Pieces of a path as one."""
    return CameraPath(
        np.concatenate([p.cam_from_world for p in paths]),
        np.concatenate([p.K for p in paths]),
        paths[0].size_hw,
        np.concatenate([p.source_time for p in paths]),
        paths[0].name,
    )


def chunk_frames(size_hw: tuple[int, int]) -> int:
    """Frames of this size that one chunk of a render holds."""
    return int(np.clip(CHUNK_PIXELS // (size_hw[0] * size_hw[1]), 4, 64))
