"""Pull-push interpolation (Gortler et al. 1996) that prefers the background: a hole beside an object belongs to what is behind it."""

from __future__ import annotations

import numpy as np

#: How fast a nearer neighbour loses its say: at half the depth of the farthest one its weight is e^-1. More keeps objects out of
#: the holes behind them, but lets a far wall or sky fill holes in the near floor: on four validation scenes (40 degrees, 128 px)
#: PSNR in holes was 12.4 dB at 20, 16.7 at 2, 16.9 at 1 and 16.7 at 0, where rims bleed.
NEARER_COUNTS_LESS = 2.0

#: Levels above the one that has no hole left: how far around a hole its background is looked for. One block beside an object
#: may know nothing but the object; the sky above a whole room must not fill a hole in its floor.
WIDER_LEVELS = 2


def pull_push(color: np.ndarray, known: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Fill the unknown pixels smoothly from the known ones around them, far ones first.

    Down: a block is the mean of its known children, nearer ones counting less. Up: what a level does not know comes from
    the coarser one, and what is much nearer than its wider surroundings is an object's rim, which must not spread into the
    hole behind it.

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
    from ex4d.generators.kernels_fill import pull, push

    penalty = np.float32(NEARER_COUNTS_LESS)
    levels = [(color.astype(np.float32), known.astype(np.float32), np.where(known, log_z, 0).astype(np.float32))]
    wider = WIDER_LEVELS
    while max(levels[-1][1].shape) > 1 and wider:
        wider -= not (levels[-1][1] == 0).any()
        levels.append(pull(*levels[-1], penalty))
    out, _, out_z = levels[-1]
    for fine in reversed(levels[:-1]):
        out, out_z = push(*fine, out, out_z, penalty)
    return np.where(known[..., None], color, out).astype(np.float32)
