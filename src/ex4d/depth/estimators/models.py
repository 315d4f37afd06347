"""From a model's name to an estimator with its weights loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from ex4d.depth.base import DepthEstimator
from ex4d.depth.conversion import FAR_OVER_NEAR
from ex4d.depth.estimators.given import DepthMaps
from ex4d.depth.intrinsics import Intrinsics
from ex4d.errors import InputError, ResourceError, WeightsError
from ex4d.models.depth.cards import MODELS, Family, ModelCard, find_card
from ex4d.models.depth.weights import find_repos, first_available

ChooseIntrinsics = Callable[["Float32[np.ndarray, '3 3'] | None"], Intrinsics]
Precision = Literal["auto", "float32", "float16", "bfloat16"]


def is_model_folder(path: Path) -> bool:
    """A folder with a transformers model in it, rather than depth pictures."""
    return (path / "config.json").is_file() and any(path.glob("*.safetensors"))


def make_model_depth(
    spec: str,
    choose: ChooseIntrinsics,
    *,
    reference: bool = False,
    device: str = "auto",
    dtype: Precision = "auto",
    models_dir: Path | str | None = None,
    work_dir: Path | None = None,
    far_over_near: float = FAR_OVER_NEAR,
    batch: int = 4,
    align: bool = True,
    flow_radius: int = 0,
    prompt: DepthMaps | None = None,
    window: int = 110,
    overlap: int = 25,
    steps: int = 5,
    guidance: float = 1.0,
    memory: Literal["auto", "fast", "low", "lowest"] = "auto",
) -> DepthEstimator:
    """An estimator with a network.

    Args:
        spec: A name of `cards.MODELS`, `nano` (the embedded network), `auto` (the first permissive model that is here, else nano), or a
            model's folder.
        choose: Intrinsics from what the model says of them.
        reference: Released conversion and seed (DepthCrafter).
        device: `auto` takes the GPU where there is one.
        dtype: `auto`: float16 on a GPU, float32 on the CPU.
        models_dir: Folder of models, before `$EX4D_MODELS` and the Hugging Face cache.
        work_dir: Where finished pieces are kept for a second run.
        far_over_near: How deep a disparity clip is taken to be where nothing tells.
        batch, align, flow_radius, prompt: Per-frame models; see `per_frame.PerFrameDepth`.
        window, overlap, steps, guidance, memory: DepthCrafter; see `depth_crafter.DepthCrafterDepth`.

    Raises:
        InputError: An unknown name or option.
        WeightsError: Missing weights (with the one command and the size), or weights of another model.
    """
    place, precision = _device(device), dtype
    root = None if models_dir is None else Path(models_dir)
    folder = Path(spec)
    card = _first_here(root) if spec == "auto" else None
    if spec == "nano" or (spec == "auto" and card is None):
        from ex4d.depth.estimators.nano import load_nano

        more = {"reference": reference, "work_dir": work_dir, "far_over_near": far_over_near}
        return load_nano(choose(None), device=place, **more)
    if is_model_folder(folder):
        return _per_frame(
            folder.name,
            _family_of(folder),
            folder,
            choose,
            place,
            precision,
            work_dir,
            far_over_near,
            batch,
            align,
            flow_radius,
            prompt,
        )
    card = card or find_card(spec)
    folders = find_repos(card, root)
    if card.family == "depth_crafter":
        from ex4d.depth.estimators.crafter_windows import Windows
        from ex4d.depth.estimators.depth_crafter import DepthCrafterDepth
        from ex4d.models.depth.depth_crafter import load_parts

        unet, svd = folders.values()
        return DepthCrafterDepth(
            load_parts(unet, svd, _dtype(precision, place)),
            choose(None),
            Windows(window, overlap),
            steps,
            guidance,
            reference,
            place,
            "low" if memory == "auto" else memory,
            work_dir,
            far_over_near,
            _weights(card),
        )
    (only,) = folders.values()
    if card.family == "video_depth_anything":
        return _video_depth_anything(card, only, choose, place, precision, reference, work_dir, far_over_near)
    return _per_frame(
        card.name,
        card.family,
        only,
        choose,
        place,
        precision,
        work_dir,
        far_over_near,
        batch,
        align,
        flow_radius,
        prompt,
        card,
    )


def model_option_names() -> frozenset[str]:
    """What `make_model_depth` takes besides the name, the intrinsics and the released behaviour."""
    return frozenset(signature(make_model_depth).parameters) - {"spec", "choose", "reference"}


def _first_here(root: Path | None) -> ModelCard | None:
    """The first downloaded model that is here; None where there is none, but the package's own."""
    from ex4d.depth.estimators.nano import available

    try:
        return first_available(root)
    except WeightsError:
        if not available():
            raise
        return None


def _video_depth_anything(
    card: ModelCard,
    folder: Path,
    choose: ChooseIntrinsics,
    device: str,
    dtype: Precision,
    reference: bool,
    work_dir: Path | None,
    far_over_near: float,
) -> DepthEstimator:
    import torch

    from ex4d.depth.estimators.video_depth_anything import VideoDepthAnythingDepth
    from ex4d.models.depth.video_depth_anything import load_released

    (pattern,) = next(iter(card.repos.values()))
    path = next(folder.glob(pattern))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each raise their own kind
        raise WeightsError(
            f"{path} cannot be read ({str(error).splitlines()[0]})",
            "the released checkpoint",
            f"ex4d models download {card.name}",
        ) from error
    network = load_released(state, str(path)).to(device, _dtype(dtype, device))
    more = {"reference": reference, "work_dir": work_dir, "far_over_near": far_over_near}
    return VideoDepthAnythingDepth(network, choose(None), weights=_weights(card), name=card.name, **more)


def _per_frame(
    name: str,
    family: Family,
    folder: Path,
    choose: ChooseIntrinsics,
    device: str,
    dtype: Precision,
    work_dir: Path | None,
    far_over_near: float,
    batch: int,
    align: bool,
    flow_radius: int,
    prompt: DepthMaps | None,
    card: ModelCard | None = None,
) -> DepthEstimator:
    from ex4d.depth.estimators.frame_model import load_frame_model
    from ex4d.depth.estimators.per_frame import PerFrameDepth

    if prompt is not None and family != "prompt_depth_anything":
        raise InputError(f"a depth prompt for {name}", "a model that takes one", "--model prompt-depth-anything-small")
    model = load_frame_model(folder, family, device, _dtype(dtype, device))
    weights: dict[str, object] = {"folder": str(folder)} if card is None else _weights(card)
    return PerFrameDepth(model, choose, name, batch, align, flow_radius, prompt, work_dir, far_over_near, weights)


def _weights(card: ModelCard) -> dict[str, object]:
    return {"repositories": list(card.repos), "licence": card.licence, "commercial_use": card.permissive}


def _family_of(folder: Path) -> Family:
    kind = json.loads((folder / "config.json").read_text()).get("model_type", "?")
    families: dict[str, Family] = {card.family: card.family for card in MODELS.values()}
    if kind not in families:
        raise InputError(f"{folder} holds a {kind}", "one of " + ", ".join(families), "ex4d depth --list-models")
    return families[kind]


def _device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ResourceError(f"--device {device} without a CUDA GPU", "a GPU that torch can see", "--device cpu")
    return device


def _dtype(dtype: Precision, device: str):
    import torch

    if dtype == "auto":
        return torch.float16 if device.startswith("cuda") else torch.float32
    return getattr(torch, dtype)
