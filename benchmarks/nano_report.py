"""Tables of nano.py: means by angle, differences to the best rival, bars, and the ablation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nano_methods import REGIONS, RIVALS

from ex4d.evaluate.metrics.statistics import paired_difference

Row = dict[str, Any]

#: measure -> (heading, format, 1 where more is better, -1 where less is, 0 where it is only shown)
MEASURES = {
    "psnr": ("PSNR, dB", ".2f", 1),
    "ms_ssim": ("MS-SSIM", ".3f", 1),
    "gmsd": ("GMSD", ".4f", -1),
    "sharpness": ("sharpness", ".2f", 0),
    "flicker": ("flicker", ".2f", -1),
    "boiling": ("boiling", ".2f", -1),
}
WHERE = {"holes": "all holes", "invented": "holes without what the fill copied from other times"}
BEST_SHARPNESS = 0.6


def values(rows: Sequence[Row], group: str, method: str, region: str, measure: str) -> dict[int, float]:
    """Scene -> score, averaged over noise seeds."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row["group"] == group and row["method"] == method:
            value = row[region][measure]
            found.setdefault(row["seed"], []).append(float("nan") if value is None else value)
    return {seed: float(np.mean(v)) for seed, v in sorted(found.items())}


def mean(rows: Sequence[Row], group: str, method: str, region: str, measure: str) -> float:
    """Over scenes; NaN where no scene has a value."""
    x = np.array(list(values(rows, group, method, region, measure).values()))
    x = x[np.isfinite(x)]
    return float(x.mean()) if x.size else float("nan")


def names(rows: Sequence[Row], key: str) -> list[Any]:
    """Groups or methods in the order they came."""
    return list(dict.fromkeys(row[key] for row in rows))


def models(rows: Sequence[Row]) -> list[str]:
    """Methods that are neither rivals nor ceilings."""
    return [m for m in names(rows, "method") if m not in RIVALS and not m.startswith("ceiling")]


def means_table(rows: Sequence[Row], group: str, region: str) -> str:
    """Every method's mean over the scenes."""
    mine = [r for r in rows if r["group"] == group]
    share = np.mean([r["share"][region] for r in mine])
    lines = [
        f"### {group} degrees, {WHERE[region]} ({share:.0%} of the pixels, {len(names(mine, 'seed'))} scenes)",
        "",
        "| method | " + " | ".join(h for h, _, _ in MEASURES.values()) + " |",
        "| --- |" + " ---: |" * len(MEASURES),
    ]
    for method in names(mine, "method"):
        cells = [f"{mean(rows, group, method, region, k):{form}}" for k, (_, form, _) in MEASURES.items()]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def best_rival(rows: Sequence[Row], group: str, region: str, measure: str) -> str | None:
    """The rival with the best mean; the fill alone where steadiness is judged (black is the steadiest)."""
    there = [m for m in RIVALS if m in names(rows, "method")]
    if measure in ("flicker", "boiling"):
        return "fill" if "fill" in there else None
    sign = MEASURES[measure][2]
    return max(there, key=lambda m: sign * mean(rows, group, m, region, measure), default=None)


