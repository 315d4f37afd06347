"""What the line reads from disk, in the form its stages take: they open no files themselves."""

from __future__ import annotations

from pathlib import Path

from ex4d.depth.precomputed import DepthMaps
from ex4d.io import arrays


def open_depth(path: Path | str) -> DepthMaps:
    """Maps of a depth.npz, or of EXR or 16-bit PNG files; see `io.arrays.open_depth` for what they may hold."""
    source = arrays.open_depth(path)
    return DepthMaps(
        read=source.read,
        num_frames=source.num_frames,
        size_hw=source.size_hw,
        kind=source.kind,  # type: ignore[arg-type]
        K=source.K,
        cam_from_world=source.cam_from_world,
        name=source.name,
    )
