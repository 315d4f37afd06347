"""Scores of completed holes: each planted fault moves its measure the right way, seen pixels change nothing, twins agree."""

import cv2
import numpy as np
import pytest

from ex4d.evaluate.metrics import image
from ex4d.evaluate.metrics.consistency import excess_flicker
from ex4d.evaluate.metrics.holes import Motion, score_holes

FRAMES, HEIGHT, WIDTH = 5, 48, 64


@pytest.fixture(scope="module")
def truth():
    """Smooth texture that moves two pixels a frame."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (HEIGHT, WIDTH + 2 * FRAMES, 3)).astype(np.float32), (0, 0), 1.5)
    wide = (wide - wide.min()) / np.ptp(wide) * 255
    return np.stack([wide[:, 2 * t : 2 * t + WIDTH] for t in range(FRAMES)]).astype(np.uint8)


@pytest.fixture(scope="module")
def motion(truth):
    flow = np.zeros((FRAMES - 1, HEIGHT, WIDTH, 2), np.float32)
    flow[..., 0] = -2
    return Motion(flow, np.ones((FRAMES - 1, HEIGHT, WIDTH), bool))


@pytest.fixture(scope="module")
def holes():
    holes = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    holes[:, 8:40, 10:54] = True
    return holes


def noised(truth, sigma=20, seed=1):
    return np.clip(truth + np.random.default_rng(seed).normal(0, sigma, truth.shape), 0, 255).astype(np.uint8)


def blurred(truth):
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 2.5) for frame in truth])


def test_the_truth_is_perfect(truth, holes, motion):
    score = score_holes(truth, truth, holes, motion)
    assert score.psnr == np.inf and score.ms_ssim == pytest.approx(1) and score.gmsd == 0
    assert score.sharpness == pytest.approx(1) and score.boiling == 0 and score.flicker == 0


@pytest.mark.parametrize("fault", ["blurred", "noised", "shifted", "black"])
def test_a_fault_costs_psnr_ms_ssim_and_gmsd(truth, holes, motion, fault):
    made = {
        "blurred": blurred(truth),
        "noised": noised(truth),
        "shifted": np.roll(truth, 3, axis=2),
        "black": np.zeros_like(truth),
    }[fault]
    slight = (0.8 * truth + 0.2 * made.astype(np.float32)).astype(np.uint8)
    bad, less = (score_holes(x, truth, holes, motion) for x in (made, slight))
    assert bad.psnr < less.psnr < np.inf and bad.ms_ssim < less.ms_ssim < 1
    assert less.gmsd > 0 and (fault == "black" or bad.gmsd > less.gmsd)  # a flat picture is evenly dissimilar


def test_blur_lowers_sharpness_and_noise_raises_it(truth, holes, motion):
    assert score_holes(blurred(truth), truth, holes, motion).sharpness < 0.7
    assert score_holes(noised(truth, 40), truth, holes, motion).sharpness > 1.3
    assert score_holes(np.zeros_like(truth), truth, holes, motion).sharpness == 0
    seam = np.clip(truth.astype(int) + 40, 0, 255).astype(np.uint8)
    unclipped = holes & (truth < 215).all(-1) & (truth > 0).all(-1)
    assert score_holes(seam, truth, unclipped, motion).sharpness == pytest.approx(1, abs=1e-6)


def test_flicker_forgives_what_stays_on_its_surface_and_nothing_else(truth, holes, motion):
    stuck = np.clip(truth.astype(int) // 2 + 30, 0, 255).astype(np.uint8)  # wrong everywhere, moves with the surface
    boiling = np.clip(truth + np.array([0, 12, 0, 12, 0])[:, None, None, None], 0, 255).astype(np.uint8)
    still = np.broadcast_to(stuck[:1], stuck.shape)  # slides over its surface
    score = {
        n: score_holes(x, truth, holes, motion) for n, x in (("stuck", stuck), ("boiling", boiling), ("still", still))
    }
    assert score["stuck"].boiling < 1 and score["stuck"].psnr < score["boiling"].psnr
    assert score["boiling"].boiling == pytest.approx(12, abs=1) and score["boiling"].flicker == pytest.approx(12, abs=1)
    assert score["still"].boiling > 5 * score["stuck"].boiling
    assert score["stuck"].flicker > 3 * score["stuck"].boiling  # without following the motion it would be punished


def test_estimated_motion_finds_the_true_one(truth, holes, motion):
    found = Motion.of(truth)
    inner = (slice(None), slice(8, -8), slice(12, -12))
    assert np.median(np.abs(found.flow[inner] - motion.flow[inner])) < 0.3 and found.visible[inner].mean() > 0.9
    empty = Motion.of(truth[:1])
    assert np.isnan(score_holes(truth[:1], truth[:1], holes[:1], empty).boiling)


def test_seen_pixels_change_nothing(truth, holes, motion):
    made = noised(truth)
    other = np.where(holes[..., None], made, np.random.default_rng(5).integers(0, 256, truth.shape)).astype(np.uint8)
    assert score_holes(other, truth, holes, motion) == score_holes(made, truth, holes, motion)
    assert score_holes(np.where(holes[..., None], truth, other), truth, holes, motion).psnr == np.inf


def test_when_everything_is_a_hole_the_scores_are_those_of_the_whole_picture():
    rng = np.random.default_rng(2)
    truth = cv2.GaussianBlur(rng.uniform(0, 255, (176, 192, 3)).astype(np.float32), (0, 0), 2)[None].astype(np.uint8)
    truth = np.concatenate([truth, truth[:, ::-1]])
    made, everything = noised(truth), np.ones(truth.shape[:3], bool)
    score = score_holes(made, truth, everything, Motion.of(truth))
    assert score.psnr == pytest.approx(image.psnr(made, truth))
    assert score.gmsd == pytest.approx(np.mean([image.gmsd(a, b) for a, b in zip(made, truth, strict=True)]))
    assert score.flicker == pytest.approx(255 * excess_flicker(made, truth))
    for border in (False, True):
        whole = image.ms_ssim(made[0], truth[0], border=border)
        assert image.ms_ssim(made[0], truth[0], everything[0], border) == pytest.approx(whole, abs=1e-12)
    frames = [image.ms_ssim(a, b, border=True) for a, b in zip(made, truth, strict=True)]
    assert score.ms_ssim == pytest.approx(np.mean(frames))


def test_frames_count_by_their_hole_pixels_and_none_gives_nan(truth, holes, motion):
    made, few = noised(truth), holes.copy()
    few[1:, :, 14:] = False
    scores = [
        score_holes(made[t : t + 1], truth[t : t + 1], few[t : t + 1], Motion.of(truth[:1])) for t in range(FRAMES)
    ]
    weights = few.sum((1, 2))
    expected = np.average([s.gmsd for s in scores], weights=weights)
    assert score_holes(made, truth, few, motion).gmsd == pytest.approx(expected)
    assert score_holes(made, truth, few, motion, every=4).gmsd == pytest.approx(
        np.average([scores[0].gmsd, scores[4].gmsd], weights=weights[[0, 4]])
    )
    nothing = score_holes(made, truth, np.zeros_like(holes), motion)
    assert all(np.isnan(value) for value in vars(nothing).values())
