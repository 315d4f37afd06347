"""Average maps over time along optical flow, forwards and backwards, with memory that does not grow with the clip."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from ex4d.depth.maps.flow_filter import THERE_AND_BACK_PX
from ex4d.pixels.flow import dense_flow, pull
from ex4d.pixels.tracks import to_gray
from ex4d.system.array_store import ArrayStore, MapSpool
from ex4d.types import Progress

#: How much of the past a frame takes over: the mean reaches 1 / (1 - DECAY) frames to either side.
DECAY = 0.85

#: Differences of log value and of brightness (0..255) that make another surface. The first gate is a Gaussian: with a tail, what a
#: mover hides would leak into it wherever flow and brightness agree by chance, since many frames' weight waits behind it. Wider
#: gates average more (at 1.0 a tenth less flicker) and cost edges and movers more than they gain.
LOG_SIGMA, GRAY_SIGMA = 0.15, 24.0

#: Counts half where the way there and back misses by this much; THERE_AND_BACK_PX cuts off.
MISS_SIGMA_PX = THERE_AND_BACK_PX

#: A camera whose median flow is below this many pixels stands still; before it, a patch of so many pixels a side stands still
#: when it fits unmoved as well as moved, but for so many levels.
STILL_PX, STILL_PATCH, STILL_LEVELS = 0.1, 5, 0.5

Flows = Float32[np.ndarray, "2 h w 2"]


def flows_between(a: UInt8[np.ndarray, "h w"], b: UInt8[np.ndarray, "h w"]) -> Flows:
    """(from a to b, from b to a).

    Before a camera that stands still there is none where the picture fits as well without: flow leaks from movers into what
    is beside them.
    """
    both = [dense_flow(a, b), dense_flow(b, a)]
    if np.median(np.linalg.norm(both[0], axis=-1)) < STILL_PX:
        for flow, here, there in zip(both, (a, b), (b, a), strict=True):
            flow[_misfit(here, there) <= _misfit(here, pull(there, flow)) + STILL_LEVELS] = 0
    return np.stack(both)


def _misfit(a: UInt8[np.ndarray, "h w"], b: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Mean |difference of brightness| of small patches."""
    return cv2.blur(cv2.absdiff(a, b).astype(np.float32), (STILL_PATCH, STILL_PATCH))


def carried(
    state: Float32[np.ndarray, "h w 2"],
    here: Float32[np.ndarray, "h w"],
    grays: tuple[np.ndarray, np.ndarray],
    flows: Flows,
    decay: float,
) -> Float32[np.ndarray, "h w 2"]:
    """What a frame takes over from its neighbour, as (weighted sum, weight).

    Args:
        state: The neighbour's sum and weight.
        here: This frame's map.
        grays: This frame and the neighbour.
        flows: From here to the neighbour, and back.
        decay: Largest share.
    """
    there, back = flows
    pulled = pull(state, there)
    miss = np.linalg.norm(there + pull(back, there), axis=-1)
    trust = (miss < THERE_AND_BACK_PX) / (1 + (miss / MISS_SIGMA_PX) ** 2)
    color = pull(grays[1].astype(np.float32), there) - grays[0]
    trust /= 1 + (color / GRAY_SIGMA) ** 2
    trust *= np.exp(-(((pulled[..., 0] / pulled[..., 1] - here) / LOG_SIGMA) ** 2) / 2)
    return pulled * (decay * trust[..., None]).astype(np.float32)


def smooth_both_ways(
    frames: MapSpool, maps: MapSpool, store: ArrayStore, decay: float = DECAY, progress: Progress | None = None
) -> Iterator[Float32[np.ndarray, "h w"]]:
    """Every map averaged with the same surface in the frames before and after, by shares that fall with the distance in time.

    A pixel hidden in the neighbouring frame, or of another brightness or value there, starts anew, so things that move keep
    their own depth and edges. Two sweeps over the clip; what waits between them waits in `store`.

    Args:
        frames: RGB frames uint8 [n, h, w, 3].
        maps: Positive maps [n, h, w]; they are averaged as logarithms.
        store: Takes the intermediate arrays.
        decay: Share taken over from the neighbour; 0 leaves the maps alone.
        progress: Called as the second sweep proceeds.
    """
    count = len(maps)
    if not decay:
        for t in range(count):
            yield maps.read(t, t + 1)[0]
        return
    gray = state = None
    for t in range(count):
        here, before = np.log(maps.read(t, t + 1)[0]), gray
        gray, own = to_gray(frames.read(t, t + 1)[0]), np.stack([here, np.ones_like(here)], axis=-1)
        if before is not None and state is not None:
            flows = flows_between(gray, before)
            store.save(f"flow-{t}", flows.astype(np.float16))
            own = own + carried(state, here, (gray, before), flows, decay)
        state = own
        store.save(f"sweep-{t}", state)
    gray = state = None
    for t in reversed(range(count)):
        here, after = np.log(maps.read(t, t + 1)[0]), gray
        gray, own = to_gray(frames.read(t, t + 1)[0]), np.stack([here, np.ones_like(here)], axis=-1)
        forward = store.load(f"sweep-{t}")
        both = forward
        if after is not None and state is not None:
            flows = store.load(f"flow-{t + 1}").astype(np.float32)[::-1]
            taken = carried(state, here, (gray, after), flows, decay)
            own, both = own + taken, forward + taken
        state = own
        store.save(f"sweep-{t}", np.exp(both[..., 0] / both[..., 1]).astype(np.float32))
        if progress is not None:
            progress(count - t, count, "depth: smoothing over time")
    for t in range(count):
        yield store.load(f"sweep-{t}")
