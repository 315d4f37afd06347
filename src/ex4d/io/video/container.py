"""Open a media file for reading: the one place that knows what differs between the PyAV versions this package takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: The first PyAV that decodes tags without ever failing; `metadata_errors` is gone there.
LENIENT_TAGS = 19


def open_container(path: Path) -> Any:
    """A PyAV input container; tags that are not UTF-8 do not keep a file from being read.

    Raises:
        av.error.FFmpegError: FFmpeg cannot open the file.
        OSError: the file cannot be read.
    """
    import av

    if int(av.__version__.split(".")[0]) >= LENIENT_TAGS:
        return av.open(str(path))
    return av.open(str(path), metadata_errors="replace")