def differences_table(rows: Sequence[Row], region: str) -> str:
    """Each model against the best rival of that measure, paired over scenes."""
    lines = [
        f"### Against the best rival, {WHERE[region]}",
        "",
        "| degrees | method | measure | rival | difference (95 % interval) | scenes won |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for group in names(rows, "group"):
        for method in models(rows):
            for key, (heading, form, sign) in MEASURES.items():
                rival = best_rival(rows, group, region, key) if sign else None
                if rival is None:
                    continue
                a, b = (values(rows, group, m, region, key) for m in (method, rival))
                seeds = [s for s in a if s in b and np.isfinite(a[s]) and np.isfinite(b[s])]
                d = paired_difference([a[s] for s in seeds], [b[s] for s in seeds])
                won = sum(sign * (a[s] - b[s]) > 0 for s in seeds)
                span = f"({d.low:+{form}} to {d.high:+{form}})" if np.isfinite(d.low) else "(one scene)"
                lines.append(
                    f"| {group} | {method} | {heading} | {rival} | {d.mean:+{form}} {span} | {won}/{len(seeds)} |"
                )
    return "\n".join(lines)


def bars(rows: Sequence[Row], region: str) -> list[dict[str, Any]]:
    """Every bar of every set of weights: what was measured, what it is held against, whether it is met."""
    out = []
    labels = [m.removeprefix("default") for m in models(rows) if m.startswith("default") and "@" not in m]
    for label in labels:
        for group in names(rows, "group"):

            def of(method: str, measure: str, group: str = group) -> float:
                return mean(rows, group, method, region, measure)

            default, best = f"default{label}", f"best{label}"
            rivals = [m for m in RIVALS if m in names(rows, "method")]
            checks = [
                (f"{default} {MEASURES[key][0]} better than {r}", key, default, of(r, key), strict)
                for key, chosen, strict in (("ms_ssim", rivals, True), ("gmsd", rivals, True), ("psnr", rivals, False))
                for r in chosen
            ]
            if "fill" in rivals:
                checks.append(
                    (f"{default} flicker no more than fill's", "flicker", default, of("fill", "flicker"), False)
                )
            if best in models(rows):
                checks.append((f"{best} sharpness", "sharpness", best, BEST_SHARPNESS, False))
                checks.append((f"{best} GMSD no worse than {default}", "gmsd", best, of(default, "gmsd"), False))
            for what, key, method, bar, strict in checks:
                value, sign = of(method, key), MEASURES[key][2] or 1
                met = sign * value > sign * bar if strict else sign * value >= sign * bar
                out.append({"group": group, "bar": what, "value": value, "held_against": bar, "met": bool(met)})
    return out


def bars_table(found: Sequence[dict[str, Any]], region: str) -> str:
    """Bars as a table and how many are met."""
    met = sum(bar["met"] for bar in found)
    lines = [
        f"### Bars, {WHERE[region]}: {met} of {len(found)} met",
        "",
        "| degrees | bar | measured | held against | |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for bar in found:
        verdict = "met" if bar["met"] else "**missed**"
        lines.append(f"| {bar['group']} | {bar['bar']} | {bar['value']:.4f} | {bar['held_against']:.4f} | {verdict} |")
    return "\n".join(lines)


def report(rows: Sequence[Row], about: str) -> str:
    """The whole text."""
    parts = [about, *(means_table(rows, group, region) for group in names(rows, "group") for region in REGIONS)]
    if models(rows):
        parts += [differences_table(rows, region) for region in REGIONS]
        parts += [bars_table(bars(rows, region), region) for region in REGIONS if bars(rows, region)]
    return "\n\n".join(parts) + "\n"


def ablation_table(rows: Sequence[Row], region: str = "holes") -> str:
    """Mean over scenes and its standard deviation over noise seeds, by angle."""
    shown = tuple(MEASURES)
    groups = names(rows, "group")
    lines = [
        f"### Ablation, {WHERE[region]} of the watertight mesh (mean over scenes +- deviation over noise seeds)",
        "",
        "| degrees | model | masks | " + " | ".join(MEASURES[k][0] for k in shown) + " |",
        "| --- | --- | --- |" + " ---: |" * len(shown),
    ]
    for group in groups:
        for method in names(rows, "method"):
            model, masks = method.split(" / ")
            cells = []
            for key in shown:
                mine = [r for r in rows if r["group"] == group and r["method"] == method]
                seeds = names(mine, "noise")
                x = [mean([r for r in mine if r["noise"] == n], group, method, region, key) for n in seeds]
                form = MEASURES[key][1]
                spread = f" +- {np.std(x, ddof=1):{form}}" if len(x) > 1 else ""
                cells.append(f"{np.mean(x):{form}}{spread}")
            lines.append(f"| {group} | {model} | {masks} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
