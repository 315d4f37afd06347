"""DepthCrafter: video diffusion that gives disparity consistent over a clip, as the reference uses it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ex4d.depth.conversion import FAR_OVER_NEAR
from ex4d.depth.estimators.crafter_windows import Denoiser, Windows, denoise_windows
from ex4d.depth.intrinsics import Intrinsics
from ex4d.depth.maps.second_pass import DisparitySpool, to_depth_clips
from ex4d.errors import InputError
from ex4d.models.depth.depth_crafter import (
    CHUNK_FRAMES,
    NOISE_STRENGTH,
    CrafterParts,
    check_size,
    decode_latents,
    embed_frames,
    encode_frames,
)
from ex4d.system.array_store import ArrayStore, content_key
from ex4d.types import DepthClip, Progress, VideoClip

#: fast: everything stays on the device. low: one network at a time. lowest: the UNet comes block by block.
Memory = Literal["fast", "low", "lowest"]

#: The reference's global seed (recon.py).
REFERENCE_SEED = 42

#: The reference's size rule: sides round to multiples of 64, the longer one at most 1024.
SIDE_MULTIPLE, LONGEST_SIDE = 64, 1024


def working_size(size_hw: tuple[int, int], factor: int = 8, longest: int = LONGEST_SIDE) -> tuple[int, int]:
    """(height, width) the networks see: the frame's own where they can take it, else the reference's size rule."""
    if max(size_hw) <= longest and size_hw[0] % factor == 0 and size_hw[1] % factor == 0:
        return size_hw
    scale = min(1.0, longest / max(size_hw))
    sides = [max(SIDE_MULTIPLE, round(side * scale / SIDE_MULTIPLE) * SIDE_MULTIPLE) for side in size_hw]
    return sides[0], sides[1]


@dataclass(frozen=True)
class DepthCrafterDepth:
    """A DepthEstimator. Frames are encoded in groups of 8, denoised in windows, decoded in groups of 8: memory does not grow
    with the clip but for the latents (about 70 kB a frame at 512x512), and finished groups and windows are kept in `work_dir`.

    Attributes:
        parts: The networks (`crafter_model.load_parts`).
        intrinsics: K in pixels of the clip.
        windows: Window length and overlap.
        num_steps, guidance: Denoising steps; classifier-free guidance above 1.
        reference: Released conversion (clip-wide minimum and maximum, 10000 / 3900 d) and seed 42.
        memory: What stays on the device.
        work_dir: Where finished pieces are kept for a second run; None: a temporary folder.
        weights: What the manifest says about the weights.
    """

    parts: CrafterParts
    intrinsics: Intrinsics
    windows: Windows = Windows()
    num_steps: int = 5
    guidance: float = 1.0
    reference: bool = False
    device: str = "cpu"
    memory: Memory = "low"
    work_dir: Path | None = None
    far_over_near: float = FAR_OVER_NEAR
    weights: dict[str, object] = field(default_factory=dict)
    name: str = "depthcrafter"
    _found: dict[str, object] = field(default_factory=dict, repr=False)

    @torch.inference_mode()
    def disparity(
        self, frames: Iterable[UInt8[np.ndarray, "n height width 3"]], seed: int, progress: Progress | None = None
    ) -> Iterator[np.ndarray]:
        """Raw disparity in 0..1 (mean of the decoded channels), float32 [n, H, W] groups at the frames' own size.

        Args:
            frames: Groups of any length; sides multiples of 8.
        """
        for rgb in self.decoded(frames, seed, progress):
            yield rgb.mean(dim=1).numpy()

    @torch.inference_mode()
    def decoded(
        self, frames: Iterable[UInt8[np.ndarray, "n height width 3"]], seed: int, progress: Progress | None = None
    ) -> Iterator[Tensor]:
        """What the released pipeline returns: RGB [n, 3, H, W] in 0..1, in groups of 8 frames."""
        with ArrayStore(self.work_dir) as store:
            generator = torch.Generator().manual_seed(seed)
            condition, embeddings, digest = self._encode(frames, generator, store, progress)
            num_frames = condition.shape[1]
            windows = self.windows.for_clip(num_frames)
            noise = torch.randn(1, windows.size, *condition.shape[2:], generator=generator)
            denoiser = Denoiser(self.parts, self.num_steps, self.guidance)
            base = content_key(
                digest, windows, self.num_steps, self.guidance, self.weights, str(self.parts.dtype), seed
            )
            total = len(windows.starts(num_frames)) * self.num_steps

            def step_done(window: int, step: int) -> None:
                if progress is not None:
                    progress(window * self.num_steps + step + 1, total, "depth: denoising")

            def kept(window: int) -> Tensor | None:
                array = store.get(f"window-{base}-{window}")
                return None if array is None else torch.from_numpy(array).to(self.parts.dtype)

            stitched = denoise_windows(
                denoiser,
                windows,
                noise.to(self.device, self.parts.dtype),
                condition,
                embeddings,
                kept=kept,
                keep=lambda window, latents: store.save(f"window-{base}-{window}", latents.float().cpu().numpy()),
                on_step=step_done,
            )
            yield from self._decode(self._on_device(stitched, self.parts.unet), num_frames, base, store, progress)

    def estimate(
        self, chunks: Iterable[VideoClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[DepthClip]:
        """Relative depth at the chunks' own size. With `reference`, seed 42 is used whatever `seed` says."""
        seed = REFERENCE_SEED if self.reference else seed
        lengths: list[tuple[int, tuple[int, int]]] = []

        def resized() -> Iterator[np.ndarray]:
            for chunk in chunks:
                lengths.append((len(chunk), chunk.size_hw))
                yield resize_frames(chunk.frames, working_size(chunk.size_hw, self.parts.factor))

        with ArrayStore() as store:
            spool = DisparitySpool(store)
            for group in self.disparity(resized(), seed, progress):
                spool.append(group)
            self._found.update(frames=len(spool), disparity_range=[spool.lowest, spool.highest])
            yield from to_depth_clips(spool, lengths, self.intrinsics, self.reference, self.far_over_near, progress)

    def manifest(self) -> dict[str, object]:
        """Model, settings, conversion and intrinsics."""
        return {
            "model": self.name,
            "weights": self.weights,
            "window": self.windows.size,
            "overlap": self.windows.overlap,
            "steps": self.num_steps,
            "guidance": self.guidance,
            "dtype": str(self.parts.dtype).removeprefix("torch."),
            "conversion": "released" if self.reference else "robust percentiles",
            "unit": "relative",
            "intrinsics": self.intrinsics.origin,
            **self._found,
        }

    def _encode(
        self, frames: Iterable[np.ndarray], generator: torch.Generator, store: ArrayStore, progress: Progress | None
    ) -> tuple[Tensor, Tensor, str]:
        """(latents [1, time, 4, h, w], embeddings [1, time, C], hash of the frames), on the CPU."""
        latents, embeddings, digest, done = [], [], "", 0
        with self._placed(self.parts.image_encoder, self.parts.vae):
            for group in regroup(frames, CHUNK_FRAMES):
                check_size(group.shape[1:3], self.parts.factor)
                video = torch.from_numpy(group).permute(0, 3, 1, 2).float() / 255 * 2 - 1
                # Drawn frame group by frame group this is the same stream as one draw for the clip: the CPU generator
                # works in blocks of 16 numbers, and a frame whose sides are multiples of 8 holds whole blocks.
                noise = torch.randn(video.shape, generator=generator)
                digest = content_key(digest, group, self.weights, str(self.parts.dtype), generator.initial_seed())
                pair = store.get(f"latents-{digest}"), store.get(f"embeds-{digest}")
                if pair[0] is None or pair[1] is None:
                    video, noise = (x.to(self.device, self.parts.dtype) for x in (video, noise))
                    pair = (
                        encode_frames(self.parts, video + NOISE_STRENGTH * noise).float().cpu().numpy(),
                        embed_frames(self.parts, video).float().cpu().numpy(),
                    )
                    store.save(f"latents-{digest}", pair[0])
                    store.save(f"embeds-{digest}", pair[1])
                latents.append(torch.from_numpy(pair[0]))
                embeddings.append(torch.from_numpy(pair[1]))
                done += len(group)
                if progress is not None:
                    progress(done, None, "depth: encoding")
        if not latents:
            raise InputError("a video without frames", "at least one frame", "another --start or --frames")
        dtype = self.parts.dtype
        return torch.cat(latents)[None].to(dtype), torch.cat(embeddings)[None].to(dtype), digest

    def _decode(
        self, stitched: Iterable[Tensor], num_frames: int, base: str, store: ArrayStore, progress: Progress | None
    ) -> Iterator[Tensor]:
        done = 0
        for group in regroup(stitched, CHUNK_FRAMES):
            key = f"decoded-{base}-{done}"
            array = store.get(key) if self.work_dir is not None else None
            if array is None:
                with self._placed(self.parts.vae):
                    array = decode_latents(self.parts, group.to(self.device)).cpu().numpy()
                if self.work_dir is not None:
                    store.save(key, array)
            done += len(group)
            if progress is not None:
                progress(done, num_frames, "depth: decoding")
            yield torch.from_numpy(array)

    def _on_device(self, items: Iterator[Tensor], network: torch.nn.Module) -> Iterator[Tensor]:
        """Items of an iterator that needs a network on the device while it works, and not while its items are used."""
        while True:
            with self._placed(network):
                item = next(items, None)
            if item is None:
                return
            yield item

    @contextmanager
    def _placed(self, *networks: torch.nn.Module) -> Iterator[None]:
        """Networks on the device; with `low` and `lowest` they leave it again."""
        if self.memory == "lowest" and self.parts.unet in networks and self.device != "cpu":
            self._offload_blocks()
            yield
            return
        for network in networks:
            network.to(self.device)
        try:
            yield
        finally:
            if self.memory != "fast" and self.device != "cpu":
                for network in networks:
                    network.to("cpu")
                torch.cuda.empty_cache()

    def _offload_blocks(self) -> None:
        if not getattr(self.parts.unet, "_ex4d_offloaded", False):
            self.parts.unet.enable_group_offload(
                onload_device=torch.device(self.device), offload_type="block_level", num_blocks_per_group=1
            )
            self.parts.unet._ex4d_offloaded = True


def regroup(items: Iterable[Any], size: int) -> Iterator[Any]:
    """The same rows in groups of `size` (the last may be shorter), whatever the groups they came in."""
    rest: Any = None
    for item in items:
        if rest is not None and len(rest):
            item = torch.cat([rest, item]) if isinstance(item, Tensor) else np.concatenate([rest, item])
        whole = len(item) // size * size
        for start in range(0, whole, size):
            yield item[start : start + size]
        rest = item[whole:]
    if rest is not None and len(rest):
        yield rest


def resize_frames(
    frames: UInt8[np.ndarray, "time height width 3"], size_hw: tuple[int, int]
) -> UInt8[np.ndarray, "time h w 3"]:
    """Bilinear, as the reference reads frames; the same array when the size is right."""
    if frames.shape[1:3] == tuple(size_hw):
        return frames
    import cv2

    return np.stack([cv2.resize(frame, (size_hw[1], size_hw[0])) for frame in frames])
