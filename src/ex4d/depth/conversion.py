"""From what a model or file says about distance to z depth: the released conversion, and a robust one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from ex4d.errors import InputError

#: Released conversion (recon.py): z = 10000 / max(3900 d, 1e-5), clipped to [1e-4, 1e4]; 3900 imitates Depth Anything's range.
RELEASED_NUMERATOR, RELEASED_GAIN, RELEASED_FLOOR = 10000.0, 3900.0, 1e-5
RELEASED_NEAR, RELEASED_FAR = 1e-4, 1e4

#: Farthest over nearest depth of a clip whose disparity has no true zero. The released preset puts its nearest point at
#: 2.5641 and can use depths up to about 90 in front of its border at 100: 90 / 2.5641.
FAR_OVER_NEAR = 35.0

#: Share of pixels at each end that may be outliers (single bright pixels, letterbox bars) in the robust conversion.
OUTLIER_SHARE = 0.002

#: Pixels a frame contributes to clip-wide percentiles.
SAMPLES_PER_FRAME = 8192


def released_depth(
    disparity: Float32[np.ndarray, "time height width"], lowest: float, highest: float
) -> Float32[np.ndarray, "time height width"]:
    """The reference's pseudo-depth from disparity and the clip's own minimum and maximum; nearest 2.5641, d = 0 gives 10000.

    Float32 throughout, in the reference's order of operations.
    """
    d = (disparity.astype(np.float32) - np.float32(lowest)) / (np.float32(highest) - np.float32(lowest))
    z = np.float32(RELEASED_NUMERATOR) / np.maximum(d * np.float32(RELEASED_GAIN), np.float32(RELEASED_FLOOR))
    return np.clip(z, np.float32(RELEASED_NEAR), np.float32(RELEASED_FAR))


def sample_values(maps: Float[np.ndarray, "time height width"]) -> Float32[np.ndarray, " n"]:
    """About `SAMPLES_PER_FRAME` evenly spaced finite values of each map, for clip-wide percentiles."""
    flat = maps.reshape(len(maps), -1)
    values = flat[:, :: max(1, flat.shape[1] // SAMPLES_PER_FRAME)].ravel()
    return values[np.isfinite(values)].astype(np.float32)


@dataclass(frozen=True)
class DisparityToDepth:
    """Clip-wide map from affine disparity to finite relative depth: z = 1 at `highest`, `far_over_near` at `lowest`.

    Disparity above `highest` (the few outliers of the robust percentiles) still comes nearer, at most to z = 1/2.
    """

    lowest: float
    highest: float
    far_over_near: float = FAR_OVER_NEAR

    @classmethod
    def robust(cls, samples: Float[np.ndarray, " n"], far_over_near: float = FAR_OVER_NEAR) -> DisparityToDepth:
        """From samples of the whole clip, ignoring `OUTLIER_SHARE` at each end; InputError when all are equal."""
        low, high = np.quantile(samples, [OUTLIER_SHARE, 1 - OUTLIER_SHARE])
        if not high > low:
            low, high = samples.min(), samples.max()
        check_spread(float(low), float(high))
        return cls(float(low), float(high), far_over_near)

    def __call__(self, disparity: Float[np.ndarray, "*batch"]) -> Float32[np.ndarray, "*batch"]:
        """Depth, relative units, in [0.5, far_over_near]."""
        d = (disparity.astype(np.float32) - np.float32(self.lowest)) / np.float32(self.highest - self.lowest)
        floor = np.float32(1 / self.far_over_near)
        return 1 / np.clip(floor + d * (1 - floor), floor, np.float32(2))


def check_spread(lowest: float, highest: float) -> None:
    """InputError when every pixel of a clip says the same."""
    if not highest > lowest:
        raise InputError(
            f"every pixel of the depth has the same value {lowest:g}",
            "depth that varies over the picture",
            "--depth plane for a flat scene",
        )
