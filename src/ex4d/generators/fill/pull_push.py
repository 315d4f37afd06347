"""Pull-push interpolation (Gortler et al. 1996) that prefers the background: a hole beside an object belongs to what is behind it."""

from __future__ import annotations

import numpy as np

from ex4d.system.bands import in_bands

#: How fast a nearer neighbour loses its say, beside a hole (blocks up to `RIM_SHARE` of the short side) and farther around it:
#: at half the depth of the farthest one its weight is e^(-half of this). Beside a hole, objects must not spread into what is
#: behind them; farther around, a wall or the sky must not fill holes in the near floor. PSNR in holes of four validation scenes
#: (128 px): 12.4 dB with 20 everywhere, 16.7 with 2 everywhere (halos around objects), 16.5 as here (next to none).
NEARER_COUNTS_LESS, NEARER_COUNTS_LESS_AROUND = 20.0, 1.0
RIM_SHARE = 1 / 8

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
    rim_px = RIM_SHARE * min(known.shape)
    levels = [(color.astype(np.float32), known.astype(np.float32), np.where(known, log_z, 0).astype(np.float32))]
    wider = WIDER_LEVELS
    while max(levels[-1][1].shape) > 1 and wider:
        wider -= not (levels[-1][1] == 0).any()
        levels.append(_pull(*levels[-1], _penalty(2 ** len(levels), rim_px)))
    out, _, out_z = levels[-1]
    for level in reversed(range(len(levels) - 1)):
        out, out_z = _push(*levels[level], out, out_z, _penalty(2**level, rim_px))
    return np.where(known[..., None], color, out).astype(np.float32)


def _pull(color: np.ndarray, weight: np.ndarray, log_z: np.ndarray, penalty: np.float32):
    """The next coarser level: (colour, weight, log z)."""
    from ex4d.generators.fill.kernels import pull

    hh, ww = (weight.shape[0] + 1) // 2, (weight.shape[1] + 1) // 2
    out = np.zeros((hh, ww, 3), np.float32), np.zeros((hh, ww), np.float32), np.zeros((hh, ww), np.float32)
    in_bands(hh, lambda first, last: pull(first, last, color, weight, log_z, penalty, *out))
    return out


def _push(color: np.ndarray, weight: np.ndarray, log_z: np.ndarray, coarse: np.ndarray, coarse_z: np.ndarray, penalty):
    """This level completed from the coarser one: (colour, log z)."""
    from ex4d.generators.fill.kernels import push

    out = np.empty_like(color), np.empty_like(weight)
    in_bands(len(color), lambda first, last: push(first, last, color, weight, log_z, coarse, coarse_z, penalty, *out))
    return out


def _penalty(block_px: int, rim_px: float) -> np.float32:
    return np.float32(NEARER_COUNTS_LESS if block_px <= rim_px else NEARER_COUNTS_LESS_AROUND)
