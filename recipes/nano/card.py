"""The model card of the embedded weights, written from the list of clips and a file of measured numbers."""

from __future__ import annotations

import json
from pathlib import Path

CLIPS = Path(__file__).with_name("clips.json")

#: part -> (title, what it is, how it was made).
PARTS = {
    "autoencoder": (
        "Video autoencoder",
        "16 latent channels, 8x8 in space and 4 in time, the first frame alone; deterministic. Every group of four frames is one "
        "picture for two-dimensional convolutions (`models/nano/autoencoder.py`).",
        "`train_autoencoder.py`: rendered scenes and the clips below at 160 px; L1, L2 and gradient loss, a patch critic in the last "
        "quarter, averaged weights.",
    ),
    "transformer": (
        "Base denoiser",
        "`WanTransformer3DModel`, flow matching, image-to-video with latents of the first frame; one zero text token, so no words.",
        "`base.yaml` with the project's own trainer: every weight from scratch, beside a geometry encoder that is thrown away.",
    ),
    "adapter": (
        "EX-4D adapter",
        "Geometry encoder and LoRA on the frozen base. Its condition is the classical fill of the watertight-mesh render and its mask.",
        "`adapter.yaml` with the project's own trainer on simulated masks: meshes of rendered scenes seen from a second camera, and "
        "real clips under such masks.",
    ),
    "depth": (
        "Depth network",
        "1/z of every frame up to one scale a clip, consistent over time (`models/depth/nano.py`).",
        "`train_depth.py`: rendered scenes and ray cast rooms with exact depth; half of the rooms' textures are cut from the "
        "training clips below. No real depth was seen.",
    ),
}
#: Always true of this model; `numbers.json` may add more under "limits".
LIMITS = (
    "Works near 256 px on the short side: what it invents is brought up to the clip's size and is softer than what was seen.",
    "Pixels that any frame of the clip shows are never touched; only what no frame shows is invented.",
    "Trained on few real clips: faces, hands, text and fine foliage in large holes are not to be believed.",
    "No text prompt, no choice of what appears.",
)


def model_card(numbers: dict, sizes: dict[str, tuple[int, int]]) -> str:
    """Markdown.

    Args:
        numbers: part (or "line", the whole line) -> {name: value | [row, ...]}; rows are dicts with the same keys and
            become a table. "limits": more lines of the last section. "seconds", "machine" and the like are names as any.
        sizes: part -> (parameters, bytes); parts that are not published have no section.
    """
    total = sum(size for _, size in sizes.values())
    lines = [
        "# Model card: the embedded model `nano`",
        "",
        "Small weights of our own for `ex4d run --preset nano`: the whole line on a laptop CPU, nothing to download. Licence of the "
        f"weights: Apache-2.0, as the code. {total / 1e6:.1f} MB in bfloat16; SHA-256 of every file in `hashes.json`. Made by "
        "`recipes/nano` of the repository, from scratch: no other model's weights or outputs were used.",
        "",
    ]
    for part, (title, what, recipe) in PARTS.items():
        if part in sizes:
            count, size = sizes[part]
            lines += [f"## {title} (`{part}/`)", "", what, ""]
            lines += [f"- Size: {count / 1e6:.2f} M parameters, {size / 1e6:.1f} MB.", f"- Recipe: {recipe}"]
            lines += _measured(numbers.get(part))
    if "line" in numbers:
        lines += ["## The whole line", "", *_measured(numbers["line"])[:-1], ""]
    lines += ["## Data and licences", "", *_data(), ""]
    lines += ["## Limits", "", *(f"- {text}" for text in (*LIMITS, *numbers.get("limits", ()))), ""]
    return "\n".join(lines)


def _measured(found: dict | None) -> list[str]:
    if not found:
        return ["- Measured quality: not yet.", ""]
    lines = [f"- {name}: {value}" for name, value in found.items() if not isinstance(value, list)]
    for name, rows in found.items():
        if isinstance(rows, list):
            keys = list(rows[0])
            lines += ["", f"{name}:", "", f"| {' | '.join(keys)} |", f"| {' | '.join('---' for _ in keys)} |"]
            lines += [f"| {' | '.join(str(row.get(key, '')) for key in keys)} |" for row in rows]
    return [*lines, ""]


def _data() -> list[str]:
    clips = json.loads(CLIPS.read_text(encoding="utf-8"))
    lines = [
        "Rendered scenes of our own (`ex4d.scenes.scene`, training seeds only), with exact depth and true second views, and "
        f"{len(clips)} permissively licensed clips, scaled to 256 px and cut into shots:",
        "",
        "| clip | licence | seconds | used for |",
        "| --- | --- | --- | --- |",
    ]
    for clip in clips:
        use = "measuring only, never trained on" if clip["held_out"] else "training"
        lines.append(f"| {clip['source']} | {clip['licence']} | {clip['seconds']} | {use} |")
    return lines
