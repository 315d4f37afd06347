"""The depth models by name: where their weights live, how large they are, and under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ex4d.errors import InputError

Family = Literal[
    "depth_anything", "depth_pro", "zoedepth", "prompt_depth_anything", "depth_crafter", "video_depth_anything"
]


@dataclass(frozen=True)
class ModelCard:
    """What a user should know before a download.

    Attributes:
        name: What `--model` takes.
        family: Which code runs it.
        repos: Hugging Face repositories that are needed, with the file patterns of each.
        megabytes: Size of the download, rounded up.
        licence: Of the weights.
        permissive: Whether that licence allows commercial use; only such models are ever chosen by themselves.
        gives: What comes out.
    """

    name: str
    family: Family
    repos: dict[str, tuple[str, ...]]
    megabytes: int
    licence: str
    permissive: bool
    gives: str

    def __str__(self) -> str:
        use = "commercial use allowed" if self.permissive else "research or non-commercial use only"
        return f"{self.name}: {self.gives}; {self.megabytes} MB from {', '.join(self.repos)}; licence {self.licence} ({use})"


_HF_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors*")
_NC = "CC-BY-NC-4.0"


def _depth_anything(suffix: str, repo: str, megabytes: int, permissive: bool, gives: str) -> ModelCard:
    return ModelCard(
        f"depth-anything-v2-{suffix}",
        "depth_anything",
        {f"depth-anything/Depth-Anything-V2-{repo}-hf": _HF_FILES},
        megabytes,
        "Apache-2.0" if permissive else _NC,
        permissive,
        gives,
    )


def _video_depth_anything(suffix: str, letter: str, megabytes: int, permissive: bool) -> ModelCard:
    return ModelCard(
        f"video-depth-anything-{suffix}",
        "video_depth_anything",
        {f"depth-anything/Video-Depth-Anything-{suffix.capitalize()}": (f"video_depth_anything_vit{letter}.pth",)},
        megabytes,
        "Apache-2.0" if permissive else _NC,
        permissive,
        "disparity, consistent over time",
    )


_CARDS = [
    _video_depth_anything("small", "s", 117, True),
    _video_depth_anything("base", "b", 460, False),
    _video_depth_anything("large", "l", 1540, False),
    _depth_anything("small", "Small", 100, True, "disparity"),
    _depth_anything("base", "Base", 390, False, "disparity"),
    _depth_anything("large", "Large", 1342, False, "disparity"),
    _depth_anything("metric-indoor-small", "Metric-Indoor-Small", 100, True, "metres, up to 20"),
    _depth_anything("metric-indoor-large", "Metric-Indoor-Large", 1342, False, "metres, up to 20"),
    _depth_anything("metric-outdoor-small", "Metric-Outdoor-Small", 100, True, "metres, up to 80"),
    _depth_anything("metric-outdoor-large", "Metric-Outdoor-Large", 1342, False, "metres, up to 80"),
    ModelCard(
        "depth-pro",
        "depth_pro",
        {"apple/DepthPro-hf": _HF_FILES},
        1905,
        "Apple Machine Learning Research Model (AMLR)",
        False,
        "metres and focal length",
    ),
    ModelCard(
        "zoedepth",
        "zoedepth",
        {"Intel/zoedepth-nyu-kitti": _HF_FILES},
        1380,
        "MIT",
        True,
        "metres, indoor and outdoor heads",
    ),
    ModelCard(
        "prompt-depth-anything-small",
        "prompt_depth_anything",
        {"depth-anything/prompt-depth-anything-vits-hf": _HF_FILES},
        100,
        "Apache-2.0",
        True,
        "metres, from a coarse metric prompt",
    ),
    ModelCard(
        "prompt-depth-anything-large",
        "prompt_depth_anything",
        {"depth-anything/prompt-depth-anything-vitl-hf": _HF_FILES},
        1360,
        "Apache-2.0",
        True,
        "metres, from a coarse metric prompt",
    ),
    ModelCard(
        "depthcrafter",
        "depth_crafter",
        {
            "tencent/DepthCrafter": ("config.json", "diffusion_pytorch_model.safetensors"),
            "stabilityai/stable-video-diffusion-img2vid": (
                "feature_extractor/*",
                "image_encoder/config.json",
                "image_encoder/model.fp16.safetensors",
                "scheduler/*",
                "vae/config.json",
                "vae/diffusion_pytorch_model.fp16.safetensors",
            ),
        },
        4530,
        "Tencent DepthCrafter (academic, non-commercial) and Stability AI (Stable Video Diffusion)",
        False,
        "disparity, consistent over time",
    ),
]

#: Name -> card.
MODELS: dict[str, ModelCard] = {card.name: card for card in _CARDS}

#: What `auto` tries, in order: permissive licences only.
DEFAULT_CHAIN = tuple(
    name for name in ("video-depth-anything-small", "depth-anything-v2-small", "zoedepth") if MODELS[name].permissive
)


def find_card(name: str) -> ModelCard:
    """The card of a model; InputError names them all."""
    if name not in MODELS:
        raise InputError(f"depth model {name!r}", "one of " + ", ".join(MODELS), "ex4d depth --list-models")
    return MODELS[name]


def licence_table() -> str:
    """One line per model, for help and before any download."""
    rows = [(c.name, f"{c.megabytes} MB", "yes" if c.permissive else "no", c.gives, c.licence) for c in _CARDS]
    rows.insert(0, ("model", "size", "commercial", "gives", "licence of the weights"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows
    )
