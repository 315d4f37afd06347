"""The measures of re-shot real clips, each on a made case whose answer is known."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d import CameraPath, DepthClip

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
H, W = 48, 64
K = np.array([[60, 0, W / 2], [0, 60, H / 2], [0, 0, 1]], np.float32)


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_path():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def still(frames, z=1.0):
    """Path of a camera that stays, depth of the source, and depth of the render."""
    path = CameraPath(
        np.stack([np.eye(4)] * frames), np.stack([K] * frames), (H, W), np.arange(frames, dtype=np.float64)
    )
    depth = DepthClip(np.full((frames, H, W), z, np.float32), np.stack([K] * frames))
    return path, depth, depth.depth.copy()


def textured(seed=0, h=H, w=W):
    import cv2

    noise = np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 1.5).astype(np.float32)
    return np.clip((soft - 128) * 3 + 128, 0, 255).astype(np.uint8)


def test_a_straight_outline_has_no_faults():
    from real_measures import mask_faults

    mask = np.ones((2, H, W), bool)
    mask[:, :, W // 2 :] = False
    assert mask_faults(mask) == (0, 0, 0)


def test_teeth_and_stripes_made_by_hand_are_counted():
    from real_measures import mask_faults

    mask = np.ones((1, H, W), bool)
    mask[:, :, W // 2 :] = False
    mask[0, 4::8, W // 2] = (
        True  # 6 teeth, one pixel long: the band is the two columns at the outline and four more either side
    )
    mask[0, 10::10, 8] = False  # 4 specks far from it
    odd, stripes, teeth = mask_faults(mask)
    assert teeth == pytest.approx(6 / (10 * H))
    assert stripes == pytest.approx(4 / (H * (W - 10)))
    assert odd == pytest.approx(10 / (H * W))


def test_a_surface_four_times_nearer_is_stretched_and_two_times_is_not():
    from real_measures import stretch

    path, depth, z = still(2)
    mask = np.ones((2, H, W), bool)
    assert stretch(mask, z, path, K, every=1) == 0
    poses = path.cam_from_world.copy()
    for t, distance in ((0, 0.5), (1, 0.25)):
        poses[t, 2, 3], z[t] = distance - 1, distance
    nearer = CameraPath(poses, path.K, (H, W), path.source_time)
    assert stretch(mask, z, nearer, K, every=1) == 0.5


def test_the_near_quarter_is_lost_where_the_mask_loses_it():
    from real_measures import kept_near

    path, depth, z = still(5, 2.0)
    depth.depth[:, :, : W // 4] = 1
    mask = np.ones((5, H, W), bool)
    assert kept_near(mask, depth.depth, path, depth) == 1
    mask[:, : H // 2] = False
    # one row more, as a shown pixel counts for its neighbours
    assert kept_near(mask, depth.depth, path, depth) == pytest.approx((H // 2 + 1) / H)


def test_flicker_is_the_change_of_level_on_seen_pixels():
    from real_measures import flicker_of_seen

    out = np.stack([np.clip(textured() // 2 + 60 + 10 * (t % 2), 0, 255).astype(np.uint8) for t in range(12)])
    mask = np.ones((12, H, W), bool)
    assert flicker_of_seen(np.stack([out[0]] * 12), mask) == pytest.approx(0, abs=0.02)
    assert flicker_of_seen(out, mask) == pytest.approx(10, abs=0.5)
    assert np.isnan(flicker_of_seen(out, ~mask))


def test_a_hole_with_half_the_contrast_is_half_as_sharp():
    from real_measures import sharpness

    bars = np.where(np.arange(W) % 8 < 4, 40, 120)[None, :, None] * np.ones((H, 1, 3))
    mask = np.ones((4, H, W), bool)
    mask[:, H // 2 :] = False
    picture = np.where(mask[0][..., None], bars, bars / 2).astype(np.uint8)
    assert sharpness(np.stack([picture] * 4), mask) == pytest.approx(0.5)


def test_the_fit_of_disparity_forgives_a_tenth():
    from real_trip import fit_disparity

    d = np.random.default_rng(0).uniform(0.2, 1, (20, 30))
    truth = 3 * d + 0.5
    truth[0, :30] += 9
    assert fit_disparity(d, truth, np.ones_like(d, bool)) == pytest.approx((3, 0.5), abs=0.05)


def test_the_trip_home_finds_a_change_of_level_and_a_depth_that_broke():
    from real_trip import trip_home

    frames = 9
    path, depth, z = still(frames)
    out = np.stack([textured() // 4 * 3 + 20] * frames)
    mask = np.ones((frames, H, W), bool)
    # a camera aside: with a wrong depth the way home is another one
    poses = path.cam_from_world.copy()
    poses[:, 0, 3] = -0.2
    aside = CameraPath(poses, path.K, (H, W), path.source_time)
    shifted = np.roll(out, 12, axis=2)  # 60 px * 0.2 / 1

    def good(video):
        ramp = np.broadcast_to(np.linspace(1.0, 1.001, W, dtype=np.float32), video.shape[:3]).copy()
        return ramp, np.stack([K] * len(video))

    own, _ = trip_home(out + 10, out, mask, z, path, depth, estimate=good)
    assert own == pytest.approx(20 * np.log10(255 / 10), abs=0.01)
    own, new = trip_home(shifted, out, mask, z, aside, depth, estimate=good)
    assert own > 35 and new > 35
    slanted = np.broadcast_to(np.linspace(0.5, 1.5, W, dtype=np.float32), z.shape).copy()
    own, new = trip_home(shifted, out, mask, slanted, aside, depth, estimate=lambda video: (slanted, path.K))
    assert own < 28 and new < 28


def test_a_mover_as_near_as_its_wall_is_a_ghost_in_the_plate():
    from real_run import ghosts

    wall = textured(1) // 2 + 20
    with_mover = wall.copy()
    with_mover[10:30, 20:40] = 250
    source = np.stack([with_mover] * 8 + [wall] * 4)
    whole = np.stack([with_mover] * 8 + [wall] * 52)
    flat = DepthClip(np.full((12, H, W), 2, np.float32), np.stack([K] * 12))
    assert ghosts(source, flat, whole) == (1, 1)
    near = flat.depth.copy()
    near[:8, 10:30, 20:40] = 1
    assert ghosts(source, DepthClip(near, flat.K), whole) == (1, 0)


def test_pivot_and_range_are_those_of_the_depth():
    from real_measures import disparity_range
    from real_run import pivot

    _, depth, _ = still(2, 3.0)
    depth.depth[:, : H // 5] = 1
    assert pivot(depth) == pytest.approx(3)
    assert disparity_range(depth) == pytest.approx(3)


def test_a_table_leaves_out_what_no_clip_has_and_keeps_three_digits():
    from real_clips import mean, table

    rows = {
        "a": {"hole": 0.25, "trip_new": 18.04, "ghost": float("nan")},
        "b": {"hole": 0.75, "trip_new": 20.04, "ghost": 0.5},
    }
    assert mean(rows)["hole"] == 0.5 and mean(rows)["ghost"] == 0.5
    lines = table({**rows, "MEAN": mean(rows)}).splitlines()
    assert lines[-1].startswith("| MEAN | 0.500 |") and "| 19.0 |" in lines[-1] and lines[-1].count(" - ") > 5


@pytest.mark.slow
def test_a_folder_of_clips_ends_in_tables_with_a_row_of_flat_depth(tmp_path, capsys, monkeypatch):
    import real_clips
    import real_run

    from ex4d.io.video.write import VideoWriter

    monkeypatch.setattr(real_run, "FRAMES", 10)
    monkeypatch.setattr(real_run, "SHORT_PX", 48)
    (tmp_path / "clips").mkdir()
    wide = textured(2, 48, 120)
    with VideoWriter(tmp_path / "clips" / "pan.mkv", Fraction(10), lossless=True) as writer:
        writer.write(np.stack([wide[:, t : t + 64] for t in range(10)]))
    words = [
        str(tmp_path / "clips"),
        str(tmp_path / "runs"),
        "--paths",
        "orbit:20",
        "orbit:40",
        "--extra=--depth plane --preset fill",
    ]
    assert real_clips.main([*words, "--no-trip", "--out", str(tmp_path / "t.md"), "--sheets"]) == 0
    text = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert text.count("| MEAN, --depth plane |") == 2 and text.count("| pan |") == 2
    assert (tmp_path / "runs" / "sheets" / "pan_orbit_40.png").stat().st_size > 1000
    assert (tmp_path / "runs" / "plane" / "pan" / "orbit_20" / "measured.json").exists()
