"""VBench dimensions, by calling the `vbench` package in a Python environment of its own; it is never imported here.

Its requirements conflict with ours, so the user makes an environment (`python -m venv vb; vb/bin/pip install vbench`) and
names its interpreter: `--vbench vb/bin/python`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ex4d.errors import ResourceError

#: The dimensions that VBench scores on any video (`mode="custom_input"`).
DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "temporal_flickering",
    "aesthetic_quality",
    "imaging_quality",
    "overall_consistency",
)

SCRIPT = """
import json, sys, torch
from vbench import VBench
folder, out, device, names = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(",")
bench = VBench(torch.device(device), None, out)
bench.evaluate(videos_path=folder, name="scores", dimension_list=names, local=True, read_frame=False, mode="custom_input")
"""


def run_vbench(
    python: Path | str,
    videos: Path,
    dimensions: Sequence[str] = DIMENSIONS,
    device: str = "cpu",
    timeout_s: float | None = None,
) -> dict[str, dict[str, float]]:
    """Scores of every video in a folder: {dimension: {file name: score}}.

    Raises:
        ResourceError: The interpreter is missing, or vbench failed there (its last line is quoted).
    """
    if not Path(python).is_file():
        raise ResourceError(
            f"{python} does not exist", "the Python of an environment with vbench", "--vbench vb/bin/python"
        )
    with tempfile.TemporaryDirectory() as out:
        command = [str(python), "-c", SCRIPT, str(videos), out, device, ",".join(dimensions)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ResourceError(f"vbench did not run ({error})", "a working environment with vbench") from error
        results = sorted(Path(out).glob("*eval_results.json"))
        if done.returncode or not results:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ResourceError(
                f"vbench failed: {last[:200]}", "a working environment with vbench", f"{python} -m pip install vbench"
            )
        return parse_results(json.loads(results[-1].read_text()))


def parse_results(results: dict) -> dict[str, dict[str, float]]:
    """VBench's file: {dimension: [mean, [{video_path, video_results}, ...]]}."""
    return {
        dimension: {Path(v["video_path"]).name: float(v["video_results"]) for v in videos}
        for dimension, (_, videos) in results.items()
    }
