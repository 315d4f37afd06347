"""A path report as pictures and as text: plot, contact sheet, spark lines. Drawn with OpenCV, which is always there."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from ex4d.preview.report import SAFE_DEG, PathReport

Picture = UInt8[np.ndarray, "height width 3"]

_WHITE, _INK, _GRID, _RED = (255, 255, 255), (50, 50, 50), (225, 225, 225), (214, 69, 65)
_LINES = (("unseen", (214, 69, 65)), ("largest hole", (230, 145, 56)), ("grazing", (66, 133, 244)))
_BLOCKS = " ▁▂▃▄▅▆▇█"

#: Unseen pixels in the contact sheet: a colour that hardly occurs in videos.
HOLE_RGB = (255, 0, 200)


def plot(report: PathReport, title: str = "") -> Picture:
    """Shares over time, collisions shaded, the path's turn below; RGB."""
    import cv2

    width, height, left, top, bottom = 900, 470, 60, 40, 320
    picture = np.full((height, width, 3), 255, np.uint8)
    span = width - left - 20
    x = left + (report.frame / max(report.frame[-1], 1) * span).astype(int)
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = int(bottom - share * (bottom - top))
        cv2.line(picture, (left, y), (left + span, y), _GRID, 1)
        _text(picture, f"{share:.0%}", (8, y + 5))
    for i in np.flatnonzero(report.collision):
        cv2.rectangle(picture, (x[i] - 3, top), (x[i] + 3, bottom), (250, 215, 215), -1)
    for (name, color), values in zip(_LINES, (report.unseen, report.largest_hole, report.grazing), strict=True):
        y = (bottom - np.clip(values, 0, 1) * (bottom - top)).astype(int)
        cv2.polylines(picture, [np.stack([x, y], -1).reshape(-1, 1, 2).astype(np.int32)], False, color, 2, cv2.LINE_AA)
        place = 220 + 180 * [line[0] for line in _LINES].index(name)
        cv2.line(picture, (place, 22), (place + 24, 22), color, 3)
        _text(picture, name, (place + 32, 27))
    _turn_strip(picture, report, x, (350, 430))
    _text(picture, title[:24], (8, 27))
    _text(picture, f"frame 0 to {int(report.frame[-1])}", (left, height - 12))
    return picture


def _turn_strip(picture: np.ndarray, report: PathReport, x: np.ndarray, rows: tuple[int, int]) -> None:
    import cv2

    top, bottom = rows
    most = max(float(report.turn_deg.max()), SAFE_DEG, 1.0)
    safe = int(bottom - SAFE_DEG / most * (bottom - top))
    cv2.line(picture, (int(x[0]), safe), (int(x[-1]), safe), _RED, 1)
    _text(picture, f"{SAFE_DEG:.0f}", (28, safe + 5))
    _text(picture, "turn", (8, bottom))
    y = (bottom - report.turn_deg / most * (bottom - top)).astype(int)
    cv2.polylines(picture, [np.stack([x, y], -1).reshape(-1, 1, 2).astype(np.int32)], False, _INK, 2, cv2.LINE_AA)


def contact_sheet(
    color: UInt8[np.ndarray, "n height width 3"],
    mask: Bool[np.ndarray, "n height width"],
    source: UInt8[np.ndarray, "n height width 3"],
    report: PathReport,
    picks: Int64[np.ndarray, " n"],
) -> Picture:
    """One column a frame: the source, and what the path sees of it, holes in magenta; RGB."""
    holes = np.where(mask[..., None], color, np.array(HOLE_RGB, np.uint8)).astype(np.uint8)
    columns = []
    for i, frame in enumerate(picks):
        label = np.full((42, color.shape[2], 3), 255, np.uint8)
        _text(label, f"{int(report.frame[frame])}: {report.turn_deg[frame]:.0f} deg", (4, 16))
        _text(label, f"unseen {report.unseen[frame]:.0%}", (4, 35))
        columns.append(np.concatenate([source[i], holes[i], label]))
    gap = np.full((columns[0].shape[0], 4, 3), 255, np.uint8)
    parts = [part for column in columns for part in (column, gap)][:-1]
    return np.concatenate(parts, axis=1)


def sparkline(values: Float64[np.ndarray, " n"], width: int = 30, top: float = 1.0) -> str:
    """Values as a row of block characters, `top` the fullest."""
    if len(values) > width:  # the worst of each bin, so that a short spike still shows
        values = np.array([part.max() for part in np.array_split(values, width)])
    index = np.clip(np.ceil(values / max(top, 1e-12) * (len(_BLOCKS) - 1)), 0, len(_BLOCKS) - 1).astype(int)
    return "".join(_BLOCKS[i] for i in index)


def terminal_rows(report: PathReport) -> list[tuple[str, str, str]]:
    """(name, spark line, numbers) of every quantity, for a table."""

    def row(name: str, values: np.ndarray) -> tuple[str, str, str]:
        worst = int(values.argmax())
        return (
            name,
            sparkline(values),
            f"mean {values.mean():.1%}, most {values.max():.1%} (frame {report.frame[worst]})",
        )

    turn = report.turn_deg
    rows = [row("unseen", report.unseen), row("largest hole", report.largest_hole), row("grazing", report.grazing)]
    rows.append(("turn", sparkline(turn, top=max(float(turn.max()), 1.0)), f"up to {turn.max():.1f} degrees"))
    past, far = report.past_safe_deg.max(), report.past_safe_distance.max()
    rows.append(("past safe", sparkline(report.past_safe_deg, top=max(float(past), 1.0)), f"by {past:.1f} degrees, {far:.2f} distances"))  # fmt: skip
    hits = report.frame[report.collision]
    rows.append(("collisions", sparkline(report.collision.astype(float)), f"{len(hits)} frames" + (f", first {hits[0]}" if len(hits) else "")))  # fmt: skip
    return rows


def _text(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    import cv2

    ascii_text = text.encode("ascii", "replace").decode()
    cv2.putText(picture, ascii_text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
