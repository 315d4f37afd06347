"""Where the outputs of other tools lie: one loader per tool's naming, all giving (clip, group) -> file.

| tool | its naming |
| --- | --- |
| ex4d | ours: `CLIP/output.mp4`, `CLIP_GROUP/output.mp4`, `CLIP/GROUP/output.mp4` |
| ex-4d | the release: `CLIP/output_CAM.mp4`, `CLIP_CAM.mp4` |
| trajectorycrafter | a folder per run: `CLIP/gen.mp4` or `CLIP_GROUP/gen.mp4` (beside input, render, mask, viz) |
| recammaster | `cam_typeN/videoI.mp4`; the clip is `videoI`, the group N |
| redirector | `CLIP_camera_N_speed_S.mp4` |
| gen3c | `NAME.mp4`, the name given by the user: `CLIP` or `CLIP_GROUP` |
| vista4d | `CLIP/video_seed=S.mp4`, several seeds allowed |
| neoverse | `CLIP/inference.mp4` or `CLIP.mp4` |
| frames | `CLIP/*.png` or `.jpg`, sorted by name (CamDirector, CogNVS) |
| flat | `CLIP.mp4` or `CLIP_GROUP.mp4`, any tool |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ex4d.errors import InputError

VIDEO = r"\.(?:mp4|mkv|mov|webm|avi)"

#: Tool -> patterns of paths relative to the folder; named groups clip, group and seed.
PATTERNS: dict[str, tuple[str, ...]] = {
    "ex4d": (r"(?P<clip>[^/]+)/(?P<group>[^/]+)/output" + VIDEO, r"(?P<clip>[^/]+)/output" + VIDEO),
    "ex-4d": (r"(?P<clip>[^/]+)/output_(?P<group>-?[\w]+)" + VIDEO,),
    "trajectorycrafter": (r"(?P<clip>[^/]+)/gen" + VIDEO,),
    "recammaster": (r"cam_type(?P<group>\d+)/(?P<clip>[^/]+)" + VIDEO,),
    "redirector": (r"(?P<clip>[^/]+)_camera_(?P<group>\d+)_speed_[\d.]+" + VIDEO,),
    "vista4d": (r"(?P<clip>[^/]+)/video_seed=(?P<seed>\d+)" + VIDEO,),
    "neoverse": (r"(?P<clip>[^/]+)/inference" + VIDEO,),
    "gen3c": (r"(?P<clip>[^/]+)" + VIDEO,),
    "frames": (r"(?P<clip>[^/]+)/[^/]+\.(?:png|jpg|jpeg)",),
    "flat": (r"(?P<clip>[^/]+)" + VIDEO,),
}

#: Tried in this order by `auto`: the first whose files are there; flat last, as its pattern is the widest.
AUTO_ORDER = (
    "redirector",
    "recammaster",
    "vista4d",
    "trajectorycrafter",
    "neoverse",
    "ex-4d",
    "ex4d",
    "flat",
    "frames",
)


@dataclass(frozen=True)
class Output:
    """One clip of one system.

    Attributes:
        clip: Which source video.
        group: Which camera or angle range, "" where the protocol has none.
        seed: The tool's seed, "" where it says none.
        path: A video file, or a folder of pictures.
    """

    clip: str
    group: str
    seed: str
    path: Path

    @property
    def item(self) -> str:
        """Name of the pair in reports."""
        return self.clip + (f"_{self.group}" if self.group else "") + (f" (seed {self.seed})" if self.seed else "")


def find_outputs(folder: Path, tool: str = "auto", groups: Sequence[str] = ()) -> tuple[str, list[Output]]:
    """The loader that was used and the outputs it found, sorted.

    Args:
        folder: One system's outputs.
        tool: A key of `PATTERNS`, or "auto".
        groups: Names of the protocol's groups: a clip named CLIP_GROUP is split at a known group.

    Raises:
        InputError: No such folder or tool, or nothing of this naming in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "a folder with one system's outputs")
    if tool != "auto" and tool not in PATTERNS:
        raise InputError(f"tool {tool!r}", f"auto or one of {', '.join(PATTERNS)}", "--tool auto")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    for name in AUTO_ORDER if tool == "auto" else (tool,):
        outputs = _match(folder, files, name, groups)
        if outputs:
            return name, outputs
    what = "videos or folders of pictures" if tool == "auto" else f"files named as {tool} does"
    raise InputError(
        f"{folder} holds no {what} ({len(files)} files)", "outputs to score", "--tool NAME, or another folder"
    )


def _match(folder: Path, files: Sequence[Path], tool: str, groups: Sequence[str]) -> list[Output]:
    found: dict[tuple[str, str, str], Output] = {}
    for path in files:
        relative = path.relative_to(folder).as_posix()
        for pattern in PATTERNS[tool]:
            match = re.fullmatch(pattern, relative, re.IGNORECASE)
            if not match:
                continue
            parts = {"group": "", "seed": "", **match.groupdict()}
            clip, group = parts["clip"], parts["group"]
            if groups and not group:
                clip, group = split_group(clip, groups)
            key = (clip, group, parts["seed"])
            found.setdefault(key, Output(*key, path.parent if tool == "frames" else path))
            break
    return [found[key] for key in sorted(found)]


def split_group(name: str, groups: Sequence[str]) -> tuple[str, str]:
    """ "flower_30" with group "30" -> ("flower", "30"); without a known ending the whole name is the clip."""
    for group in sorted(groups, key=len, reverse=True):
        for ending in (f"_{group}", f"-{group}"):
            if name.endswith(ending) and len(name) > len(ending):
                return name[: -len(ending)], group
    return name, ""
