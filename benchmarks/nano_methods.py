"""What nano.py compares: completions without a model, the autoencoder's ceiling, and the embedded model with any weights."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from nano_cases import ROOT, Case, load

from ex4d.errors import InputError, WeightsError
from ex4d.evaluate.metrics.holes import score_holes
from ex4d.types import Progress, RenderClip, VideoClip

#: Rivals that any model must beat.
RIVALS = ("black", "telea", "hold", "fill")
#: Reach of Telea's inpainting, pixels.
TELEA_RADIUS_PX = 3
REGIONS = ("holes", "invented")
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def completed(method: str, case: Case) -> np.ndarray:
    """The clip as a rival completes it, uint8 [T, H, W, 3]."""
    if method == "fill":
        return case.filled
    if method == "black":
        return np.where(case.holes[..., None], 0, case.color).astype(np.uint8)
    if method == "telea":
        return telea(case.color, case.holes)
    if method == "hold":
        return hold_last(case.color, case.holes)
    raise InputError(f"method {method!r}", f"one of {', '.join(RIVALS)}")


def telea(color: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """OpenCV's fast-marching inpainting of every frame by itself."""
    import cv2

    pairs = zip(color, holes, strict=True)
    return np.stack([cv2.inpaint(c, h.astype(np.uint8), TELEA_RADIUS_PX, cv2.INPAINT_TELEA) for c, h in pairs])


