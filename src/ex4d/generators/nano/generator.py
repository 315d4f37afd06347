"""The embedded model: a small Wan-shaped denoiser refines the classical fill, on a laptop CPU.

It works near 256 px on the short side; what was observed keeps its full resolution, and only what was generated is brought up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ex4d.errors import InputError
from ex4d.generators.fill.fill import Fill
from ex4d.types import Progress, RenderClip, VideoClip

if TYPE_CHECKING:
    from ex4d.generators.base import Generator
    from ex4d.generators.diffusion.parts import Lazy, WanParts
    from ex4d.models.wan.files.adapter import Adapter

Quality = Literal["draft", "default", "best"]


@dataclass(frozen=True)
class Level:
    """What a quality costs, and what is done to its pictures.

    Attributes:
        short_px: Short side, pixels.
        steps: Denoising steps.
        sharpen: How much it is sharpened (`blend.sharpened`).
        detail: How much of the seen texture is continued into the holes (`detail.Detail`); 0 leaves that out.
        finest_px: Texture finer than this is not continued, which is steadier; pixels of the model's size.
    """

    short_px: int
    steps: int
    sharpen: float = 0.0
    detail: float = 0.0
    finest_px: float = 0.0


LEVELS: dict[str, Level] = {
    "draft": Level(192, 1),
    "default": Level(256, 1, detail=1.1, finest_px=0.9),
    "best": Level(256, 8, sharpen=0.8, detail=2.0),
}

#: Frames of one pass; longer clips go through overlapping windows. The model was trained on clips of this length. Both are
#: 4k + 1, so that shared frames fall into the same latent frames of both windows.
WINDOW_FRAMES, OVERLAP_FRAMES = 49, 9

#: Width, as a share of the short side, over which generated pixels turn from the tone of observed ones to their own.
FEATHER_SHARE = 0.024

#: Widest picture that is not scaled down further, long over short side: attention grows with the square of the pixels.
MAX_ASPECT = 2.4

#: Share of a window's work done before its step's own, for the progress bar: (encoding, denoising).
WORK_BEFORE = {"encoding": (0.0, 0.4), "denoising": (0.4, 0.4)}


class Nano:
    """Fill classically, refine what was invented with the embedded model, put it back at the clip's own size.

    Args:
        quality: "draft", "default" or "best".
        steps: Denoising steps instead of the quality's.
        parts: Other weights than the embedded ones.
        fill: What makes the first guess; `Fill` unless it was made before.
        state_dir: Folder where a stopped run keeps its latents, so that the next one need not denoise them again.
    """

    name = "nano"

    def __init__(
        self,
        quality: Quality = "default",
        steps: int | None = None,
        parts: WanParts | None = None,
        fill: Generator | None = None,
        state_dir: Path | None = None,
    ) -> None:
        check_quality(quality)
        self.level = LEVELS[quality] if steps is None else replace(LEVELS[quality], steps=steps)
        self.quality = quality
        self._parts, self._state_dir = parts, state_dir
        self._fill: Generator | Fill = fill or Fill()
        self._inner: Any = None

    def generate(
        self, chunks: Iterable[RenderClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[VideoClip]:
        """Complete the clip window by window; memory does not grow with its length."""
        from ex4d.generators.diffusion.generator import WanGenerator, WanSettings
        from ex4d.generators.nano.blend import composed, drift, sharpened
        from ex4d.generators.nano.detail import Detail

        parts = self._parts if self._parts is not None else nano_parts()
        settings = WanSettings(
            steps=self.level.steps,
            guidance=1.0,
            fit="exact",
            window=WINDOW_FRAMES,
            overlap=OVERLAP_FRAMES,
            erosion_px=1,
            blackout=False,
            source_first=False,
            shared_noise=True,
            state_dir=self._state_dir,
        )
        self._inner = WanGenerator(parts, settings)
        waiting: deque[_Frame] = deque()
        detail = Detail(self.level.finest_px) if self.level.detail else None
        done = told = 0

        def tell(step: int, steps: int | None, what: str) -> None:
            """Frames finished, and a share of the window at work; the caller may raise from here to stop."""
            nonlocal told
            before, share = WORK_BEFORE.get(what.split()[0], (0.0, 0.0))
            told = max(told, done + int((before + share * step / (steps or 1)) * min(len(waiting), WINDOW_FRAMES)))
            if progress is not None:
                progress(told, None, self.name)

        for clip in self._inner.generate(self._small(chunks, waiting), seed=seed, progress=tell):
            frames = []
            for small in clip.frames:
                frame = waiting.popleft()
                toned = small + drift(small, frame.small, frame.small_known)
                toned = sharpened(toned, self.level.sharpen) if self.level.sharpen else toned
                if detail is not None:
                    toned = toned + np.float32(self.level.detail) * detail.next(toned, frame.small, frame.small_known)
                feather_px = FEATHER_SHARE * min(frame.known.shape)
                frames.append(composed(toned, frame.filled, frame.known, feather_px))
                done += 1
                tell(0, None, "put back")
            yield VideoClip(np.stack(frames), clip.fps)

    def manifest(self) -> dict[str, object]:
        """Quality and what the generator inside says."""
        inner = {} if self._inner is None else self._inner.manifest()
        return {**inner, "generator": self.name, "quality": self.quality}

    def notes(self) -> list[str]:
        """What the user should know of the last run."""
        return [] if self._inner is None else self._inner.notes()

    def _small(self, chunks: Iterable[RenderClip], waiting: deque[_Frame]) -> Iterator[RenderClip]:
        """The clip as the model sees it: filled, and small; the full-size fill waits for its refinement."""
        kept: deque[RenderClip] = deque()

        def tee() -> Iterator[RenderClip]:
            for chunk in chunks:
                kept.append(chunk)
                yield chunk

        for filled in self._fill.generate(tee()):
            chunk = kept.popleft()
            known = chunk.mask if chunk.plate_mask is None else chunk.mask | chunk.plate_mask
            hw = small_size(chunk.color.shape[1:3], self.level.short_px)
            small = _resized(chunk, filled.frames, known, hw)
            waiting.extend(map(_Frame, filled.frames, known, small.color, small.mask))
            yield small


@dataclass(frozen=True)
class _Frame:
    """A frame on its way through the model."""

    filled: np.ndarray
    known: np.ndarray
    small: np.ndarray
    small_known: np.ndarray


def check_quality(quality: object) -> None:
    """Raise InputError for a word that is no quality."""
    if quality not in LEVELS:
        raise InputError(f"quality {quality!r}", f"one of {', '.join(LEVELS)}", "--quality default")


def small_size(size_hw: tuple[int, ...], short_px: int, multiple: int = 16) -> tuple[int, int]:
    """Size near `short_px` on the short side whose sides are multiples; never larger than the picture, rounded up.

    Pictures wider than `MAX_ASPECT` keep the pixel count of one that is just so wide.
    """
    h, w = size_hw
    scale = min(short_px / min(h, w), (MAX_ASPECT * short_px**2 / (h * w)) ** 0.5, 1.0)
    return max(round(h * scale / multiple), 1) * multiple, max(round(w * scale / multiple), 1) * multiple


def _resized(chunk: RenderClip, filled: np.ndarray, known: np.ndarray, hw: tuple[int, int]) -> RenderClip:
    import cv2

    if hw == known.shape[1:]:
        color, seen = filled, known
    else:
        color = np.stack([cv2.resize(frame, hw[::-1], interpolation=cv2.INTER_AREA) for frame in filled])
        share = [cv2.resize(m.astype(np.float32), hw[::-1], interpolation=cv2.INTER_AREA) for m in known]
        seen = np.stack(share) > 0.5
    empty = np.ones((len(chunk), *hw), np.float32)
    return RenderClip(color, seen, empty, chunk.path, VideoClip(color, chunk.fps), chunk.fps)


def nano_parts(folder: Path | None = None) -> WanParts:
    """The embedded weights, or those of another published folder, as parts of the Wan generator."""
    from ex4d.generators.diffusion.parts import Lazy
    from ex4d.models.embedded.load import ADAPTER, hashes, load_model, verified
    from ex4d.models.nano.autoencoder import VideoAutoencoder
    from ex4d.models.wan.files.adapter import load_adapter
    from ex4d.models.wan.transformer import Ex4dTransformer

    return assembled(
        Lazy(lambda: load_model(Ex4dTransformer, "transformer", folder=folder)),
        Lazy(lambda: load_model(VideoAutoencoder, "autoencoder", folder=folder)),
        load_adapter(verified(ADAPTER, folder)),
        {"weights": hashes(folder)},
    )


def assembled(
    transformer: Lazy[Any],
    autoencoder: Lazy[Any],
    adapter: Adapter | None,
    manifest: dict[str, Any],
    device: str = "cpu",
) -> WanParts:
    """Parts of the Wan generator from models of the embedded kind.

    Args:
        transformer: The base denoiser; the adapter's LoRA is merged into it.
        autoencoder: The video autoencoder.
        adapter: None leaves the base alone, which then sees no more than the first frame (an ablation).
        manifest: What an output should say of these weights.
        device: Where everything computes.
    """
    import torch

    from ex4d.generators.diffusion.parts import Lazy, WanParts
    from ex4d.models.wan.lora import merge_lora
    from ex4d.models.wan.text import TextEmbeddings

    place = torch.device(device)

    def merged() -> Any:
        model = transformer.get()
        if adapter is not None:
            merge_lora(model, adapter.update())
        return model.to(place)

    def geometry_encoder() -> Any:
        return (lambda *_: None) if adapter is None else adapter.geometry_encoder().to(place)

    denoiser = Lazy(merged)
    text = TextEmbeddings(torch.zeros(1, 1, int(denoiser.get().config["text_dim"])), None)
    return WanParts(
        name="nano",
        transformer=denoiser,
        vae=Lazy(lambda: autoencoder.get().to(place, memory_format=torch.channels_last)),
        geometry_encoder=Lazy(geometry_encoder),
        text=Lazy.of(text),
        device=place,
        mask_affine=(1.0, 0.0),
        text_tokens=None,
        default_steps=1,
        default_guidance=1.0,
        max_frames=WINDOW_FRAMES,
        manifest=manifest,
    )


def preflight() -> None:
    """Refuse missing or changed weights before any work."""
    from ex4d.models.embedded.load import check

    check()


def describe(vram: str | None = None) -> list[str]:
    """What `ex4d doctor --preset nano` says."""
    from ex4d.models.embedded.load import check, megabytes

    count = check()
    levels = ", ".join(f"{name}: {x.short_px} px, {x.steps} step{'s' * (x.steps > 1)}" for name, x in LEVELS.items())
    return [
        f"{count} embedded files as published, {megabytes():.0f} MB; needs no GPU and under 3 GB of memory",
        f"qualities: {levels}",
    ]
