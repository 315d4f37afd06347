"""`ex4d render`: colour and mask along a new path, without completing them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ex4d.cli.run import CommonOptions, make_config, run_line


def render(video: Positional[Path], /, common: Annotated[CommonOptions, arg(name="")], camera: str = "orbit:40") -> int:
    """Render a video's watertight mesh along a new camera path: color.mkv, mask.mkv, cameras.json.

    Args:
        video: Any video file.
        common: Shared options.
        camera: The new path; see `ex4d run --help`.
    """
    return run_line(video, make_config(video, camera, common, "fill"), "render")
