"""EX-4D generation behind the same protocol as `fill`: renders in, a complete video out."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ex4d.conditioning.condition import ConditionRule, erode, make_condition, mask_for_vae
from ex4d.conditioning.image import clip_pixels, image_condition, requantised
from ex4d.errors import InputError
from ex4d.generators.diffusion.borrow import encoder_device, on_device
from ex4d.generators.diffusion.denoise import DenoiseInputs, DenoiseSettings, GuidanceGroup, GuidanceMode, denoise
from ex4d.generators.diffusion.memory import Work
from ex4d.generators.diffusion.observed import alignment, confident, paste_observed
from ex4d.generators.diffusion.parts import WanParts
from ex4d.generators.diffusion.windows import OVERLAP_FRAMES, WindowRule, cross_fade
from ex4d.models.wan.autoencoder import check_num_frames, decode_latents, encode_video, padded_length, strides, to_uint8
from ex4d.pixels.sizing import SizeMode, Sizing, plan_size
from ex4d.types import MAX_CHUNK_FRAMES, Progress, RenderClip, VideoClip

#: A first pose this close to the identity is the source camera (poses are float32 at some borders).
SOURCE_POSE_TOLERANCE = 1e-4
#: Each window draws its own noise and kernels: its seed is the clip's plus this many times its number.
WINDOW_SEED_STRIDE = 1_000_003

NO_CLEAN_FIRST_FRAME = (
    "the path does not start at the source camera, so the image-to-video base has no clean first frame and quality drops; "
    "--lead-in 16 starts from the source camera"
)


@dataclass(frozen=True)
class WanSettings:
    """What a user can choose; None leaves it to the parts.

    Attributes:
        steps: Denoising steps (25 as released; 4 with a distilled LoRA).
        guidance: Guidance scale; 1 turns the negative pass off.
        size_hw: Size to work at.
        fit: What to do when the render has another size.
        window: Longest pass in frames, 4k + 1.
        overlap: Frames that windows of a longer clip share.
        erosion_px: Fixed erosion of the mask; None draws each frame's, as released.
        lead_in: Frames at the start that only lead from the source camera to the path; cut off the result.
        observed: "generated" keeps what the model made; "paste" puts confidently seen pixels back.
        guidance_mode: Two forwards, one of batch two, or split over GPUs.
        blackout: Black out unknown colour, as released; False shows the denoiser the colour that is there.
        source_first: Where the path starts at the source camera, frame 0 is the source's own; else the render stands as it is.
        shared_noise: A latent frame that two windows share gets the same noise in both.
        reference: Round and truncate exactly as the release.
        state_dir: Folder where a stopped run keeps its latents.
    """

    steps: int | None = None
    guidance: float | None = None
    size_hw: tuple[int, int] | None = None
    fit: SizeMode = "crop"
    window: int | None = None
    overlap: int = OVERLAP_FRAMES
    erosion_px: int | None = None
    lead_in: int = 0
    observed: Literal["generated", "paste"] = "generated"
    guidance_mode: GuidanceMode = "sequential"
    blackout: bool = True
    source_first: bool = True
    shared_noise: bool = False
    reference: bool = False
    state_dir: Path | None = None

    def rule(self) -> ConditionRule:
        """How renders become conditions."""
        base = ConditionRule.reference() if self.reference else ConditionRule()
        return replace(base, erosion_px=self.erosion_px, blackout=self.blackout)


@dataclass
class _Run:
    """Scores and times of the last run."""

    seed: int = 0
    windows: int = 0
    frames: int = 0
    working_hw: tuple[int, int] | None = None
    clean_first_frame: bool = True
    image_tower: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    alignments: list[dict[str, float]] = field(default_factory=list)

    @contextmanager
    def timed(self, name: str, device: torch.device) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class _Window:
    """Frames of one pass at the working size."""

    color: np.ndarray
    mask: np.ndarray
    seen: np.ndarray

    def __len__(self) -> int:
        return len(self.color)

    def __getitem__(self, index: slice) -> _Window:
        return _Window(self.color[index], self.mask[index], self.seen[index])

    def joined(self, other: _Window) -> _Window:
        return _Window(*(np.concatenate(pair) for pair in zip(self._arrays(), other._arrays(), strict=True)))

    def padded(self, num_frames: int) -> _Window:
        """With the last frame repeated."""
        extra = num_frames - len(self)
        return _Window(*(np.concatenate([a, np.repeat(a[-1:], extra, axis=0)]) for a in self._arrays()))

    def with_known(self, frames: np.ndarray) -> _Window:
        """The first frames replaced by finished ones, known everywhere."""
        n = len(frames)
        mask = np.concatenate([np.full_like(self.mask[:n], 255), self.mask[n:]])
        return _Window(np.concatenate([frames, self.color[n:]]), mask, self.seen)

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.color, self.mask, self.seen


class WanGenerator:
    """Completes renders with a Wan-shaped denoiser and the EX-4D adapter.

    Args:
        parts: The models.
        settings: The choices.
        group: Set where guidance is split over GPUs.
    """

    def __init__(
        self, parts: WanParts, settings: WanSettings = WanSettings(), group: GuidanceGroup | None = None
    ) -> None:
        self.parts, self.settings, self.group = parts, settings, group
        self.name = parts.name
        self._run = _Run()
        self._states: list[Path] = []
        window = settings.window or parts.max_frames
        self.rule = WindowRule(window, min(settings.overlap, window - 1)) if window > 1 else WindowRule(2, 1)
        self.denoise_settings = DenoiseSettings(
            parts.default_steps if settings.steps is None else settings.steps,
            parts.default_guidance if settings.guidance is None else settings.guidance,
            parts.shift,
            settings.guidance_mode,
        )
        if self.denoise_settings.steps < 1:
            raise InputError(f"{settings.steps} steps", "1 or more", "--steps 25")
        if settings.lead_in < 0:
            raise InputError(f"a lead-in of {settings.lead_in} frames", "0 or more", "--lead-in 16")

    def generate(
        self, chunks: Iterable[RenderClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[VideoClip]:
        """Complete the clip window by window; the same seed gives the same bytes on the same machine."""
        self._run = _Run(seed=seed)
        stride, pixel = self.parts.strides
        check_num_frames(self.rule.frames, stride)
        skip = self.settings.lead_in
        for fps, frames in self._windows(iter(chunks), stride, pixel, seed, progress):
            dropped = min(skip, len(frames))
            skip -= dropped
            for start in range(dropped, len(frames), MAX_CHUNK_FRAMES):
                self._run.frames += len(frames[start : start + MAX_CHUNK_FRAMES])
                yield VideoClip(frames[start : start + MAX_CHUNK_FRAMES], fps)
        self._forget_states()

    @property
    def lead_in(self) -> int:
        """Frames at the start that are not handed on."""
        return self.settings.lead_in

    def manifest(self) -> dict[str, object]:
        """Settings, parts, and the scores and times of the last run."""
        run = asdict(self._run)
        return {
            "generator": self.name,
            "settings": {**asdict(self.settings), **_plain(self.denoise_settings)},
            "parts": self.parts.manifest,
            **run,
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """What the user should know of the last run, one line each."""
        out = [str(self.parts.manifest["plan"])] if "plan" in self.parts.manifest else []
        if not self._run.clean_first_frame:
            out.append(NO_CLEAN_FIRST_FRAME)
        return out

    def _windows(
        self, chunks: Iterator[RenderClip], stride: int, pixel: int, seed: int, progress: Progress | None
    ) -> Iterator[tuple[Fraction, np.ndarray]]:
        """Finished frames of each window, without what the next one will cross-fade."""
        source = _Source(chunks, self, pixel)
        ready, tail, number = None, None, 0
        while True:
            ready = source.fill(ready, self.rule.frames + 1)
            if ready is None:
                raise InputError("a clip without frames", "one frame or more", "another render")
            window = ready[: self.rule.frames]
            if number == 0:
                self._prepare(window, stride)
            last = len(ready) <= self.rule.frames
            frames = self._complete(window, tail, stride, seed + number * WINDOW_SEED_STRIDE, number, progress)
            assert source.sizing is not None and source.fps is not None
            if last:
                yield source.fps, source.sizing.restore(frames)
                return
            keep = len(window) - self.rule.overlap
            yield source.fps, source.sizing.restore(frames[:keep])
            tail, ready, number = frames[keep:], ready[keep:], number + 1

    def _prepare(self, window: _Window, stride: int) -> None:
        """Let the parts plan for the clip that is really there."""
        if self.parts.prepare is None:
            return
        settings = self.denoise_settings
        size_hw = (int(window.color.shape[1]), int(window.color.shape[2]))
        work = Work(padded_length(len(window), stride), size_hw, settings.steps, settings.guidance != 1)
        self.parts = self.parts.prepare(self.parts, work)
        if self.parts.batched_guidance and settings.mode == "sequential":
            self.denoise_settings = replace(settings, mode="batched")

    def _complete(
        self, window: _Window, tail: np.ndarray | None, stride: int, seed: int, number: int, progress: Progress | None
    ) -> np.ndarray:
        """Generate one window of working-size frames."""
        rule = self.settings.rule()
        count = len(window)
        eroded = replace(window, mask=erode(window.mask, rule.kernels(count, seed)))
        given = eroded if tail is None else eroded.with_known(tail)
        latents = self._denoised(given.padded(padded_length(count, stride)), rule, seed, number, progress)
        with self._run.timed("decode", self.parts.device):
            video = decode_latents(self.parts.vae.get(), latents)
            frames = to_uint8(video[:, :, :count], truncate=self.settings.reference)
        self._run.windows = number + 1
        fresh = 0 if tail is None else len(tail)
        score = alignment(frames[fresh:], window.color[fresh:], eroded.seen[fresh:] & (eroded.mask[fresh:] > 127))
        self._run.alignments.append(asdict(score))
        if self.settings.observed == "paste":
            frames = paste_observed(frames, window.color, eroded.seen & (eroded.mask > 127))
        if tail is not None:
            frames[:fresh] = cross_fade(tail, frames[:fresh])
        return frames

    def _denoised(
        self, window: _Window, rule: ConditionRule, seed: int, number: int, progress: Progress | None
    ) -> Tensor:
        parts, device = self.parts, self.parts.device
        label = f"window {number + 1}"
        with self._run.timed("encode", device):
            noise, y, first, geometry = self._encode(window, rule, seed, number, progress)
        with self._run.timed("image", device):
            image_tokens = self._image_tokens(first)
        with self._run.timed("text", device):
            text = parts.text.get().padded(parts.text_tokens)
            text = replace(text, positive=text.positive.to(device), negative=_to(text.negative, device))
        with self._run.timed("load", device):
            if progress is not None and not parts.transformer.built:
                progress(0, None, "loading the denoiser")
            transformer = parts.transformer.get()
            _free_cache(device)  # what merging and quantising needed
        inputs = DenoiseInputs(noise, y, text, image_tokens, geometry)
        settings = replace(self.denoise_settings, state=self._state_file(number, seed, window))
        report = (lambda done, total: progress(done, total, f"denoising {label}")) if progress is not None else None
        with self._run.timed("denoise", device):
            group = self.group or getattr(transformer, "guidance_group", None)
            latents = denoise(transformer, inputs, settings, report, group)
        _free_cache(device)
        return latents

    def _encode(self, window: _Window, rule: ConditionRule, seed: int, number: int, progress: Progress | None):
        """(noise, y, first frame, geometry tokens)."""
        parts, device = self.parts, self.parts.device
        vae = parts.vae.get()
        if parts.vae_tiling:
            vae.enable_tiling()
        condition = make_condition(window.color, window.mask, rule)
        self._run.working_hw = window.color.shape[1:3]  # type: ignore[assignment]
        first = requantised(condition.color[:, :, 0], truncate=rule.truncate_first_frame).to(device)
        total = 3 if parts.first_frame else 2

        def encode(video: Tensor, done: int) -> Tensor:
            if progress is not None:
                progress(done, total, f"encoding window {number + 1}")
            return encode_video(vae, video.to(device))

        color_latents = encode(condition.color, 0)
        mask_latents = encode(mask_for_vae(condition.mask, parts.mask_affine), 1)
        stride = parts.strides[0]
        assert strides(vae) == parts.strides, "the parts' strides are not their VAE's"
        channels = color_latents.shape[1]
        y = None
        if self._has_y(channels):
            shape = (1, *(int(n) for n in condition.color.shape[2:]))
            y = image_condition(lambda v: encode(v, 2), first if parts.first_frame else None, shape, stride)  # type: ignore[arg-type]
        encoder = parts.geometry_encoder.get()
        with torch.no_grad():
            geometry = encoder(color_latents, mask_latents)
        if device.type == "cuda":
            parts.geometry_encoder.release()
        noise = self._noise(tuple(color_latents.shape), seed, number)
        _free_cache(device)
        return noise.to(device), y, first, geometry

    def _noise(self, shape: tuple[int, ...], seed: int, number: int) -> Tensor:
        """Float32 noise on the CPU, so that every machine draws the same."""
        draw = torch.Generator("cpu")
        if not self.settings.shared_noise:
            return torch.randn(shape, generator=draw.manual_seed(seed), dtype=torch.float32)
        first = number * (self.rule.frames - self.rule.overlap) // self.parts.strides[0]
        still = (*shape[:2], 1, *shape[3:])
        seeds = (self._run.seed * WINDOW_SEED_STRIDE + first + k for k in range(shape[2]))
        return torch.cat([torch.randn(still, generator=draw.manual_seed(s)) for s in seeds], dim=2)

    def _has_y(self, latent_channels: int) -> bool:
        """Whether the denoiser takes an image condition: its config says so without loading it."""
        in_channels = self.parts.manifest.get("in_channels")
        if in_channels is None:
            in_channels = self.parts.transformer.get().config["in_channels"]
        return int(in_channels) > latent_channels  # type: ignore[call-overload]

    @torch.no_grad()
    def _image_tokens(self, first: Tensor) -> Tensor | None:
        if self.parts.image_encoder is None or not self.parts.first_frame:
            return None
        parts = self.parts
        encoder = self.parts.image_encoder.get()
        device = encoder_device(parts.device, parts.image_device, parts.transformer.built)
        self._run.image_tower.append(device.type)
        pixels = clip_pixels(first.cpu())
        with on_device(encoder, device):
            dtype = next(encoder.parameters()).dtype
            tokens = encoder(pixels.to(device, dtype), output_hidden_states=True).hidden_states[-2]
            return tokens.float().to(parts.device)

    def _state_file(self, number: int, seed: int, window: _Window) -> Path | None:
        """Named by everything that decides the latents, so that another clip or setting never resumes this one."""
        folder = self.settings.state_dir
        if folder is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(repr((seed, _plain(self.denoise_settings), self.parts.manifest)).encode())
        digest.update(window.color.tobytes())
        digest.update(window.mask.tobytes())
        path = folder / f"window{number:03d}_{digest.hexdigest()[:16]}.safetensors"
        self._states.append(path)
        return path

    def _forget_states(self) -> None:
        """The clip is finished: nothing is left to go on from."""
        for path in self._states:
            path.unlink(missing_ok=True)
        folder = self.settings.state_dir
        if folder is not None and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        self._states = []


class _Source:
    """Chunks at the working size, with what only the first one tells."""

    def __init__(self, chunks: Iterator[RenderClip], generator: WanGenerator, pixel: int) -> None:
        self.chunks, self.generator, self.pixel = chunks, generator, pixel
        self.sizing: Sizing | None = None
        self.fps: Fraction | None = None

    def fill(self, ready: _Window | None, wanted: int) -> _Window | None:
        """Frames so far, more of them while fewer than `wanted` are there and the clip goes on."""
        while ready is None or len(ready) < wanted:
            chunk = next(self.chunks, None)
            if chunk is None:
                return ready
            if len(chunk):
                added = self._prepared(chunk)
                ready = added if ready is None else ready.joined(added)
        return ready

    def _prepared(self, chunk: RenderClip) -> _Window:
        settings = self.generator.settings
        _check_chunk(chunk)
        color, mask = chunk.color, chunk.mask.astype(np.uint8) * 255
        if self.sizing is None:
            token_px = self.pixel * 2
            self.sizing = plan_size(color.shape[1:3], settings.size_hw, settings.fit, token_px)
            self.fps = chunk.fps
            if settings.source_first:
                color, mask = self._first_frame(chunk, color, mask)
        seen = confident(chunk.mask, chunk.coverage).astype(np.uint8) * 255
        if self.sizing.identity and color.shape[1:3] == self.sizing.target_hw:
            return _Window(color, mask, seen > 0)
        return _Window(self.sizing.frames(color), self.sizing.masks(mask), self.sizing.masks(seen) > 250)

    def _first_frame(self, chunk: RenderClip, color: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the path starts at the source camera, frame 0 is the source's own; elsewhere a warning."""
        start = chunk.path.cam_from_world[0]
        if not np.allclose(start, np.eye(4), atol=SOURCE_POSE_TOLERANCE):
            self.generator._run.clean_first_frame = False
            warnings.warn(NO_CLEAN_FIRST_FRAME, UserWarning, stacklevel=2)
            return color, mask
        source = chunk.source.frames
        if len(source) and source.shape[1:3] == color.shape[1:3]:
            color, mask = color.copy(), mask.copy()
            color[0], mask[0] = source[0], 255
        return color, mask


def _check_chunk(chunk: RenderClip) -> None:
    if len(chunk.color) != len(chunk.mask):
        raise InputError(
            f"{len(chunk.color)} colour frames but {len(chunk.mask)} mask frames",
            "two videos of the same length",
            "render both from the same camera path",
        )
    if chunk.color.shape[1:3] != chunk.mask.shape[1:3]:
        raise InputError(
            f"colour of {chunk.color.shape[2]}x{chunk.color.shape[1]} but mask of "
            f"{chunk.mask.shape[2]}x{chunk.mask.shape[1]}",
            "the same size",
            "render both from the same camera path",
        )


def _plain(settings: DenoiseSettings) -> dict[str, object]:
    return {"steps": settings.steps, "guidance": settings.guidance, "shift": settings.shift}


def _to(value: Tensor | None, device: torch.device) -> Tensor | None:
    return None if value is None else value.to(device)


def _free_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def make_wan14b(**options: Any) -> WanGenerator:
    """The `wan14b` preset: released weights, found locally, planned for this machine."""
    from ex4d.generators.wan14b.generator import make

    return make(**options)