def hold_last(color: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Each hole pixel shows what was last seen at its place in the picture; never seen: the nearest pixel that was."""
    from scipy.ndimage import distance_transform_edt

    out = np.empty_like(color)
    last, known = np.zeros_like(color[0]), np.zeros(holes.shape[1:], bool)
    for t in range(len(color)):
        last = np.where(holes[t][..., None], last, color[t])
        known |= ~holes[t]
        out[t] = last
        if known.any() and not known.all():
            rows, cols = np.asarray(distance_transform_edt(~known, return_distances=False, return_indices=True))
            out[t] = last[rows, cols]
    return out


@dataclass(frozen=True)
class Stored:
    """A fill that was made before: a generator that hands it on."""

    frames: np.ndarray
    name: str = "fill"

    def generate(
        self, chunks: Iterable[RenderClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[VideoClip]:
        """The stored frames of each chunk."""
        start = 0
        for chunk in chunks:
            yield VideoClip(self.frames[start : start + len(chunk)], chunk.fps)
            start += len(chunk)

    def manifest(self) -> dict[str, object]:
        """Its name."""
        return {"generator": self.name}


@dataclass(frozen=True)
class Model:
    """A way to run the embedded model: "draft", "default", "best", "default@4" (4 steps), "base" (no adapter), "base-best"."""

    name: str
    quality: str
    steps: int | None
    adapter: bool

    @classmethod
    def parse(cls, name: str) -> Model:
        """From its name; InputError for another."""
        from ex4d.generators.nano.generator import LEVELS

        words, _, steps = name.partition("@")
        adapter = not words.startswith("base")
        quality = words if adapter else (words.removeprefix("base").lstrip("-") or "default")
        if quality not in LEVELS or (steps and not steps.isdigit()):
            known = ", ".join([*RIVALS, "ceiling", *LEVELS, "base", "base-best", "default@4"])
            raise InputError(f"method {name!r}", f"methods such as {known}")
        return cls(name, quality, int(steps) if steps else None, adapter)

    def run(self, parts: Any, case: Case, noise: int) -> np.ndarray:
        """The completed clip."""
        from ex4d.generators.nano.generator import Nano

        nano = Nano(self.quality, self.steps, parts, Stored(case.filled))  # type: ignore[arg-type]
        return np.concatenate([clip.frames for clip in nano.generate([case.render()], seed=noise)])


def load_strict(cls: Any, folder: Path) -> Any:
    """A diffusers model with exactly the weights of a folder, float32; no hash is checked."""
    from safetensors.torch import load_file

    if not (folder / WEIGHTS_FILE).is_file():
        raise WeightsError(
            f"no {WEIGHTS_FILE} in {folder}", "a folder laid out like models/embedded", "--weights FOLDER"
        )
    model = cls.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    model.load_state_dict({k: v.float() for k, v in load_file(folder / WEIGHTS_FILE).items()})
    return model.eval().requires_grad_(False)


def adapter_file(weights: Path) -> Path:
    """Where a folder of weights keeps its adapter."""
    inner = weights / "adapter" / "adapter.safetensors"
    return inner if inner.is_file() else weights / "adapter.safetensors"


def parts_of(weights: Path, adapter: bool, device: str) -> Any:
    """Parts of the generator from a folder laid out like the embedded one."""
    from ex4d.generators.diffusion.parts import Lazy
    from ex4d.generators.nano.generator import assembled
    from ex4d.models.nano.autoencoder import VideoAutoencoder
    from ex4d.models.wan.files.adapter import load_adapter
    from ex4d.models.wan.transformer import Ex4dTransformer

    return assembled(
        Lazy(lambda: load_strict(Ex4dTransformer, weights / "transformer")),
        Lazy(lambda: load_strict(VideoAutoencoder, weights / "autoencoder")),
        load_adapter(adapter_file(weights)) if adapter else None,
        {"weights": str(weights)},
        device,
    )


def through_autoencoder(vae: Any, truth: np.ndarray, device: str) -> np.ndarray:
    """The true clip encoded and decoded: no completion through this autoencoder can be closer."""
    import torch

    from ex4d.models.wan.autoencoder import decode_latents, encode_video, padded_length, strides, to_uint8

    count = padded_length(len(truth), strides(vae)[0])
    whole = np.concatenate([truth, np.repeat(truth[-1:], count - len(truth), axis=0)])
    video = torch.from_numpy(whole).to(device).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    return to_uint8(decode_latents(vae, encode_video(vae, video)))[: len(truth)]


@lru_cache(maxsize=1)
def _loaded(path: Path) -> Case:
    return load(path)


def scored(path: Path, method: str, every: int, frames: np.ndarray | None = None) -> dict[str, Any]:
    """One row: the scores of a method on a staged case, in its holes and in what had to be invented."""
    case = _loaded(path)
    shown = completed(method, case) if frames is None else frames
    regions = {"holes": case.holes, "invented": case.invented}
    row: dict[str, Any] = {"case": case.name, "group": case.group, "seed": case.seed, "method": method, "noise": 0}
    row["share"] = {name: float(mask.mean()) for name, mask in regions.items()}
    for name, mask in regions.items():
        same = name == "invented" and np.array_equal(mask, case.holes)
        row[name] = row["holes"] if same else asdict(score_holes(shown, case.truth, mask, case.motion, every))
    return row


def kept_file(path: Path, name: str, every: int) -> Path:
    """Where the scores of something that needs no new weights are kept until the case or the code changes."""
    return path.with_suffix("") / f"{name}_{every}_{code_hash()}_{path.stat().st_mtime_ns:x}.json"


def scored_once(path: Path, name: str, every: int, frames: np.ndarray | None = None) -> dict[str, Any]:
    """As `scored`, kept beside the case; kept scores need no frames."""
    from ex4d.system.atomic import written_whole

    kept = kept_file(path, name, every)
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    row = scored(path, name, every, frames)
    kept.parent.mkdir(exist_ok=True)
    with written_whole(kept) as temporary:
        temporary.write_text(json.dumps(row), encoding="utf-8")
    return row


def file_hash(path: Path) -> str:
    """The first digits of a file's SHA-256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Of the code that decides kept scores."""
    digest = hashlib.sha256()
    for name in ("holes", "image", "consistency"):
        digest.update((ROOT / "src" / "ex4d" / "evaluate" / "metrics" / f"{name}.py").read_bytes())
    for made in (completed, telea, hold_last, through_autoencoder, scored):
        digest.update(inspect.getsource(made).encode())
    return digest.hexdigest()[:12]
