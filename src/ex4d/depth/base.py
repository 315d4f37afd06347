"""What every depth estimator does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ex4d.types import DepthClip, Progress, VideoClip


class DepthEstimator(Protocol):
    """Depth for every frame of a clip, chunk by chunk, consistent over time."""

    @property
    def name(self) -> str:
        """Short name for help and manifests."""
        ...

    def estimate(
        self, chunks: Iterable[VideoClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[DepthClip]:
        """One DepthClip per chunk that comes in, with the same frames and the same size."""
        ...

    def manifest(self) -> dict[str, object]:
        """What the manifest of an output should say: model, weights' hashes, unit, intrinsics' origin, fitted scales."""
        ...
