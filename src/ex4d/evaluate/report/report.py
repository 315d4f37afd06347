"""report.json, report.md and report.html of an evaluation; the HTML is one file that asks the network for nothing."""

from __future__ import annotations

import base64
import html
import json
import math
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ex4d.evaluate.protocols.score import heading, read_clip
from ex4d.evaluate.report.plots import Point, legend, line_plot
from ex4d.system.atomic import ensure_dir, written_whole
from ex4d.system.manifest import plain

#: Worst cases shown per system, and the height and length their clips are cut to (a report stays a few MB).
WORST_CASES, CLIP_HEIGHT, CLIP_FRAMES = 3, 240, 49

#: The first of these that was scored decides what "worst" is.
WORST_BY = ("psnr", "psnr_claimed", "silhouette_iou", "mask_f1", "ssim", "trans_err", "excess_flicker", "flicker")

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; display: block; overflow-x: auto }
th, td { border: 1px solid #8886; padding: .3em .6em; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
td.best { font-weight: 700 }
small { opacity: .75 }
svg { background: #fff; margin: .4em; border-radius: 4px }
svg text { font: 11px system-ui, sans-serif; fill: #222 } svg text.t { font-size: 13px; font-weight: 600 }
svg line.g { stroke: #ddd }
.legend span { margin-right: 1.2em } .legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em }
figure { display: inline-block; margin: .5em; vertical-align: top } figcaption { font-size: 12px; max-width: 500px }
video { max-width: 100% }
.problem { color: #b00020 }
"""


class Clip(NamedTuple):
    """A side-by-side clip for the report: uint8 RGB [T, H, W, 3] and what it shows."""

    caption: str
    frames: np.ndarray
    fps: Fraction


def write_report(report: dict[str, Any], out: Path, clips: Sequence[Clip] = ()) -> list[Path]:
    """Write the three files whole; returns their paths."""
    out = ensure_dir(out)
    texts = {
        "report.json": json.dumps(plain(report), indent=2, ensure_ascii=False) + "\n",
        "report.md": markdown(report),
        "report.html": page(report, clips),
    }
    for name, text in texts.items():
        with written_whole(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [out / name for name in texts]


# --- tables ---
def _cells(report: dict[str, Any]) -> tuple[list[str], list[str], dict[tuple[str, str, str], dict[str, Any]]]:
    """Systems, metrics, and the summary row of every (system, group, metric)."""
    rows = {(r["system"], r["group"], r["metric"]): r for r in report["summary"]}
    systems = [s["name"] for s in report["systems"]]
    return systems, list(dict.fromkeys(m for _, _, m in rows)), rows


def _value(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    mean = float(row["mean"])
    digits = 2 if abs(mean) >= 10 else 4
    text = f"{mean:.{digits}f}"
    if math.isfinite(float(row["low"])):
        text += f" ({float(row['low']):.{digits}f} to {float(row['high']):.{digits}f})"
    return (
        text + f", n {row['n']}" + (f", seed sd {row['seed_sd']:.{digits}f}" if row.get("seed_sd") is not None else "")
    )


def _group_names(report: dict[str, Any]) -> list[str]:
    names = dict.fromkeys(r["group"] for r in report["summary"])
    return sorted(names, key=lambda g: (g == "all", len(g), g))


def _best(report: dict[str, Any], group: str, metric: str) -> str | None:
    """The system with the best mean, where a direction is known and there are two or more."""
    systems, _, rows = _cells(report)
    better = heading(metric)[1]
    means = {s: float(rows[s, group, metric]["mean"]) for s in systems if (s, group, metric) in rows}
    means = {s: v for s, v in means.items() if not math.isnan(v)}
    if better is None or len(means) < 2:
        return None
    return (max if better else min)(means, key=lambda s: means[s])


def _label(metric: str) -> str:
    name, better, unit = heading(metric)
    arrow = "" if better is None else " ↑" if better else " ↓"
    return f"{name}{f', {unit}' if unit else ''}{arrow}"


def _sentences(report: dict[str, Any]) -> list[str]:
    lines = [f"{k}: {v}" for k, v in report["settings"].items() if v]
    sizes = sorted({r["resolution"] for r in report["summary"] if r.get("resolution")})
    return [*lines, f"resolution: {', '.join(sizes)}"] if sizes else lines


INTERVALS = "Means over clips with 95 % bootstrap intervals; n counts scored clips. Arrows say which way is better."


def markdown(report: dict[str, Any]) -> str:
    """The report as text."""
    systems, metrics, rows = _cells(report)
    lines = [f"# {report['title']}", "", INTERVALS, ""]
    lines += [f"- {line}" for line in _sentences(report)]
    for group in _group_names(report):
        shown = [m for m in metrics if any((s, group, m) in rows for s in systems)]
        lines += ["", f"## {'All groups' if group == 'all' else f'Group {group}'}", ""]
        lines += ["| metric | " + " | ".join(systems) + " |", "| --- |" + " --- |" * len(systems)]
        for metric in shown:
            best = _best(report, group, metric)
            cells = [
                f"**{_value(rows.get((s, group, metric)))}**" if s == best else _value(rows.get((s, group, metric)))
                for s in systems
            ]
            lines.append(f"| {_label(metric)} | " + " | ".join(cells) + " |")
    if report["failures"]:
        lines += ["", "## Problems", ""]
        lines += [f"- {f['system']}, {f['item']}: {f['problem']}" for f in report["failures"]]
    if report.get("text"):
        lines += ["", report["text"]]
    if report["cautions"]:
        lines += ["", "## Read with care", ""]
        lines += [f"- {c}" for c in report["cautions"]]
    return "\n".join(lines) + "\n"


# --- page ---
def page(report: dict[str, Any], clips: Sequence[Clip]) -> str:
    """The report as one HTML file: tables, plots as SVG, clips as data URIs."""
    systems = [s["name"] for s in report["systems"]]
    e = html.escape
    body = [f"<h1>{e(report['title'])}</h1>", f"<p>{e(INTERVALS)}</p>", "<ul>"]
    body += [f"<li>{e(line)}</li>" for line in _sentences(report)] + ["</ul>"]
    plots = _plots(report)
    if plots:
        body += ["<h2>Plots</h2>", legend(systems), *plots]
    body += ["<h2>Comparison</h2>", *(_table(report, group) for group in _group_names(report))]
    if clips:
        body.append("<h2>Worst cases</h2>")
        body += [
            f'<figure><video controls loop muted playsinline src="{_data_uri(c)}"></video><figcaption>{e(c.caption)}</figcaption></figure>'
            for c in clips
        ]
    if report["failures"]:
        items = "".join(
            f"<li class='problem'>{e(f['system'])}, {e(f['item'])}: {e(f['problem'])}</li>" for f in report["failures"]
        )
        body.append(f"<h2>Problems</h2><ul>{items}</ul>")
    if report.get("text"):
        body.append("".join(f"<p>{e(line)}</p>" for line in report["text"].splitlines() if line.strip()))
    if report["cautions"]:
        body.append("<h2>Read with care</h2><ul>" + "".join(f"<li>{e(c)}</li>" for c in report["cautions"]) + "</ul>")
    versions = ", ".join(f"{k} {v}" for k, v in report.get("versions", {}).items())
    body.append(f"<p><small>{e(versions)}</small></p>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><title>{e(report["title"])}</title><style>{STYLE}</style></head><body>{"".join(body)}</body></html>\n'
    )


def _table(report: dict[str, Any], group: str) -> str:
    systems, metrics, rows = _cells(report)
    e = html.escape
    shown = [m for m in metrics if any((s, group, m) in rows for s in systems)]
    out = [f"<h3>{'All groups' if group == 'all' else f'Group {e(group)}'}</h3><table><tr><th>metric</th>"]
    out += [f"<th>{e(s)}</th>" for s in systems] + ["</tr>"]
    for metric in shown:
        best = _best(report, group, metric)
        out.append(f"<tr><td>{e(_label(metric))}</td>")
        out += [
            f"<td{' class=best' if s == best else ''}>{e(_value(rows.get((s, group, metric))))}</td>" for s in systems
        ]
        out.append("</tr>")
    return "".join([*out, "</table>"])


def _plots(report: dict[str, Any]) -> list[str]:
    """One plot a metric: by angle where the groups state angles, else by group, else by system."""
    systems, metrics, rows = _cells(report)
    groups = [g for g in _group_names(report) if g != "all"] or ["all"]
    angles = {g: report["groups"].get(g, {}).get("angle_deg") for g in groups}
    by_angle = len(groups) > 1 and all(isinstance(a, (int, float)) for a in angles.values())
    by_angle = by_angle and len(set(angles.values())) == len(groups)
    at = {g: float(angles[g]) if by_angle else float(i) for i, g in enumerate(groups)}
    ticks = None if by_angle else {at[g]: g for g in groups}
    plots = []
    for metric in metrics:
        series = {}
        for s in systems:
            found = [(g, rows[s, g, metric]) for g in groups if (s, g, metric) in rows]
            series[s] = sorted(Point(at[g], float(r["mean"]), float(r["low"]), float(r["high"])) for g, r in found)
        label = "angle, degrees" if by_angle else "group"
        plots.append(line_plot(_label(metric), series, label, heading(metric)[2], ticks))
    return [p for p in plots if p]


def _data_uri(clip: Clip) -> str:
    from ex4d.io.video.read import VideoWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with VideoWriter(path, clip.fps) as writer:
            writer.write(np.ascontiguousarray(clip.frames))
        return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


# --- worst cases ---
def worst_items(report: dict[str, Any], count: int = WORST_CASES) -> list[tuple[dict[str, Any], str]]:
    """The worst items of every system, and the metric that says so."""
    scored = {m for i in report["items"] for m in i["metrics"]}
    metric = next((m for m in WORST_BY if m in scored), None)
    if metric is None:
        return []
    better, chosen = heading(metric)[1], []
    for system in report["systems"]:
        mine = [i for i in report["items"] if i["system"] == system["name"] and metric in i["metrics"]]
        mine = [i for i in mine if not math.isnan(float(i["metrics"][metric]))]
        mine.sort(key=lambda i: float(i["metrics"][metric]), reverse=better is not True)
        chosen += [(i, metric) for i in mine[:count]]
    return chosen


def worst_clips(report: dict[str, Any], count: int = WORST_CASES) -> list[Clip]:
    """Output beside reference for the worst items (their files are read again)."""
    clips = []
    for item, metric in worst_items(report, count):
        video = read_clip(Path(item["path"]))
        pictures = [video.frames]
        if item["reference"]:
            other = read_clip(Path(item["reference"])).frames
            pictures.append(other[np.minimum(np.arange(len(video)), len(other) - 1)])
        sides = "output | reference" if len(pictures) > 1 else "output"
        caption = (
            f"{item['system']}, {item['item']}: {heading(metric)[0]} {float(item['metrics'][metric]):.4g} ({sides})"
        )
        clips.append(Clip(caption, side_by_side(pictures), video.fps))
    return clips


def side_by_side(clips: Sequence[np.ndarray], height: int = CLIP_HEIGHT) -> np.ndarray:
    """Clips of one length as one, at most `height` px tall and `CLIP_FRAMES` long, with even sides."""
    h = min(height, min(c.shape[1] for c in clips)) // 2 * 2
    columns = []
    for clip in clips:
        w = max(2, round(clip.shape[2] * h / clip.shape[1] / 2) * 2)
        columns.append(np.stack([cv2.resize(f, (w, h), interpolation=cv2.INTER_AREA) for f in clip[:CLIP_FRAMES]]))
    return np.concatenate(columns, axis=2)
