"""Depth from models that see one frame at a time, made consistent over the clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from ex4d.depth.conversion import FAR_OVER_NEAR
from ex4d.depth.estimators.frame_model import FrameModel
from ex4d.depth.estimators.given import DepthMaps
from ex4d.depth.intrinsics import Intrinsics
from ex4d.depth.maps.align import TemporalAligner
from ex4d.depth.maps.flow_filter import filter_along_flow
from ex4d.depth.maps.second_pass import DisparitySpool, to_depth_clips
from ex4d.depth.source_cameras.parallax import depth_ratio_from_parallax
from ex4d.errors import InputError
from ex4d.geometry.pinhole import intrinsics as make_K
from ex4d.pixels.tracks import to_gray
from ex4d.system.array_store import ArrayStore, MapSpool, content_key
from ex4d.types import DepthClip, Progress, VideoClip

#: Farthest and nearest metres that a metric model's answer may reach; beyond lie mistakes (sky in an indoor model).
METRIC_NEAR, METRIC_FAR = 0.05, 1000.0


@dataclass(frozen=True)
class PerFrameDepth:
    """A DepthEstimator around a `FrameModel`. Raw maps wait on disk between the two passes; finished ones are kept in
    `work_dir`, by the content of their frames.

    Attributes:
        model: The network.
        choose_intrinsics: From the model's own K (or None) to what is used; see `intrinsics.choose_intrinsics`.
        batch: Frames at once.
        align: Fit scale and shift over time.
        flow_radius: Frames on either side in the filter along optical flow; 0 switches it off.
        prompt: Coarse metric depth for models that take it.
        work_dir: Where raw maps are kept for a second run.
        weights: What the manifest says about the weights.
    """

    model: FrameModel
    choose_intrinsics: Callable[[Float32[np.ndarray, "3 3"] | None], Intrinsics]
    name: str
    batch: int = 4
    align: bool = True
    flow_radius: int = 0
    prompt: DepthMaps | None = None
    work_dir: Path | None = None
    far_over_near: float = FAR_OVER_NEAR
    weights: dict[str, object] = field(default_factory=dict)
    _found: dict[str, object] = field(default_factory=dict, repr=False)

    def estimate(
        self, chunks: Iterable[VideoClip], *, seed: int = 0, progress: Progress | None = None
    ) -> Iterator[DepthClip]:
        """Depth at the chunks' own size: relative for disparity models, metric for metric ones."""
        with ArrayStore(self.work_dir) as kept, ArrayStore() as passing:
            raw, grays = MapSpool(kept), MapSpool(passing)
            lengths, focals = self._first_pass(chunks, raw, grays, progress)
            chosen = self.choose_intrinsics(self._model_K(focals, lengths[0][1]))
            self._found["intrinsics"] = chosen.origin
            ratio, aligner = self._fit_over_time(raw, grays, chosen, progress)
            footing = self._footing(raw, grays, aligner, focals)
            if self.model.kind == "disparity":
                spool = DisparitySpool(passing)
                for maps in footing:
                    spool.append(maps)
                yield from to_depth_clips(spool, lengths, chosen, False, ratio, progress)
                return
            start = 0
            for length, _ in lengths:
                depth = np.concatenate([next(footing) for _ in range(length)])
                np.clip(depth, METRIC_NEAR, METRIC_FAR, out=depth)
                yield DepthClip(depth, chosen.for_frames(start, start + length), "metric")
                start += length
                if progress is not None:
                    progress(start, len(raw), "depth")

    def manifest(self) -> dict[str, object]:
        """Model, weights, kind, what alignment found."""
        return {
            "model": self.name,
            "weights": self.weights,
            "kind": self.model.kind,
            "unit": "relative" if self.model.kind == "disparity" else "metric",
            "dtype": str(self.model.network.dtype).removeprefix("torch."),
            "aligned_over_time": self.align,
            "flow_radius": self.flow_radius,
            **self._found,
        }

    def _first_pass(
        self, chunks: Iterable[VideoClip], raw: MapSpool, grays: MapSpool, progress: Progress | None
    ) -> tuple[list[tuple[int, tuple[int, int]]], np.ndarray]:
        """Run the network over every frame: (length and size of each chunk, focal length of each frame or NaN)."""
        lengths: list[tuple[int, tuple[int, int]]] = []
        focals: list[np.ndarray] = []
        done = 0
        for chunk in chunks:
            lengths.append((len(chunk), chunk.size_hw))
            for start in range(0, len(chunk), self.batch):
                frames = chunk.frames[start : start + self.batch]
                focal = self._run(frames, done, raw)
                focals.append(np.full(len(frames), np.nan) if focal is None else focal)
                if self.align or self.flow_radius:
                    grays.append(np.stack([to_gray(frame) for frame in frames]))
                done += len(frames)
                if progress is not None:
                    progress(done, None, f"depth: {self.name}")
        if not done:
            raise InputError("a video without frames", "at least one frame", "another --start or --frames")
        return lengths, np.concatenate(focals)

    def _fit_over_time(
        self, raw: MapSpool, grays: MapSpool, chosen: Intrinsics, progress: Progress | None
    ) -> tuple[float, TemporalAligner | None]:
        """(how deep a disparity scene is taken to be, the fits of all frames)."""
        if not self.align:
            return self.far_over_near, None
        ratio = self.far_over_near
        if self.model.kind == "disparity":
            K = chosen.for_frames(0, 1)[0]
            told = depth_ratio_from_parallax(lambda t: grays.read(t, t + 1)[0], len(raw), raw.read(0, 1)[0], K)
            self._found["far_over_near"] = [
                told or ratio,
                "from parallax" if told else "default: no parallax to tell by",
            ]
            ratio = told or ratio
        aligner = TemporalAligner(self.model.kind, self.model.kind == "disparity", ratio)
        for index in range(len(raw)):
            K = chosen.for_frames(index, index + 1)[0]
            aligner.step(grays.read(index, index + 1)[0], raw.read(index, index + 1)[0], K)
            if progress is not None:
                progress(index + 1, len(raw), "depth: aligning")
        self._found["alignment"] = aligner.summary()
        return ratio, aligner

    def _run(self, frames: UInt8[np.ndarray, "n height width 3"], first: int, raw: MapSpool) -> np.ndarray | None:
        """Append the network's maps, from the store when these very frames were done before; focal lengths if it says them."""
        prompt = None
        if self.prompt is not None:
            if first + len(frames) > self.prompt.num_frames:
                raise InputError(
                    f"{self.prompt.num_frames} prompt maps for a longer video",
                    "one a frame",
                    f"--frames {self.prompt.num_frames}",
                )
            prompt = np.asarray(self.prompt.read(first, first + len(frames)), np.float32)
        own = (self.name, self.weights, str(self.model.network.dtype), self.model.preprocess)
        key = content_key(frames, *own, *([prompt] if prompt is not None else []))
        maps, focal = raw.store.get(key), raw.store.get(f"{key}-focal")
        if maps is None:
            maps, focal = self.model(frames, prompt)
            if not np.isfinite(maps).all():
                raise InputError(
                    f"{self.name} gave NaN or infinite values at frame {first}", "finite depth", "--dtype float32"
                )
            if focal is not None:
                raw.store.save(f"{key}-focal", focal)
            raw.store.save(key, maps)
        raw.append(maps, key)
        return focal

    def _model_K(self, focals: np.ndarray, size_hw: tuple[int, int]) -> Float32[np.ndarray, "3 3"] | None:
        """One K for the clip: the median of the frames' focal lengths."""
        known = focals[np.isfinite(focals)]
        return make_K(size_hw, float(np.median(known))) if len(known) else None

    def _footing(
        self, raw: MapSpool, grays: MapSpool, aligner: TemporalAligner | None, focals: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Maps [1, H, W] on the common footing (1/z for disparity models, metres for metric ones), filtered where asked."""
        count = len(raw)
        gains = np.ones(count)
        if aligner is not None and not aligner.inverse:
            gains /= np.median([fit.scale for fit in aligner.fits])  # keep the clip's own scale, not the first frame's
        elif np.isfinite(focals).all():
            gains = np.median(focals) / focals  # z is proportional to the focal length it was reckoned with

        def one(index: int) -> np.ndarray:
            map_ = raw.read(index, index + 1)[0]
            if aligner is not None:
                map_ = aligner.fits[index].apply(map_)
            return map_ * np.float32(gains[index])

        if not self.flow_radius:
            for index in range(count):
                yield one(index)[None]
            return
        window: dict[int, np.ndarray] = {}
        for index in range(count):
            low, high = max(0, index - self.flow_radius), min(count, index + self.flow_radius + 1)
            window = {i: window[i] if i in window else one(i) for i in range(low, high)}
            maps = np.stack([window[i] for i in range(low, high)])
            yield filter_along_flow(grays.read(low, high), maps, index - low)[None]
