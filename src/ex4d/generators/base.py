"""What every generator does: rendered colour and mask in, a complete video out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ex4d.types import Progress, RenderClip, VideoClip


class Generator(Protocol):
    """Completes what the source camera never saw.

    Chunks arrive in order and together are the whole clip; the chunks returned hold the same frames in the same order, though
    they may be cut elsewhere. A generator that needs the whole clip collects it; one that does not must not.
    """

    name: str

    def generate(
        self, chunks: Iterable[RenderClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[VideoClip]:
        """Complete the clip; the same seed gives the same bytes on the same machine."""
        ...

    def manifest(self) -> dict[str, object]:
        """What the manifest of an output should say of this generator: settings, weights' hashes, scores of the last run."""
        ...
