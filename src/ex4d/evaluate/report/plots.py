"""Plots as inline SVG: no library, no script, no request; they print and scale."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

#: Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")


class Point(NamedTuple):
    """A mean with its interval at a position (an angle, or an index)."""

    x: float
    y: float
    low: float
    high: float


def line_plot(
    title: str,
    series: dict[str, Sequence[Point]],
    x_label: str,
    y_label: str,
    ticks: dict[float, str] | None = None,
    size: tuple[int, int] = (430, 280),
) -> str:
    """One line per system with interval whiskers; `ticks` names positions on the x axis."""
    points = [p for line in series.values() for p in line if math.isfinite(p.y)]
    if not points:
        return ""
    width, height, left, right, top, bottom = *size, 58, 12, 30, 44
    xs = sorted({p.x for p in points})
    ends = [v for p in points for v in (p.y, p.low, p.high) if math.isfinite(v)]
    low, high = min(ends), max(ends)
    pad = 0.06 * (high - low) or max(abs(high), 1) * 0.05
    low, high = low - pad, high + pad
    span = (xs[-1] - xs[0]) or 1.0

    def sx(x: float) -> float:
        share = (x - xs[0]) / span if len(xs) > 1 else 0.5
        return left + 14 + share * (width - left - right - 28)

    def sy(y: float) -> float:
        return top + (high - y) / (high - low) * (height - top - bottom)

    out = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{html.escape(title)}">',
        f'<text x="{left}" y="18" class="t">{html.escape(title)}</text>',
    ]
    for value in _nice(low, high):
        y = sy(value)
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" class="g"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for x in xs:
        label = ticks.get(x, f"{x:g}") if ticks else f"{x:g}"
        out.append(f'<text x="{sx(x):.1f}" y="{height - bottom + 18}" text-anchor="middle">{html.escape(label)}</text>')
    out.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">{html.escape(x_label)}</text>'
    )
    middle = (top + height - bottom) / 2
    out.append(
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">{html.escape(y_label)}</text>'
    )
    for i, (name, line) in enumerate(series.items()):
        color, shift = COLORS[i % len(COLORS)], 3.0 * (i - (len(series) - 1) / 2)
        kept = [p for p in line if math.isfinite(p.y)]
        path = " ".join(f"{sx(p.x) + shift:.1f},{sy(p.y):.1f}" for p in kept)
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        for p in kept:
            x = sx(p.x) + shift
            if math.isfinite(p.low) and math.isfinite(p.high):
                out.append(
                    f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{sy(p.low):.1f}" y2="{sy(p.high):.1f}" stroke="{color}"/>'
                )
            about = f"{name}: {p.y:.4g} ({p.low:.4g} to {p.high:.4g})"
            out.append(
                f'<circle cx="{x:.1f}" cy="{sy(p.y):.1f}" r="3.5" fill="{color}"><title>{html.escape(about)}</title></circle>'
            )
    return "".join([*out, "</svg>"])


def legend(names: Sequence[str]) -> str:
    """The colours of the systems."""
    dots = (
        f'<span><i style="background:{COLORS[i % len(COLORS)]}"></i>{html.escape(n)}</span>'
        for i, n in enumerate(names)
    )
    return f'<p class="legend">{"".join(dots)}</p>'


def _nice(low: float, high: float) -> list[float]:
    """Four to eight round values within a range."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next((m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6), 10)
    first = math.ceil(low / step)
    return [round((first + k) * step, 12) for k in range(int((high - first * step) / step) + 1)]
