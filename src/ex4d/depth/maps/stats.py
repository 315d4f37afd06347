"""Numbers about a clip's depth: range, edges, flicker."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ex4d.depth.conversion import sample_values
from ex4d.depth.maps.align import FlickerMeter
from ex4d.depth.maps.edges import edge_confidence, flying_pixels
from ex4d.depth.source_cameras.odometry import sample_depth
from ex4d.pixels.tracks import PointTracker, to_gray
from ex4d.types import DepthClip, VideoClip


@dataclass
class DepthStats:
    """Gathers while clips pass; memory does not grow but for the samples (32 kB a frame)."""

    frames: int = 0
    flying: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    meter: FlickerMeter = field(default_factory=FlickerMeter)
    _samples: list[np.ndarray] = field(default_factory=list)
    _tracker: PointTracker = field(default_factory=PointTracker)

    def add(self, video: VideoClip, clip: DepthClip) -> None:
        """The next chunk."""
        for frame, depth in zip(video.frames, clip.depth, strict=True):
            self._tracker.step(to_gray(frame))
            self._tracker.top_up()
            if len(self._tracker.xy):
                z, trusted = sample_depth(depth, self._tracker.xy)
                self.meter.step(self._tracker.ids[trusted], z[trusted])
            self.flying.append(float(flying_pixels(depth)[0].mean()))
            self.confidence.append(float(edge_confidence(depth).mean()))
            self._samples.append(sample_values(depth[None]))
            self.frames += 1

    def summary(self) -> dict[str, object]:
        """For the manifest and the terminal."""
        low, one, half, most, high = np.quantile(np.concatenate(self._samples), [0, 0.01, 0.5, 0.99, 1]).tolist()
        return {
            "frames": self.frames,
            "depth_min": low,
            "depth_1_percent": one,
            "depth_median": half,
            "depth_99_percent": most,
            "depth_max": high,
            "flicker": self.meter.flicker,
            "flying_pixels_share": float(np.mean(self.flying)),
            "edge_confidence_mean": float(np.mean(self.confidence)),
        }
