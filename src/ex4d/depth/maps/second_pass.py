"""Clip-wide numbers first, depth second: raw disparity waits on disk until its range over the whole clip is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float32

from ex4d.depth.conversion import FAR_OVER_NEAR, DisparityToDepth, check_spread, released_depth, sample_values
from ex4d.depth.intrinsics import Intrinsics
from ex4d.errors import InputError
from ex4d.system.array_store import ArrayStore, MapSpool
from ex4d.types import DepthClip, Progress


class DisparitySpool(MapSpool):
    """Disparity maps on disk, with their clip-wide extremes and samples for percentiles."""

    def __init__(self, store: ArrayStore) -> None:
        super().__init__(store)
        self.lowest, self.highest = np.inf, -np.inf
        self._samples: list[np.ndarray] = []

    def append(self, maps: Float32[np.ndarray, "n height width"], key: str | None = None) -> None:
        """Add maps; InputError when one holds NaN or infinity (broken weights or an overflow of half precision)."""
        if not np.isfinite(maps).all():
            raise InputError(
                f"NaN or infinite disparity at frame {len(self)}",
                "finite disparity",
                "--dtype float32, or verify the weights",
            )
        self.lowest, self.highest = min(self.lowest, float(maps.min())), max(self.highest, float(maps.max()))
        self._samples.append(sample_values(maps))
        super().append(maps, key)

    def conversion(self, far_over_near: float) -> DisparityToDepth:
        """The robust clip-wide conversion."""
        return DisparityToDepth.robust(np.concatenate(self._samples), far_over_near)


def to_depth_clips(
    spool: DisparitySpool,
    lengths: Iterable[tuple[int, tuple[int, int]]],
    intrinsics: Intrinsics,
    reference: bool,
    far_over_near: float = FAR_OVER_NEAR,
    progress: Progress | None = None,
) -> Iterator[DepthClip]:
    """One DepthClip per (frames, size_hw), relative depth; disparity is resized before it is inverted."""
    check_spread(spool.lowest, spool.highest)
    robust = None if reference else spool.conversion(far_over_near)
    start = 0
    for length, size_hw in lengths:
        stop = start + length
        maps = np.stack([resize_map(frame, size_hw) for frame in spool.read(start, stop)])
        depth = released_depth(maps, spool.lowest, spool.highest) if robust is None else robust(maps)
        if progress is not None:
            progress(stop, len(spool), "depth")
        yield DepthClip(depth, intrinsics.for_frames(start, stop), "relative")
        start = stop


def resize_map(frame: Float32[np.ndarray, "height width"], size_hw: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    """Bilinear (area when it shrinks); the same array when the size is right."""
    if frame.shape == tuple(size_hw):
        return frame
    import cv2

    shrinks = frame.shape[0] > size_hw[0] and frame.shape[1] > size_hw[1]
    return cv2.resize(frame, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
