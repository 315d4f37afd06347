"""Which stored frame is shown at each tick of a constant frame rate."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ex4d.errors import InputError


@dataclass(frozen=True)
class Timeline:
    """Presentation times of a stream and the frame shown at every output tick.

    Attributes:
        fps: Constant rate of the output.
        shown_pts: Presentation time of the frame shown at each output frame, in time base units; sorted, may repeat.
        start_s: Seconds between the stream's first frame and the first frame shown.
        constant: True when the stream already has a constant rate, so that every frame is shown exactly once.
        reorder: How many frames may arrive out of order.
    """

    fps: Fraction
    shown_pts: np.ndarray
    start_s: float
    constant: bool
    reorder: int

    def __len__(self) -> int:
        return len(self.shown_pts)


def make_timeline(
    arrival_pts: np.ndarray,
    time_base: Fraction,
    rates: tuple[Fraction, ...],
    *,
    start_s: float | None,
    frames: int | None,
    name: str,
) -> Timeline:
    """Plan a clip: `arrival_pts` [n] int64 in the order of the file, `rates` what the container declares (best first).

    A stream whose frames lie within half a period of an even grid is constant: timestamps rounded to milliseconds and
    the small jitter of phones stay one frame in, one frame out. Anything else is sampled: output frame i shows the last
    frame whose time is not after start + i / fps.
    """
    pts = np.unique(arrival_pts)
    n = len(pts)
    late = np.maximum.accumulate(arrival_pts) > arrival_pts
    reorder = int(np.diff(np.flatnonzero(np.diff(np.r_[0, late, 0]))).max(initial=0)) if late.any() else 0
    period = float(pts[-1] - pts[0]) / (n - 1) if n > 1 else 0.0
    constant = n < 3 or bool(np.abs(pts - pts[0] - np.arange(n) * period).max() < 0.5 * period)
    spacing = period if constant else float(np.median(np.diff(pts)))
    fps = _rate(1 / (spacing * float(time_base)) if spacing else None, rates)

    start_s = start_s or 0.0
    tolerance = min(max(1.0, 0.05 * spacing), 0.4 * spacing)  # ticks: timestamps are rounded to whole ticks
    first_tick = pts[0] + start_s / float(time_base)
    length_s = (float(pts[-1] - pts[0]) * time_base) + 1 / fps
    if start_s < 0 or start_s >= length_s:
        raise InputError(f"got start {start_s:g} s for {name}", f"0 to {float(length_s):.2f} s", "a smaller --start")
    if constant:
        first = max(int(np.searchsorted(pts, first_tick + tolerance, side="right")) - 1, 0)
        shown = pts[first:]
    else:
        count = max(int(np.floor(float(length_s - Fraction(start_s)) * float(fps) + 1e-6)), 1)
        ticks = first_tick + np.arange(count) / float(fps * time_base)
        shown = pts[np.maximum(np.searchsorted(pts, ticks + tolerance, side="right") - 1, 0)]
    if frames is not None and not 0 < frames <= len(shown):
        raise InputError(
            f"got {frames} frames asked of {name}, which has {len(shown)} from {start_s:g} s on",
            f"1 to {len(shown)}",
            f"--frames {len(shown)}",
        )
    return Timeline(fps, shown[:frames], start_s, constant, min(reorder + 1, 32) if reorder else 0)


def _rate(measured: float | None, rates: tuple[Fraction, ...]) -> Fraction:
    """The declared rate nearest the measured one, else the measured one."""
    declared = [Fraction(r) for r in rates if r and 0 < r <= 1000]
    if measured is None:
        return declared[0] if declared else Fraction(25)
    for rate in declared:
        if abs(float(rate) / measured - 1) < 0.02:
            return rate
    return Fraction(measured).limit_denominator(1001)
