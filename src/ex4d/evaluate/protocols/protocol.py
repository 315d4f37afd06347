"""Protocols as readable files (`evaluate/protocols/*.yaml`): what is compared with what, by which metrics, with which cautions."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ex4d.errors import InputError

METRICS = (
    "psnr", "ssim", "ms_ssim", "gmsd", "lpips", "mask", "silhouette", "flicker", "warp", "camera", "fid", "kid", "fvd", "vbench",
)  # fmt: skip

#: What the reference is: true target clips, the source clips (distributions only), or true silhouettes.
REFERENCES = ("target", "source", "silhouette")


@dataclass(frozen=True)
class Protocol:
    """One protocol (see the files for examples).

    Attributes:
        name, title: For commands and reports.
        reference: One of `REFERENCES`.
        reference_files, masks, cameras, output_files: Path patterns with {clip}, {group}, {track}, {trajectory}.
        metrics: Of `METRICS`.
        groups: Group name -> settings (`degrees`: [from, to] makes plots by angle).
        expected_items: How many clips the full protocol has, or None.
        items: Clips that must be there, or empty.
        num_frames, size_hw: What the protocol asks for; other lengths and sizes are reported.
        alignment: Of TransErr.
        cautions: Sentences for every report.
        published: Group -> numbers for orientation.
    """

    name: str
    title: str
    reference: str
    reference_files: tuple[str, ...]
    metrics: tuple[str, ...]
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    masks: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    output_files: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    optional_items: tuple[str, ...] = ()
    expected_items: int | None = None
    num_frames: int | None = None
    size_hw: tuple[int, int] | None = None
    alignment: str = "umeyama"
    cautions: tuple[str, ...] = ()
    published: dict[str, dict[str, float]] = field(default_factory=dict)

    def angle_of(self, group: str) -> float | None:
        """Largest angle of a group in degrees, where it states one."""
        span = self.groups.get(group, {}).get("degrees")
        return None if span is None else float(max(abs(x) for x in span))


def protocol_names() -> list[str]:
    """Names of the protocols that ship."""
    return sorted(
        p.name[: -len(".yaml")] for p in (files("ex4d.evaluate") / "protocols").iterdir() if p.name.endswith(".yaml")
    )


def load_protocol(name: str) -> Protocol:
    """A shipped protocol by name, or one from a YAML file of the user's own.

    Raises:
        InputError: Unknown name, unreadable file, unknown key, metric or reference.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"{path} does not exist", "a protocol file")
        text = path.read_text(encoding="utf-8")
    elif name in protocol_names():
        text = (files("ex4d.evaluate") / "protocols" / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise InputError(
            f"protocol {name!r}", f"one of {', '.join(protocol_names())}, geometry, user-study, or a .yaml file"
        )
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{name} is not YAML ({str(error).splitlines()[0]})", "a protocol file") from error
    return _checked(name, data)


def _checked(name: str, data: Any) -> Protocol:
    known = set(Protocol.__dataclass_fields__)
    needed = {"name", "title", "reference", "reference_files", "metrics"}
    if not isinstance(data, dict) or not needed <= data.keys():
        got = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
        raise InputError(f"protocol {name} with {got}", f"the keys {', '.join(sorted(needed))}")
    for kind, given, allowed in (
        ("key", data.keys(), known),
        ("metric", data["metrics"], METRICS),
        ("reference", [data["reference"]], REFERENCES),
    ):
        unknown = [x for x in given if x not in allowed]
        if unknown:
            raise InputError(f"{kind} {unknown[0]!r} in protocol {name}", f"one of {', '.join(sorted(allowed))}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    values["groups"] = {str(k): v for k, v in (data.get("groups") or {}).items()}
    values["published"] = {str(k): v for k, v in (data.get("published") or {}).items()}
    return Protocol(**values)
