"""Time remap: which source frame each output frame shows, apart from where the camera is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from ex4d.cameras.units import parse_number
from ex4d.errors import InputError

REMAPS = {
    "freeze": "freeze[=K]: source frame K (default 0) all the time",
    "until": "until=K: time runs to source frame K and stops there",
    "from": "from=K: starts at source frame K",
    "slow": "slow=0.5: half the speed",
    "fast": "fast=2: twice the speed, then stands on the last frame",
    "reverse": "reverse: backwards from the last frame",
    "ping-pong": "ping-pong: to the last frame and back",
    "keys": "0:0,24:48,48:0: output frame : source frame, straight lines between",
}


def remap_time(
    text: str | None, source_time: Float64[np.ndarray, " time"], num_source_frames: int
) -> Float64[np.ndarray, " time"]:
    """Source frames after the remap, clamped to the source clip.

    Args:
        text: One of REMAPS, or None for no change.
        source_time: Source frame of each output frame before the remap.
        num_source_frames: Length of the source clip.
    """
    last = num_source_frames - 1
    return np.clip(_remapped(text.strip(), source_time, last) if text else source_time, 0.0, last)


def _remapped(text: str, t: Float64[np.ndarray, " time"], last: int) -> Float64[np.ndarray, " time"]:
    if ":" in text:
        return _through_keys(text, len(t), last)
    word, _, value = (part.strip() for part in text.partition("="))
    if word not in REMAPS or word == "keys":
        raise InputError(f"time remap {text!r}", "; ".join(REMAPS.values()), "orbit:60 @ freeze=0")
    if word == "reverse":
        return last - t
    if word == "ping-pong":
        return last - np.abs(last - 2 * t)
    number = parse_number(value or ("0" if word == "freeze" else ""), word)
    if word in ("slow", "fast"):
        if number <= 0:
            raise InputError(f"{word}={value}", "a speed > 0", "slow=0.5, or reverse")
        return t * number
    if not 0 <= number <= last:
        raise InputError(f"{word}={value} in a clip of {last + 1} frames", f"a frame 0..{last}", f"{word}={last // 2}")
    return {"freeze": np.full_like(t, number), "until": np.minimum(t, number), "from": t + number}[word]


def _through_keys(text: str, num_frames: int, last: int) -> Float64[np.ndarray, " time"]:
    try:
        pairs = np.array([[float(v) for v in pair.split(":")] for pair in text.split(",")])
        ok = pairs.ndim == 2 and pairs.shape[1] == 2 and np.isfinite(pairs).all() and (np.diff(pairs[:, 0]) > 0).all()
    except ValueError:
        ok, pairs = False, np.zeros((0, 2))
    if not ok:
        raise InputError(f"time keys {text!r}", "output:source pairs, output frames ascending", "0:0,24:48,48:0")
    if pairs[:, 1].min() < 0 or pairs[:, 1].max() > last:
        raise InputError(f"time keys {text!r} in a clip of {last + 1} frames", f"source frames 0..{last}", f"0:0,{num_frames - 1}:{last}")  # fmt: skip
    return np.interp(np.arange(num_frames), pairs[:, 0], pairs[:, 1])
