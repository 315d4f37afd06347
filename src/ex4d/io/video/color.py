"""Decoded frames to display-oriented, full-range 8-bit RGB: matrix, range, alpha, HDR, rotation."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import UInt8

from ex4d.errors import InputError
from ex4d.io.video.hdr import SdrMapper, needs_mapping

# Code points of ITU-T H.273, tables 2 to 4.
MATRIX_RGB, MATRIX_UNSPECIFIED = 0, 2
RANGE_FULL = 2

#: H.273 matrix coefficients -> the coefficient table of libswscale that is meant by them.
SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
SWS_601, SWS_709 = 5, 1


class FrameConverter:
    """Turns frames of one stream into RGB arrays; keeps the converter's tables between frames.

    Untagged YUV is read as players read it: BT.709 when wider than 1279 or taller than 576 pixels, else BT.601, limited range.
    Transparent frames are composited on black. PQ and HLG are tone-mapped, wide gamuts brought to BT.709 (`hdr`).
    """

    def __init__(self, name: str) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._sdr: SdrMapper | None = None
        self._name = name

    def __call__(self, frame: Any) -> UInt8[np.ndarray, "height width 3"]:
        """RGB of a PyAV frame, as stored: not yet rotated."""
        has_alpha = any(component.is_alpha for component in frame.format.components)
        if needs_mapping(frame.color_trc, frame.color_primaries):
            rgb16 = self._reformat(frame, "rgba64le" if has_alpha else "rgb48le")
            if self._sdr is None:
                self._sdr = SdrMapper(frame.color_trc, frame.color_primaries)
            rgb = self._sdr(rgb16[..., :3])
            return _on_black(rgb, rgb16[..., 3] >> 8) if has_alpha else rgb
        if has_alpha:
            rgba = self._reformat(frame, "rgba")
            return _on_black(rgba[..., :3], rgba[..., 3])
        return self._reformat(frame, "rgb24")

    def _reformat(self, frame: Any, pix_fmt: str) -> np.ndarray:
        from av.video.reformatter import ColorRange, Interpolation

        # Without these flags swscale takes shortcuts that cost up to 4 levels; with them colours are within rounding.
        flags = (
            Interpolation.BICUBIC
            | Interpolation.ACCURATE_RND
            | Interpolation.FULL_CHR_H_INT
            | Interpolation.FULL_CHR_H_INP
            | Interpolation.BITEXACT
        )
        matrix = self._matrix(frame)
        full = frame.format.is_rgb or frame.format.name.startswith("yuvj") or frame.color_range == RANGE_FULL
        return self._reformatter.reformat(
            frame,
            format=pix_fmt,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            interpolation=flags,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
        ).to_ndarray()

    def _matrix(self, frame: Any) -> int:
        tag = int(frame.colorspace)
        if tag in SWS_MATRIX:
            return SWS_MATRIX[tag]
        if tag in (MATRIX_UNSPECIFIED, MATRIX_RGB, 3) or frame.format.is_rgb:
            return SWS_709 if frame.width >= 1280 or frame.height > 576 else SWS_601
        raise InputError(
            f"{self._name} has colour matrix {tag} of H.273",
            "BT.601, BT.709, BT.2020 or RGB",
            "ffmpeg -i IN -vf scale=out_color_matrix=bt709 OUT.mp4",
        )


def _on_black(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Straight (not premultiplied) alpha over black, rounded."""
    return ((rgb.astype(np.uint16) * alpha[..., None].astype(np.uint16) + 127) // 255).astype(np.uint8)


def orientation(frame: Any) -> np.ndarray:
    """How the container says the picture is shown: 2x2 of -1, 0, 1 with (x, y) shown = M @ (x, y) stored.

    Rotations other than quarter turns are rounded to the nearest one.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2, dtype=int)
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5]
    if abs(int(a)) >= abs(int(b)):
        return np.diag([1 if a >= 0 else -1, 1 if d >= 0 else -1])
    return np.array([[0, 1 if c >= 0 else -1], [1 if b >= 0 else -1, 0]])


def oriented(picture: np.ndarray, shown_from_stored: np.ndarray) -> np.ndarray:
    """A picture [H, W, ...] turned and mirrored as `orientation` says; a view."""
    if shown_from_stored[0, 0] == 0:
        picture = picture.swapaxes(0, 1)
    flip_x, flip_y = shown_from_stored[0].sum() < 0, shown_from_stored[1].sum() < 0
    return picture[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
