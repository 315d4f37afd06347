"""Generated pixels beside observed ones: the same colours, no seam, and not a bit of what was observed changed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, UInt8

#: Side of the blocks over which colours are compared: longer than texture, shorter than a hole.
BLOCK_PX = 16
#: Scale of the detail that sharpening raises, pixels of the model's size.
SHARPEN_SIGMA_PX = 1.0
#: No colour is moved by more levels than this: beyond it generated and observed differ in content, not in tone.
MAX_DRIFT = 24.0


def drift(
    generated: UInt8[np.ndarray, "h w 3"], reference: UInt8[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 3"]:
    """What must be added to `generated` so that its tones are those of `reference` where that is known.

    The autoencoder shifts colours a little, and slowly over the picture. Block means of the difference are averaged upwards where
    blocks know something, and handed down where they do not (push-pull), so the holes take over the drift of their rims.

    Returns:
        Levels, at most `MAX_DRIFT`; 0 where nothing at all is known.
    """
    import cv2

    h, w = known.shape
    weight = known.astype(np.float32)
    difference = (reference.astype(np.float32) - generated) * weight[..., None]
    hw = (max(-(-h // BLOCK_PX), 1), max(-(-w // BLOCK_PX), 1))
    levels: list[tuple[np.ndarray, np.ndarray]] = []
    while True:
        size = hw[::-1]
        total = cv2.resize(difference, size, interpolation=cv2.INTER_AREA).reshape(*hw, 3)
        share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA).reshape(*hw, 1)
        levels.append((total, share))
        if hw == (1, 1):
            break
        hw = (hw[0] + 1) // 2, (hw[1] + 1) // 2
    total, share = levels.pop()
    out = total / np.maximum(share, 1e-6)
    for total, share in reversed(levels):
        coarse = cv2.resize(out, share.shape[1::-1], interpolation=cv2.INTER_LINEAR).reshape(total.shape)
        out = total + (1 - share) * coarse  # a block counts by how much of it is known
    out = cv2.resize(np.clip(out, -MAX_DRIFT, MAX_DRIFT), (w, h), interpolation=cv2.INTER_LINEAR)
    return out.astype(np.float32)


def sharpened(frame: Float32[np.ndarray, "h w 3"], amount: float) -> Float32[np.ndarray, "h w 3"]:
    """Unsharp mask: gives back detail of about a pixel that the autoencoder softens. Values may leave 0..255.

    Args:
        frame: A generated picture at the model's size.
        amount: Share of the detail that is added once more; 0 changes nothing.
    """
    import cv2

    return frame + np.float32(amount) * (frame - cv2.GaussianBlur(frame, (0, 0), SHARPEN_SIGMA_PX))


def composed(
    generated: Float32[np.ndarray, "h2 w2 3"],
    filled: UInt8[np.ndarray, "h w 3"],
    known: Bool[np.ndarray, "h w"],
    feather_px: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """Known pixels bit for bit; generated ones, brought up to their size, rise beside them from the fill, which meets them without a seam.

    Args:
        generated: At the model's size, 0..255.
        filled: A classical completion; the known pixels are read from here.
        known: True where `filled` was observed.
        feather_px: Width of the rise.
    """
    import cv2

    if known.all():
        return filled
    h, w = known.shape
    rows, columns = np.nonzero(~known.all(axis=1))[0], np.nonzero(~known.all(axis=0))[0]
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)  # the rest is known
    up = cv2.resize(generated, (w, h), interpolation=cv2.INTER_CUBIC)[part]
    if known.any():
        distance = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, 3)[part]
        weight = np.minimum(distance / max(feather_px, 1.0), 1)[..., None]
    else:
        weight = np.float32(1)
    base = filled[part].astype(np.float32)
    mixed = np.rint(base + weight * (up - base)).clip(0, 255).astype(np.uint8)
    out = filled.copy()
    out[part] = np.where(known[part][..., None], out[part], mixed)
    return out
