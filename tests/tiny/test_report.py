"""The HTML report is one file: plots, playable clips, no request; a real browser says so."""

import json
import re
import shutil
import subprocess
from fractions import Fraction

import numpy as np
import pytest

from ex4d.evaluate.report.plots import Point, line_plot
from ex4d.evaluate.report.report import Clip, markdown, page, side_by_side, write_report

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)

#: Run in the page after loading: counts what is there and waits until every clip can be played.
PROBE = """<script>window.addEventListener("load", async () => {
const videos = [...document.querySelectorAll("video")];
await Promise.all(videos.map(v => v.readyState >= 2 ? 0 : new Promise(done => { v.onloadeddata = v.onerror = done; v.load(); })));
document.title = JSON.stringify({plots: document.querySelectorAll("svg polyline").length, videos: videos.length,
  playable: videos.filter(v => v.videoWidth > 0 && v.duration > 0 && !v.error).length,
  requests: performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length,
  cells: document.querySelectorAll("td").length}); });</script>"""


@pytest.fixture
def report():
    def row(system, group, mean):
        return {
            "system": system, "group": group, "metric": "psnr", "mean": mean, "low": mean - 1, "high": mean + 1,
            "sd": 1.0, "n": 5, "skipped": 0, "resolution": "64x64", "seed_sd": None,
        }  # fmt: skip

    return {
        "protocol": "p", "title": "A <b>title</b>", "systems": [{"name": "one"}, {"name": "two & more"}],
        "groups": {"30": {"angle_deg": 30.0}, "60": {"angle_deg": 60.0}}, "settings": {"note": "x < y"}, "items": [],
        "summary": [row(s, g, 20.0 + i + 5 * j) for i, s in enumerate(("one", "two & more")) for j, g in enumerate(("30", "60"))],
        "failures": [{"system": "one", "item": "cat", "problem": "3 frames, the reference has 4"}],
        "cautions": ["care"], "published": {}, "versions": {"ex4d": "0"},
    }  # fmt: skip


def clip():
    frames = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)
    return Clip("one, cat", side_by_side([frames, frames]), Fraction(12))


def test_the_page_holds_everything_itself(report):
    text = page(report, [clip()])
    assert text.count("<svg") == 1 and text.count("data:video/mp4;base64,") == 1
    assert "<b>title" not in text and "two &amp; more" in text and "x &lt; y" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)|url\(|@import|https?://""", text)


def test_markdown_names_the_best_system_and_the_problems(report):
    text = markdown(report)
    assert "**21.00 (20.00 to 22.00), n 5**" in text and "cat: 3 frames" in text and "- care" in text


def test_files_are_written_whole(report, tmp_path):
    paths = write_report(report, tmp_path, [clip()])
    assert [p.name for p in paths] == ["report.json", "report.md", "report.html"]
    assert json.loads(paths[0].read_text())["protocol"] == "p"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths)


def test_a_plot_survives_one_point_missing_values_and_flat_lines():
    nan = float("nan")
    assert line_plot("t", {"a": [Point(0, nan, nan, nan)]}, "x", "y") == ""
    flat = line_plot("t", {"a": [Point(0, 1, 1, 1), Point(1, 1, nan, nan)], "b": []}, "x", "y")
    assert flat.count("<circle") == 2 and "nan" not in re.sub(r"<title>.*?</title>", "", flat)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian's package of that name)")
def test_chromium_shows_plots_and_clips_without_any_request(report, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page(report, [clip(), clip()]).replace("</body>", PROBE + "</body>"))
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}/profile",
        "--virtual-time-budget=8000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, done.stderr[-500:]
    found = json.loads(title.group(1))
    assert found == {"plots": 2, "videos": 2, "playable": 2, "requests": 0, "cells": found["cells"]}
    assert found["cells"] >= 6
