"""Pull-push interpolation (Gortler et al. 1996) that prefers the background: a hole beside an object belongs to what is behind it."""

from __future__ import annotations

import numpy as np

#: How fast a nearer neighbour loses its say: at half the depth of the farthest one its weight is e^-10.
NEARER_COUNTS_LESS = 20.0


def pull_push(color: np.ndarray, known: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Fill the unknown pixels smoothly from the known ones around them, far ones first.

    Args:
        color: uint8 [height, width, 3].
        known: bool [height, width].
        depth: float32 [height, width], > 0; read only where known, +inf counts as very far.

    Returns:
        float32 [height, width, 3]; known pixels unchanged; mid-grey where nothing at all is known.
    """
    if not known.any():
        return np.full(color.shape, 127.5, np.float32)
    log_z = np.log(np.clip(np.where(known, depth, 1.0), 1e-6, 1e6)).astype(np.float32)
    level = (color.astype(np.float32), known.astype(np.float32), np.where(known, log_z, 0).astype(np.float32))
    levels = [level]
    while max(level[1].shape) > 1 and (level[1] == 0).any():
        level = _pull(*level)
        levels.append(level)
    out, _, out_z = levels[-1]
    for fine in reversed(levels[:-1]):
        out, out_z = _push(fine, out, out_z)
    return np.where(known[..., None], color, out).astype(np.float32)


def _blocks(x: np.ndarray) -> np.ndarray:
    """[H, W, ...] to [H/2, W/2, 4, ...] with zero padding to even sizes."""
    h, w = x.shape[:2]
    x = np.pad(x, [(0, h % 2), (0, w % 2)] + [(0, 0)] * (x.ndim - 2))
    return np.stack([x[0::2, 0::2], x[0::2, 1::2], x[1::2, 0::2], x[1::2, 1::2]], axis=2)


def _pull(color: np.ndarray, weight: np.ndarray, log_z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    c, w, z = _blocks(color), _blocks(weight), _blocks(log_z)
    farthest = np.where(w > 0, z, -np.inf).max(axis=2, keepdims=True)
    with np.errstate(invalid="ignore"):
        say = np.where(w > 0, w * np.exp(-NEARER_COUNTS_LESS * (1 - np.exp(np.minimum(z - farthest, 0)))), 0)
    total = say.sum(axis=2)
    safe = np.maximum(total, 1e-12)
    return (
        (c * say[..., None]).sum(axis=2) / safe[..., None],
        np.minimum(w.sum(axis=2), 1),
        np.where(total > 0, (z * say).sum(axis=2) / safe, 0),
    )


def _push(
    fine: tuple[np.ndarray, np.ndarray, np.ndarray], coarse: np.ndarray, coarse_z: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    color, weight, log_z = fine
    h, w = weight.shape
    size = (coarse.shape[1] * 2, coarse.shape[0] * 2)
    up = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)[:h, :w]
    up_z = cv2.resize(coarse_z, size, interpolation=cv2.INTER_LINEAR)[:h, :w]
    # What is much nearer than its wider surroundings is an object's rim: it must not spread into the hole behind it.
    trust = weight * np.exp(-NEARER_COUNTS_LESS * (1 - np.exp(np.minimum(log_z - up_z, 0))))
    return up + trust[..., None] * (color - up), up_z + trust * (log_z - up_z)
