"""One scale (and shift) for a whole clip from maps that each have their own, and how much they flicker."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from ex4d.depth.conversion import FAR_OVER_NEAR, DisparityToDepth, sample_values
from ex4d.depth.source_cameras.odometry import FEWEST_INLIERS, Odometry, sample_depth
from ex4d.errors import InputError
from ex4d.geometry.similarity import ScaleShift, fit_scale_shift
from ex4d.types import DepthKind

#: Inverse depth never falls below this share of the clip's nearest, so that a bad fit cannot turn depth negative.
LOWEST_INVERSE = 1e-3


@dataclass
class FlickerMeter:
    """Median second difference over time of log depth along tracks of static points.

    Steady motion of the camera changes log depth at a nearly constant rate and does not count; a scale that jumps from frame
    to frame does. Unit: relative change of depth, per frame squared.
    """

    values: list[float] = field(default_factory=list)
    _past: list[dict[int, float]] = field(default_factory=list)

    def step(self, ids: np.ndarray, depth: Float64[np.ndarray, " n"]) -> None:
        """Depths of tracked points in the next frame."""
        now = {int(i): float(np.log(z)) for i, z in zip(ids, depth, strict=True) if np.isfinite(z) and z > 0}
        if len(self._past) == 2:
            first, second = self._past
            common = now.keys() & first.keys() & second.keys()
            if len(common) >= FEWEST_INLIERS:
                self.values.append(float(np.median([abs(now[i] - 2 * second[i] + first[i]) for i in common])))
        self._past = [*self._past, now][-2:]

    @property
    def flicker(self) -> float:
        """Mean over the clip; 0 for clips of fewer than three frames."""
        return float(np.mean(self.values)) if self.values else 0.0


@dataclass
class TemporalAligner:
    """Finds, frame by frame, the scale and shift that put a map on the same footing as the frames before.

    The camera of each frame is located from tracked points first (their depth is known from earlier frames), the depth each
    static point must have in the new frame follows, and the new map is fitted to it robustly. So real changes of depth, from
    a camera that moves, are kept; points that move take no part.

    Attributes:
        kind: disparity and inverse maps are fitted in 1/z, metric and relative ones in z.
        shift: Fit a shift too. Right for affine disparity; metric models err by a scale.
        fits: raw map -> common footing (1/z or z), one per frame.
    """

    kind: DepthKind
    shift: bool = True
    far_over_near: float = FAR_OVER_NEAR
    fits: list[ScaleShift] = field(default_factory=list)
    held: int = 0
    odometry: Odometry = field(default_factory=Odometry)
    before: FlickerMeter = field(default_factory=FlickerMeter)
    after: FlickerMeter = field(default_factory=FlickerMeter)

    @property
    def inverse(self) -> bool:
        """Whether fits give 1/z rather than z."""
        return self.kind in ("disparity", "inverse")

    def step(
        self,
        frame: UInt8[np.ndarray, "height width *rgb"],
        raw: Float32[np.ndarray, "height width"],
        K: Float32[np.ndarray, "3 3"],
    ) -> ScaleShift:
        """The next frame's fit."""
        pose, still = self.odometry.locate(frame, K)
        if not self.fits:
            fit = self._first(raw)
        else:
            fit = self._fitted(raw, self.odometry.predicted_depth(pose), still)
        self.fits.append(fit)
        depth = self.depth(raw, fit)
        self._measure_flicker(raw, depth, still)
        self.odometry.extend(depth, K, pose)
        return fit

    def depth(self, raw: Float32[np.ndarray, "*batch"], fit: ScaleShift) -> Float32[np.ndarray, "*batch"]:
        """z of a raw map on the common footing, always positive."""
        value = fit.apply(raw.astype(np.float32))
        return 1 / np.maximum(value, np.float32(LOWEST_INVERSE)) if self.inverse else np.maximum(value, self._least)

    def summary(self) -> dict[str, object]:
        """For the manifest."""
        scales = np.array([fit.scale for fit in self.fits])
        return {
            "aligned_frames": len(self.fits),
            "held_frames": self.held,
            "scale_range": [float(scales.min()), float(scales.max())] if len(scales) else [],
            "flicker_before": self.before.flicker,
            "flicker_after": self.after.flicker,
        }

    def _first(self, raw: np.ndarray) -> ScaleShift:
        if self.kind == "disparity":
            convert = DisparityToDepth.robust(sample_values(raw[None]), self.far_over_near)
            gain = (1 - 1 / convert.far_over_near) / (convert.highest - convert.lowest)
            return ScaleShift(gain, 1 / convert.far_over_near - gain * convert.lowest)
        positive = raw[raw > 0]
        self._least = np.float32(1e-3 * np.median(positive)) if len(positive) else np.float32(1e-6)
        return ScaleShift(1.0, 0.0)

    def _fitted(self, raw: np.ndarray, expected: np.ndarray, still: np.ndarray) -> ScaleShift:
        """Inliers first; everything that was tracked when there are too few; the last fit when that fails too."""
        value, trusted = sample_raw(raw, self.odometry.tracker.xy)
        target = 1 / expected if self.inverse else expected
        usable = trusted & np.isfinite(value) & (expected > 0)
        for which in (still & usable, usable):
            if which.sum() < FEWEST_INLIERS:
                continue
            try:
                return fit_scale_shift(value[which], target[which], shift=self.shift)
            except InputError:
                continue
        self.held += 1
        return self.fits[-1]

    def _measure_flicker(self, raw: np.ndarray, depth: np.ndarray, still: np.ndarray) -> None:
        tracker = self.odometry.tracker
        if len(tracker.xy) == 0 or not self.odometry.cam_from_world:
            return
        z, trusted = sample_depth(depth, tracker.xy)
        as_first = self.depth(raw, self.fits[0])
        z_raw, _ = sample_depth(as_first, tracker.xy)
        good = still & trusted
        self.after.step(tracker.ids[good], z[good])
        self.before.step(tracker.ids[good], z_raw[good])


def sample_raw(
    raw: Float32[np.ndarray, "height width"], xy: Float32[np.ndarray, "n 2"]
) -> tuple[Float64[np.ndarray, " n"], np.ndarray]:
    """(value at pixels, bilinear; False where the neighbourhood spans an edge: a jump above 3 % of the map's range)."""
    import cv2

    h, w = raw.shape
    if len(xy) == 0:
        return np.zeros(0), np.zeros(0, bool)
    points = (xy - 0.5).astype(np.float32)
    value = cv2.remap(raw, points[:, :1], points[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).ravel()
    kernel = np.ones((5, 5), np.uint8)
    spread = cv2.dilate(raw, kernel) - cv2.erode(raw, kernel)
    low, high = np.quantile(raw[::4, ::4], [0.02, 0.98])
    x, y = np.clip(xy.astype(int), 0, [w - 1, h - 1]).T
    return value.astype(np.float64), spread[y, x] < 0.03 * max(high - low, 1e-12) + 1e-12
