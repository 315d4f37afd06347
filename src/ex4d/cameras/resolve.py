"""A camera path from what the user typed: a preset, a path in words, or a file of any known format."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from ex4d.cameras.language import parse_path
from ex4d.cameras.paths import build_path, spec_notes
from ex4d.types import CameraPath, DepthClip


def make_path(
    spec: str,
    *,
    first: DepthClip,
    num_frames: int,
    fps: Fraction,
    reference: bool = False,
    relative_to: Literal["source", "world"] = "source",
    num_source_frames: int | None = None,
) -> CameraPath:
    """The camera of every output frame.

    Args:
        spec: `orbit:60`, `orbit:yaw=60,pitch=10 + dolly:in=20% then static @ slow=0.5`, a preset of the release (`60`,
            `-180_outer`), or a camera file (`path.json`, `recammaster:cam.json`).
        first: Depth of the first frame: subject, intrinsics and size.
        num_frames: Output frames; a camera file must have as many.
        fps: Output frames a second.
        reference: Released presets exactly as the release makes them (radius of the nearest pixel, angle times `rounds`).
        relative_to: With a moving source camera (`first.cam_from_world`), "source" adds the path to that motion and
            "world" stands on the first source camera alone.
        num_source_frames: Length of the source clip, default `num_frames`.

    Raises:
        InputError: a word or a file that cannot be used, named with what is close to it.
    """
    return build_path(
        parse_path(spec),
        first=first,
        num_frames=num_frames,
        fps=fps,
        num_source_frames=num_source_frames,
        reference=reference,
        name=spec,
    )


def notes(spec: str) -> list[str]:
    """What help and manifests should say about a path, for instance that the released 180 does not turn 180 degrees."""
    return spec_notes(parse_path(spec))
