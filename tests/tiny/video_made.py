"""Small videos whose truth is known from formulas, not from another decoder: YUV planes are computed here and stored losslessly."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

#: (Kr, Kb) of ITU-R BT.709, BT.601 and BT.2020, and the H.273 code points of their matrices.
LUMA = {"709": (0.2126, 0.0722, 1), "601": (0.299, 0.114, 6), "2020": (0.2627, 0.0593, 9)}
PATCH = 16  # pixels; colours are judged in the middle of a patch, clear of chroma resampling


def patches(seed: int = 0) -> np.ndarray:
    """6x8 colours in 0..255: the corners of the cube, greys and random ones."""
    colors = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(float)
    colors[0] = [[255 * (i >> 2 & 1), 255 * (i >> 1 & 1), 255 * (i & 1)] for i in range(8)]
    colors[1] = np.linspace(0, 255, 8)[:, None]
    return colors


def yuv_planes(signal: np.ndarray, matrix: str, full: bool, bits: int) -> list[np.ndarray]:
    """Y, Cb, Cr code values [H, W] of non-linear RGB 0..1 [H, W, 3] (BT.601, BT.709 and BT.2020-2, quantisation sections)."""
    kr, kb, _ = LUMA[matrix]
    r, g, b = np.moveaxis(signal, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    top, unit = 2**bits - 1, 2 ** (bits - 8)
    if full:
        planes = [y * top, cb * top + 128 * unit, cr * top + 128 * unit]
    else:
        planes = [(219 * y + 16) * unit, (224 * cb + 128) * unit, (224 * cr + 128) * unit]
    return [np.clip(np.rint(plane), 0, top).astype(np.uint16 if bits > 8 else np.uint8) for plane in planes]


def planar_frame(planes: list[np.ndarray], pix_fmt: str) -> av.VideoFrame:
    """A frame from full-size planes; chroma is picked, not filtered, so patches must be flat."""
    h, w = planes[0].shape
    frame = av.VideoFrame(w, h, pix_fmt)
    for target, plane in zip(frame.planes, planes, strict=True):
        plane = plane[:: round(h / target.height), :: round(w / target.width)]
        rows = np.zeros((target.height, target.line_size // plane.itemsize), plane.dtype)
        rows[:, : plane.shape[1]] = plane
        target.update(rows.tobytes())
    return frame


def write_frames(
    path: Path,
    frames: list[av.VideoFrame],
    *,
    codec: str = "ffv1",
    rate: int = 25,
    pts: list[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    **tags: int,
) -> Path:
    """Encode frames with colour tags (colorspace, color_range, color_trc, color_primaries)."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        if time_base is not None:
            stream.codec_context.time_base = time_base
        for i, frame in enumerate(frames):
            for name, value in tags.items():
                setattr(frame, name, value)
            frame.pts, frame.time_base = (i if pts is None else pts[i]), time_base or Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rgb_frame(rgb: np.ndarray) -> av.VideoFrame:
    """[H, W, 3] uint8 as FFV1's own RGB."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format="bgr0")


def grey_frames(levels: list[int], hw: tuple[int, int] = (16, 24)) -> list[av.VideoFrame]:
    """Flat RGB frames, one a level."""
    return [rgb_frame(np.full((*hw, 3), level, np.uint8)) for level in levels]


def enlarged(colors: np.ndarray) -> np.ndarray:
    """Colours [h, w, 3] as a picture of flat patches."""
    return colors.repeat(PATCH, axis=0).repeat(PATCH, axis=1)


def middles(picture: np.ndarray) -> np.ndarray:
    """The colours in the middle of each patch."""
    return picture[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].astype(float)
