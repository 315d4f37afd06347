"""Any render size into one the VAE and the patches can hold: fitted, cropped or padded, the aspect always kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

from ex4d.errors import InputError

SizeMode = Literal["exact", "fit", "crop", "pad"]


@dataclass(frozen=True)
class Sizing:
    """How frames of one size become frames of another.

    Attributes:
        scaled_hw: Size after the uniform resize.
        target_hw: Size the denoiser works at.
        crop_yx: Offset of the target in the scaled frame (negative where it is padded).
        output_hw: Size of the finished video: the target, or the scaled frame where padding is cut off again.
    """

    scaled_hw: tuple[int, int]
    target_hw: tuple[int, int]
    crop_yx: tuple[int, int]
    output_hw: tuple[int, int]

    def frames(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h2 w2 3"]:
        """Colour at the target size, black where padded."""
        return np.stack([self._place(f) for f in frames])

    def masks(self, masks: UInt8[np.ndarray, "t h w"]) -> UInt8[np.ndarray, "t h2 w2"]:
        """Masks 0..255 at the target size, unknown where padded."""
        return np.stack([self._place(m) for m in masks])

    def restore(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h2 w2 3"]:
        """Generated frames without the padding."""
        if self.output_hw == self.target_hw:
            return frames
        y, x = max(0, -self.crop_yx[0]), max(0, -self.crop_yx[1])
        return frames[:, y : y + self.output_hw[0], x : x + self.output_hw[1]]

    @property
    def identity(self) -> bool:
        """Whether nothing changes."""
        return self.scaled_hw == self.target_hw and self.crop_yx == (0, 0)

    def _place(self, frame: np.ndarray) -> np.ndarray:
        h, w = self.scaled_hw
        if frame.shape[:2] != (h, w):
            shrinking = h * w < frame.shape[0] * frame.shape[1]
            frame = cv2.resize(frame, (w, h), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
        y, x = self.crop_yx
        th, tw = self.target_hw
        cut = frame[max(0, y) : max(0, y) + th, max(0, x) : max(0, x) + tw]
        if cut.shape[:2] == (th, tw):
            return np.ascontiguousarray(cut)
        out = np.zeros((th, tw, *frame.shape[2:]), frame.dtype)
        top, left = max(0, -y), max(0, -x)
        out[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
        return out


def plan_size(
    size_hw: tuple[int, int], wanted_hw: tuple[int, int] | None, mode: SizeMode, multiple: int = 16
) -> Sizing:
    """Choose the sizes.

    Args:
        size_hw: The render.
        wanted_hw: Size to work at, sides divisible by `multiple`; None keeps the render's own as far as that allows.
        mode: "exact" refuses to change anything; "crop" covers the wanted size and cuts the rest off; "pad" fits into it and
            fills up with unknown pixels, cut off again at the end; "fit" keeps the aspect at the wanted number of pixels.
        multiple: Pixels of one token's side.
    """
    h, w = size_hw
    if wanted_hw is not None and (wanted_hw[0] % multiple or wanted_hw[1] % multiple or min(wanted_hw) < multiple):
        near = tuple(max(multiple, round(s / multiple) * multiple) for s in wanted_hw)
        raise InputError(
            f"size {wanted_hw[1]}x{wanted_hw[0]}", f"sides divisible by {multiple}", f"--work-size {near[1]}x{near[0]}"
        )
    if mode == "exact":
        if (h % multiple or w % multiple) or (wanted_hw is not None and wanted_hw != size_hw):
            raise InputError(
                f"a render of {w}x{h}",
                f"sides divisible by {multiple}" if wanted_hw is None else f"{wanted_hw[1]}x{wanted_hw[0]}",
                "--fit crop, --fit pad or --fit fit",
            )
        return Sizing(size_hw, size_hw, (0, 0), size_hw)
    if wanted_hw is None:
        step = (lambda s: -(-s // multiple) * multiple) if mode == "pad" else (lambda s: s // multiple * multiple)
        wanted_hw = max(multiple, step(h)), max(multiple, step(w))
    if mode == "fit":
        scale = (wanted_hw[0] * wanted_hw[1] / (h * w)) ** 0.5
        wanted_hw = tuple(max(multiple, round(s * scale / multiple) * multiple) for s in size_hw)  # type: ignore[assignment]
    assert wanted_hw is not None
    th, tw = wanted_hw
    scale = min(th / h, tw / w) if mode == "pad" else max(th / h, tw / w)
    sh, sw = (
        (round(h * scale), round(w * scale))
        if mode == "pad"
        else (max(th, round(h * scale)), max(tw, round(w * scale)))
    )
    y, x = (sh - th) // 2, (sw - tw) // 2
    return Sizing((sh, sw), (th, tw), (y, x), (min(sh, th), min(sw, tw)))
