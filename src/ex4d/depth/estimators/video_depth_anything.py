"""Video Depth Anything over clips of any length: windows of 32 frames joined by key frames, scale and shift."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch.nn import functional as F

from ex4d.depth.conversion import FAR_OVER_NEAR
from ex4d.depth.intrinsics import Intrinsics
from ex4d.depth.maps.second_pass import DisparitySpool, to_depth_clips
from ex4d.errors import InputError
from ex4d.geometry.similarity import fit_scale_shift
from ex4d.models.depth.video_depth_anything import WINDOW, VideoDepthAnything
from ex4d.system.array_store import ArrayStore, content_key
from ex4d.types import DepthClip, Progress, VideoClip

#: Released inference: a window begins with these frames of the window before, then goes on with new ones.
KEYFRAMES = (0, 12, 24, 25, 26, 27, 28, 29, 30, 31)

#: The first two of them fix scale and shift; over the other eight the windows are cross-faded.
ALIGNED, FADED = 2, 8

#: Shorter side of the network's input; longer pictures than 16:9 get a smaller one (released rule).
INPUT_SIDE, WIDEST = 518, 1.78

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network_size(size_hw: tuple[int, int], side: int = INPUT_SIDE) -> tuple[int, int]:
    """(height, width): the shorter side at least `side`, aspect kept, both multiples of 14."""
    ratio = max(size_hw) / min(size_hw)
    if ratio > WIDEST:
        side = max(14, round(int(side * 1.777 / ratio) / 14) * 14)
    scale = side / min(size_hw)
    sides = [max(round(s * scale / 14), -(-side // 14)) * 14 for s in size_hw]
    return sides[0], sides[1]


@dataclass(frozen=True)
class VideoDepthAnythingDepth:
    """A DepthEstimator.

    Attributes:
        network: The network.
        intrinsics: K in pixels of the clip.
        side: Shorter side of the network's input.
        reference: Released EX-4D conversion instead of the robust one.
        work_dir: Where finished windows are kept for a second run.
        weights: What the manifest says about the weights.
    """

    network: VideoDepthAnything
    intrinsics: Intrinsics
    side: int = INPUT_SIDE
    reference: bool = False
    work_dir: Path | None = None
    far_over_near: float = FAR_OVER_NEAR
    weights: dict[str, object] = field(default_factory=dict)
    name: str = "video-depth-anything"
    _found: dict[str, object] = field(default_factory=dict, repr=False)

    def estimate(
        self, chunks: Iterable[VideoClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[DepthClip]:
        """Relative depth at the chunks' own size."""
        lengths: list[tuple[int, tuple[int, int]]] = []

        def frames() -> Iterator[np.ndarray]:
            for chunk in chunks:
                lengths.append((len(chunk), chunk.size_hw))
                yield from chunk.frames

        with ArrayStore(self.work_dir) as kept, ArrayStore() as passing:
            spool = DisparitySpool(passing)
            for map_ in self.disparity(frames(), kept):
                spool.append(map_[None])
                if progress is not None:
                    progress(len(spool), None, f"depth: {self.name}")
            if not len(spool):
                raise InputError("a video without frames", "at least one frame", "another --start or --frames")
            self._found["disparity_range"] = [spool.lowest, spool.highest]
            yield from to_depth_clips(spool, lengths, self.intrinsics, self.reference, self.far_over_near, progress)

    def disparity(
        self, frames: Iterable[UInt8[np.ndarray, "height width 3"]], store: ArrayStore
    ) -> Iterator[Float32[np.ndarray, "height width"]]:
        """One aligned map per frame, in order; at most two windows are held."""
        source, last = iter(frames), None
        window: list[np.ndarray] = []
        tail: list[np.ndarray] = []  # aligned maps of the frames that the next window fades into
        reference: list[np.ndarray] = []  # aligned maps of the two key frames that fix scale and shift
        while True:
            fresh = 0
            previous, window = window, [window[k] for k in KEYFRAMES] if window else []
            while len(window) < WINDOW:
                frame = next(source, None)
                if frame is None and last is None:
                    return
                if frame is not None:
                    last, fresh = frame, fresh + 1
                window.append(last if frame is None else frame)  # type: ignore[arg-type]
            if not fresh:
                break
            maps = list(self._window(np.stack(window), store))
            if not previous:
                aligned, ready = maps, maps[: min(fresh, WINDOW - FADED)]
                reference = [maps[KEYFRAMES[0]], maps[KEYFRAMES[1]]]
                tail = maps[WINDOW - FADED : fresh]
            else:
                x = np.concatenate([m.ravel()[::7] for m in maps[:ALIGNED]])
                y = np.concatenate([m.ravel()[::7] for m in reference])
                fit = fit_scale_shift(x, y, robust=False) if np.ptp(x) > 0 else None
                aligned = [np.maximum(m if fit is None else fit.apply(m), 0) for m in maps]
                share = np.linspace(0, 1, FADED, dtype=np.float32)
                new = aligned[ALIGNED : ALIGNED + FADED]
                faded = [a * (1 - s) + b * s for a, b, s in zip(tail, new, share, strict=True)]
                body = aligned[len(KEYFRAMES) : len(KEYFRAMES) + fresh]
                full = fresh == WINDOW - len(KEYFRAMES)
                ready, tail = [*faded, *(body[:-FADED] if full else body)], body[-FADED:] if full else []
                reference = [reference[0], aligned[KEYFRAMES[1]]]
            yield from ready
            if fresh < (WINDOW if not previous else WINDOW - len(KEYFRAMES)):
                break
        yield from tail

    def manifest(self) -> dict[str, object]:
        """Model, weights and conversion."""
        return {
            "model": self.name,
            "weights": self.weights,
            "input_side": self.side,
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "conversion": "released" if self.reference else "robust percentiles",
            "unit": "relative",
            "intrinsics": self.intrinsics.origin,
            **self._found,
        }

    @torch.inference_mode()
    def _window(
        self, frames: UInt8[np.ndarray, "time height width 3"], store: ArrayStore
    ) -> Float32[np.ndarray, "time height width"]:
        key = content_key(frames, self.name, self.weights, self.side, str(self.network.dtype))
        done = store.get(key) if self.work_dir is not None else None
        if done is not None:
            return done
        import cv2

        size_hw = (frames.shape[1], frames.shape[2])
        h, w = network_size(size_hw, self.side)
        resized = [cv2.resize(f.astype(np.float32) / 255, (w, h), interpolation=cv2.INTER_CUBIC) for f in frames]
        x = (np.stack(resized) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        device = next(self.network.parameters()).device
        out = self.network(torch.from_numpy(x).permute(0, 3, 1, 2)[None].to(device, self.network.dtype))
        maps = F.interpolate(out[0].float()[:, None], size_hw, mode="bilinear", align_corners=True)[:, 0].cpu().numpy()
        if self.work_dir is not None:
            store.save(key, maps)
        return maps
