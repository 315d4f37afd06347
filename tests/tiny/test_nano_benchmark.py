"""The quality benchmark of the embedded model at a tiny size: staging, rivals, candidates with random weights, bars, ablation."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nano_made import trained

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PX, FRAMES = 48, 5
SMALL = [
    "--px",
    str(PX),
    "--frames",
    str(FRAMES),
    "--seeds",
    "100500:100501",
    "--angles",
    "60",
    "--workers",
    "0",
    "--threads",
    "1",
]


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCHMARKS))
    import nano
    import nano_cases
    import nano_methods
    import nano_report

    yield nano, nano_cases, nano_methods, nano_report
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def cache(bench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    plan = bench[1].Plan(folder, (60,), PX, FRAMES, plain=True)
    bench[1].stage(plan, range(100_500, 100_501), None, 0)
    return folder, plan


def case_of(bench, cache):
    return bench[1].load(cache[1].path("scene", 100_500, 60))


def test_holding_keeps_what_was_seen_last_and_never_invents(bench):
    color = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((4, 3, 4, 3), np.uint8) + 10
    holes = np.zeros((4, 3, 4), bool)
    holes[1:3, 1, 1] = True
    holes[:, 0, 0] = True
    color[:, 0, 1:] = 77
    color[:, 1, 0] = 77
    out = bench[2].hold_last(color, holes)
    assert (out[:, 1, 1, 0] == [10, 10, 10, 13]).all() and (out[:, 0, 0] == 77).all()
    assert (out[~holes] == color[~holes]).all()
    assert bench[2].hold_last(color[:1], np.ones((1, 3, 4), bool)).shape == (1, 3, 4, 3)


def test_rivals_keep_seen_pixels_and_a_staged_case_is_whole(bench, cache):
    case = case_of(bench, cache)
    assert case.group == "60" and case.holes.any() and not case.holes.all() and not (case.invented & ~case.holes).any()
    assert not case.color[case.holes].any() and case.truth.shape == case.filled.shape == (FRAMES, PX, PX, 3)
    for method in bench[2].RIVALS:
        np.testing.assert_array_equal(bench[2].completed(method, case)[~case.holes], case.color[~case.holes])
    plain = bench[1].load(cache[1].path("plain", 100_500, 60))
    assert plain.holes.sum() < case.holes.sum() and not (plain.holes & ~case.holes).any()


def test_a_still_clip_lends_what_other_times_show_and_a_moving_one_nothing(bench):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
    frames, holes = np.repeat(picture[None], 6, 0), np.zeros((6, 20, 24), bool)
    frames[2:, 3, 3] = (np.arange(4) * 60)[:, None]  # something passes
    holes[:, 10:, 10:] = True
    holes[:3, 12, 12] = False
    plate, steady = bench[1].still_background(frames, holes)
    assert steady[12, 12] and not steady[15, 15] and not steady[3, 3]
    np.testing.assert_array_equal(plate[steady], picture[steady])
    moving = rng.integers(0, 256, frames.shape).astype(np.uint8)
    assert not bench[1].still_background(moving, holes)[1].any()


def test_a_stored_fill_gives_the_bytes_of_the_whole_line(bench, cache, tmp_path):
    from ex4d.evaluate.rendered.geometry import family_of
    from ex4d.generators.nano.generator import Nano
    from ex4d.pipeline.config import RenderOptions
    from ex4d.pipeline.line import generate, reconstruct
    from ex4d.scenes.scene import make_scene

    case = case_of(bench, cache)
    scene = make_scene(100_500, family_of(100_500), FRAMES)
    video, depth = scene.source_clip((PX, PX))
    far = 1.5 * depth.depth[np.isfinite(depth.depth)].max()
    depth = replace(depth, depth=np.where(np.isfinite(depth.depth), depth.depth, far).astype(np.float32))
    render = reconstruct(video, depth, scene.orbit(60, (PX, PX)), RenderOptions(rasterizer="cpu"))
    trained(tmp_path)
    parts = bench[2].parts_of(tmp_path, True, "cpu")
    np.testing.assert_array_equal(render.mask, ~case.holes)
    whole = generate(render, Nano("draft", parts=parts), seed=3).frames
    np.testing.assert_array_equal(bench[2].Model.parse("draft").run(parts, case, 3), whole)


def test_the_command_scores_candidates_and_says_which_bars_are_missed(bench, cache, tmp_path, capsys):
    trained(tmp_path / "run")
    out = tmp_path / "nano.md"
    methods = "black,telea,hold,fill,ceiling,default,best,base"
    given = [
        *SMALL,
        "--threads",
        "1",
        "--cache",
        str(cache[0]),
        "--weights",
        str(tmp_path / "run"),
        "--pictures",
        str(tmp_path / "png"),
    ]
    assert bench[0].main([*given, "--methods", methods, "--out", str(out)]) == 0
    data, text = json.loads(out.with_suffix(".json").read_text()), out.read_text()
    assert data["methods"] == methods.split(",") and len(data["rows"]) == 8 and text in capsys.readouterr().out
    assert any(not bar["met"] for bar in data["bars"]["holes"]) and "**missed**" in text
    assert len(list((tmp_path / "png").glob("*.png"))) == 3
    rows = {(r["seed"], r["method"]): r for r in data["rows"]}
    assert rows[100500, "default"]["holes"] != rows[100500, "base"]["holes"]
    kept = sorted(cache[0].rglob("fill_1_*.json"))
    assert len(kept) == 1 and json.loads(kept[0].read_text())["holes"] == rows[100500, "fill"]["holes"]


def test_the_ablation_compares_adapters_and_masks(bench, cache, tmp_path):
    trained(tmp_path / "run")
    out = tmp_path / "ablation.md"
    given = [*SMALL, "--cache", str(cache[0]), "--weights", str(tmp_path / "run")]
    assert bench[0].main([*given, "--ablation", "--out", str(out)]) == 0
    text = out.read_text()
    for name in ("with adapter | watertight", "with adapter | plain", "base alone | watertight", "fill | plain"):
        assert name in text
    assert len(json.loads(out.with_suffix(".json").read_text())["rows"]) == 2 * 2 * 3 + 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--seeds", "5:7"], "seeds 5:7"),
        (["--seeds", "100500:100501", "--weights", "nowhere"], "no folder nowhere"),
        (["--seeds", "100500:100501", "--methods", "fast"], "method 'fast'"),
    ],
)
def test_bad_input_is_one_line(bench, cache, tmp_path, capsys, given, words):
    out = tmp_path / "no.md"
    tiny = ["--px", str(PX), "--frames", str(FRAMES), "--angles", "60", "--workers", "0", "--threads", "1"]
    assert bench[0].main(["--cache", str(cache[0]), "--out", str(out), *tiny, *given]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert words in error[-1] and not out.exists()


def row(method, seed, group="30", **scores):
    base = {"psnr": 20.0, "ms_ssim": 0.5, "gmsd": 0.2, "sharpness": 0.7, "flicker": 5.0, "boiling": 3.0} | scores
    return {"case": "c", "group": group, "seed": seed, "method": method, "noise": 0, "share": {"holes": 0.3, "invented": 0.2},
            "holes": base, "invented": base}  # fmt: skip


def test_each_bar_turns_on_its_own_measure(bench):
    report = bench[3]

    def missed(default=None, best=None):
        rows = [row(m, s) for m in ("black", "telea", "hold", "fill") for s in (1, 2)]
        good = {"psnr": 21.0, "ms_ssim": 0.6, "gmsd": 0.1, "flicker": 4.0, "boiling": 2.0}
        rows += [row("default", s, **(good | (default or {}))) for s in (1, 2)]
        rows += [row("best", s, **(good | (best or {}))) for s in (1, 2)]
        assert "2/2" in report.report(rows, "")
        return [bar["bar"] for bar in report.bars(rows, "holes") if not bar["met"]]

    assert missed() == []
    assert len(missed({"ms_ssim": 0.5})) == 4 and missed({"psnr": 20.0}) == [] and len(missed({"psnr": 19.9})) == 4
    assert any("GMSD better" in m for m in missed({"gmsd": 0.2}, {"gmsd": 0.2}))
    assert [m for m in missed({"flicker": 5.1}) if "flicker" in m] and missed({"flicker": 5.0}) == []
    assert missed(best={"sharpness": 0.59}) == ["best sharpness"] and len(missed(best={"gmsd": 0.11})) == 1
