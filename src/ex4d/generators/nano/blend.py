"""Generated pixels beside observed ones: the same colours, no seam, and not a bit of what was observed changed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

#: Side of the blocks over which colours are compared: longer than texture, shorter than a hole.
BLOCK_PX = 16
#: Scale of the detail that sharpening raises, pixels of the model's size.
SHARPEN_SIGMA_PX = 1.0
#: Half width of the neighbourhood whose known pixels say how generated and observed differ at a rim.
RIM_PX = 1
#: No colour is moved by more levels than this, over the picture and right beside a hole: beyond it generated and observed differ in
#: content, not in tone. Beside a hole, 255 instead of 64 loses 0.006 dB and changes next to nothing else (four validation scenes).
MAX_DRIFT, MAX_RIM = 24.0, 64.0


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
    """Known pixels bit for bit; generated ones, brought up to their size, meet them without a seam.

    A generated pixel takes over what the nearest known one differs by from the picture generated there, and the less of it the
    farther away it lies. The picture generated beside an object shows the object too, so its colour does not spread.

    Args:
        generated: At the model's size, 0..255.
        filled: The known pixels are read from here.
        known: True where `filled` was observed.
        feather_px: Where the difference has faded.
    """
    import cv2

    if known.all():
        return filled
    h, w = known.shape
    rows, columns = np.nonzero(~known.all(axis=1))[0], np.nonzero(~known.all(axis=0))[0]
    # the rest is known; the nearest known pixels lie right beside this part, and RIM_PX more take part in their means
    part = _around(rows), _around(columns)
    up, seen, there = cv2.resize(generated, (w, h), interpolation=cv2.INTER_CUBIC)[part], known[part], filled[part]
    if seen.any():
        distance, labels = cv2.distanceTransformWithLabels(
            (~seen).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        nearest = labels.astype(np.intp)
        differs = _rim_means(np.clip(there - up, -MAX_RIM, MAX_RIM), seen)
        by_label = np.zeros((int(nearest.max()) + 1, 3), np.float32)
        by_label[nearest[seen]] = differs[seen]
        up = up + np.maximum(1 - distance / max(feather_px, 1.0), 0)[..., None] * by_label[nearest]
    out = filled.copy()
    out[part] = np.where(seen[..., None], there, np.rint(up).clip(0, 255).astype(np.uint8))
    return out


def _around(at: Int[np.ndarray, " n"]) -> slice:
    return slice(max(int(at[0]) - 1 - RIM_PX, 0), int(at[-1]) + 2 + RIM_PX)


def _rim_means(values: Float32[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    """Means over the known pixels within `RIM_PX`: the grain of one pixel must not become a streak."""
    import cv2

    size, weight = (2 * RIM_PX + 1,) * 2, known.astype(np.float32)
    return cv2.blur(values * weight[..., None], size) / np.maximum(cv2.blur(weight, size), 1e-6)[..., None]
