"""High dynamic range and wide gamut to what an SDR screen shows: BT.709 primaries, BT.1886 gamma, 8 bits.

PQ and HLG are brought to display light in nits (ITU-R BT.2100-2, tables 4 and 5), highlights above the SDR white are rolled
off by the curve of ITU-R BT.2390-11 section 5.4.1 (white at the 203 nits of BT.2408 table 1, highlights up to 1000 nits),
the same factor on all three channels so that hues stay, and then primaries are changed in linear light.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8, UInt16

# Code points of ITU-T H.273, tables 2 and 3.
TRC_PQ, TRC_HLG = 16, 18
PRIMARIES_BT2020, PRIMARIES_P3_DCI, PRIMARIES_P3_D65 = 9, 11, 12

SDR_WHITE_NITS = 203.0  # BT.2408: HDR reference white
SOURCE_PEAK_NITS = 1000.0  # what most HDR10 and all HLG material is graded on
SDR_GAMMA = 2.4  # BT.1886 with black at zero

_D65 = (0.3127, 0.3290)
#: Chromaticities (x, y) of red, green, blue: H.273 table 2.
_CHROMATICITIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    PRIMARIES_BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    PRIMARIES_P3_DCI: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    PRIMARIES_P3_D65: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}


def needs_mapping(trc: int, primaries: int) -> bool:
    """True for PQ, HLG, BT.2020 and P3; BT.601's primaries are so near BT.709's that players leave them."""
    return trc in (TRC_PQ, TRC_HLG) or primaries in (PRIMARIES_BT2020, PRIMARIES_P3_DCI, PRIMARIES_P3_D65)


def bt709_from_primaries(primaries: int) -> np.ndarray:
    """3x3, linear RGB of other primaries (white D65) to linear BT.709 RGB; the identity for unknown ones."""
    table = _CHROMATICITIES.get(primaries, _CHROMATICITIES[1])
    return np.linalg.inv(_xyz_from_rgb(_CHROMATICITIES[1])) @ _xyz_from_rgb(table)


def _xyz_from_rgb(chromaticities: tuple) -> np.ndarray:
    xyz = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in (*chromaticities, _D65)]).T
    return xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])


def pq_from_nits(nits: np.ndarray) -> np.ndarray:
    """Inverse EOTF of SMPTE ST 2084 (BT.2100-2 table 4): 0..10000 nits to 0..1."""
    y = np.maximum(np.asarray(nits, np.float64) / 10000, 0) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def nits_from_pq(signal: np.ndarray) -> np.ndarray:
    """EOTF of SMPTE ST 2084: 0..1 to nits."""
    e = np.asarray(signal, np.float64) ** (1 / 78.84375)
    return 10000 * (np.maximum(e - 0.8359375, 0) / (18.8515625 - 18.6875 * e)) ** (1 / 0.1593017578125)


def scene_from_hlg(signal: np.ndarray) -> np.ndarray:
    """Inverse OETF of HLG (BT.2100-2 table 5): 0..1 to scene light 0..1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    e = np.asarray(signal, np.float64)
    return np.where(e <= 0.5, e**2 / 3, (np.exp((e - c) / a) + b) / 12)


def rolled_off(nits: np.ndarray) -> np.ndarray:
    """The roll-off of BT.2390 from 0..1000 nits into 0..203, identical below its knee (88 nits)."""
    peak = pq_from_nits(np.array(SOURCE_PEAK_NITS))
    e = np.minimum(pq_from_nits(nits) / peak, 1)
    white = pq_from_nits(np.array(SDR_WHITE_NITS)) / peak
    knee = 1.5 * white - 0.5
    t = np.maximum(e - knee, 0) / (1 - knee)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white
    return nits_from_pq(np.where(e < knee, e, curve) * peak)


class SdrMapper:
    """Full-range 16-bit RGB of one transfer and one set of primaries to 8-bit BT.709."""

    def __init__(self, trc: int, primaries: int) -> None:
        signal = np.arange(65536) / 65535.0
        self._hlg, self._hdr = trc == TRC_HLG, trc in (TRC_PQ, TRC_HLG)
        if trc == TRC_PQ:
            self._linear = nits_from_pq(signal).astype(np.float32)
        elif trc == TRC_HLG:
            self._linear = scene_from_hlg(signal).astype(np.float32)
        else:
            self._linear = (signal**SDR_GAMMA).astype(np.float32)
        if self._hdr and primaries not in _CHROMATICITIES:
            primaries = PRIMARIES_BT2020  # BT.2100 knows no other
        self._to_709 = bt709_from_primaries(primaries).astype(np.float32)
        # Gain of the roll-off by the brightest channel, on a square-root scale that is fine where the eye is.
        grid = np.linspace(0, 1, 4096) ** 2 * 10000
        self._gain = (rolled_off(grid) / np.maximum(grid, 1e-9) / SDR_WHITE_NITS).astype(np.float32)
        self._gain[0] = 1 / SDR_WHITE_NITS
        self._encoded = np.round(255 * np.linspace(0, 1, 65536) ** (1 / SDR_GAMMA)).astype(np.uint8)

    def __call__(self, rgb: UInt16[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
        light = self._linear[rgb]
        if self._hlg:  # OOTF of a 1000-nit display: gamma 1.2 on luminance (BT.2100-2 table 5)
            luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
            light *= (SOURCE_PEAK_NITS * np.maximum(luminance, 1e-6) ** 0.2)[..., None]
        if self._hdr:
            index = np.sqrt(light.max(axis=-1) / 10000) * 4095
            light *= self._gain[np.minimum(index + 0.5, 4095).astype(np.int32)][..., None]
        light = light @ self._to_709.T
        return self._encoded[(np.clip(light, 0, 1) * 65535 + 0.5).astype(np.int32)]
