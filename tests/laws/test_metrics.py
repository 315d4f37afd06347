"""Metrics agree with skimage, torchmetrics and scipy, with closed forms, and move the right way under planted faults."""

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ex4d.errors import InputError
from ex4d.evaluate.metrics import image
from ex4d.evaluate.metrics.camera import camera_error, error_where_placed
from ex4d.evaluate.metrics.consistency import excess_flicker, flicker, warp_error
from ex4d.evaluate.metrics.distribution import frechet_distance, frechet_of_moments, kernel_distance
from ex4d.evaluate.metrics.masks import mask_score
from ex4d.evaluate.metrics.statistics import paired_difference, proportion, summarize
from ex4d.geometry.frames import look_at


def pictures(seed, size=(48, 57), noise=30):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    b = np.clip(a + rng.normal(0, noise, a.shape), 0, 255).astype(np.uint8)
    return a, b


@given(st.integers(0, 10**6), st.floats(1, 80))
@settings(max_examples=15, deadline=None)
def test_psnr_and_ssim_equal_skimage(seed, noise):
    a, b = pictures(seed, noise=noise)
    assert image.psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-5)
    theirs = structural_similarity(
        a, b, channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert image.ssim(a, b) == pytest.approx(theirs, abs=1e-5)


def test_ssim_and_ms_ssim_equal_torchmetrics():
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        structural_similarity_index_measure,
    )

    for seed in range(3):
        a, b = pictures(seed, (176, 192), noise=40)
        ta, tb = (torch.from_numpy(x).permute(2, 0, 1)[None].double() for x in (a, b))
        ours, theirs = image.ssim(a, b, border=True), structural_similarity_index_measure(ta, tb, data_range=255.0)
        assert ours == pytest.approx(float(theirs), abs=1e-5)
        theirs = multiscale_structural_similarity_index_measure(ta, tb, data_range=255.0)
        assert image.ms_ssim(a, b) == pytest.approx(float(theirs), abs=1e-5)


def test_gmsd_equals_its_definition_written_with_scipy():
    def luma(x):
        return x.astype(float) @ [0.299, 0.587, 0.114]

    def gradient(y):
        y = scipy.signal.convolve2d(y, np.full((2, 2), 0.25))[1:, 1:][::2, ::2]  # MATLAB's 'same' of an even kernel
        kernel = np.array([[1, 0, -1]] * 3) / 3
        return np.hypot(*(scipy.signal.convolve2d(y, k, "same") for k in (kernel, kernel.T)))

    for size in ((48, 57), (33, 20)):
        a, b = pictures(1, size)
        ga, gb = gradient(luma(a)), gradient(luma(b))
        theirs = np.std((2 * ga * gb + 170) / (ga**2 + gb**2 + 170), ddof=1)
        assert image.gmsd(a, b) == pytest.approx(
            theirs, abs=0.02
        )  # MATLAB centres the 2x2 mean to the lower right, scipy not
        assert image.gmsd(a, a) == 0


def test_a_full_mask_changes_nothing_and_an_empty_one_gives_nan():
    a, b = pictures(3)
    full, empty = np.ones(a.shape[:2], bool), np.zeros(a.shape[:2], bool)
    for metric in (image.psnr, image.ssim, image.gmsd):
        assert metric(a, b, full) == pytest.approx(metric(a, b), abs=1e-12)
        assert np.isnan(metric(a, b, empty))


def test_a_mask_restricts_psnr_to_its_pixels():
    a, b = pictures(4)
    mask = np.random.default_rng(0).uniform(size=a.shape[:2]) < 0.3
    assert image.psnr(a, b, mask) == pytest.approx(peak_signal_noise_ratio(a[mask], b[mask], data_range=255), abs=1e-5)


def test_frechet_distance_of_known_gaussians_is_the_closed_form():
    mean = np.array([1.0, -2.0, 0.5])
    var_a, var_b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 16.0])
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    cov_a, cov_b = (rotation @ np.diag(v) @ rotation.T for v in (var_a, var_b))
    expected = (mean**2).sum() + ((np.sqrt(var_a) - np.sqrt(var_b)) ** 2).sum()
    assert frechet_of_moments(mean, cov_a, np.zeros(3), cov_b) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(400, 300, 24), (20, 30, 64)])
def test_frechet_distance_equals_the_published_formula_on_fixed_arrays(n, m, d):
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((n, d)), rng.standard_normal((m, d)) * 1.3 + 0.4
    sa, sb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(sa @ sb))  # the form of pytorch-fid, StyleGAN and the FVD code
    theirs = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sa + sb - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-5)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


def test_frechet_and_kernel_distance_equal_torchmetrics():
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.kid import poly_mmd

    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((200, 16)), rng.standard_normal((200, 16)) + 0.5
    moments = [torch.from_numpy(x) for p in (a, b) for x in (p.mean(0), np.cov(p, rowvar=False))]
    assert frechet_distance(a, b) == pytest.approx(float(_compute_fid(*moments)), rel=1e-5)
    theirs = float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b), degree=3, gamma=None, coef=1.0))
    assert kernel_distance(a, b)[0] == pytest.approx(theirs, abs=1e-5)
    mean, spread = kernel_distance(a, b, subset=50)
    assert mean == pytest.approx(theirs, abs=0.2) and spread > 0


def test_features_of_two_networks_are_refused():
    with pytest.raises(InputError, match="one feature network"):
        frechet_distance(np.zeros((5, 3)), np.zeros((5, 4)))


def path_of(angles, radius=2.0):
    eye = np.stack([radius * np.sin(angles), np.zeros_like(angles), radius * (1 - np.cos(angles))], -1)
    return look_at(eye, np.tile([0.0, 0.0, radius], (len(angles), 1)))


@given(st.floats(0.1, 10), st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_camera_error_ignores_what_its_alignment_removes(scale, turn):
    true = path_of(np.linspace(0, 1, 9))
    moved = true.copy()
    moved[:, :3, 3] *= scale
    world = np.eye(4)
    world[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    moved = moved @ world
    for alignment in ("last", "umeyama"):
        error = camera_error(moved, true, alignment)
        assert max(error[:4]) < 1e-4
    if abs(scale - 1) > 0.1:
        assert camera_error(moved, true, "none").trans > 1e-3


def test_a_turned_camera_has_exactly_that_rotation_error():
    true = path_of(np.linspace(0, 1, 5))
    off = true.copy()
    a = np.radians(3.0)
    off[1:, :3, :3] = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]) @ true[1:, :3, :3]
    error = camera_error(off, true)
    assert error.rot_deg == pytest.approx(3 * 4 / 5, abs=1e-9)
    assert error.rot_pairs_deg == pytest.approx(3 * 8 / 20, abs=0.2)


def test_unplaced_frames_are_counted_not_scored():
    true = path_of(np.linspace(0, 1, 6))
    estimate = true.copy()
    estimate[3] = np.nan
    error, share = error_where_placed(estimate, true)
    assert error is not None and error.rot_deg < 1e-5 and share == pytest.approx(5 / 6)
    assert error_where_placed(np.full_like(true, np.nan), true) == (None, 0.0)


def clip(num_frames=6, size=64):
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(30, 226, (size // 8, size // 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    return np.stack([wide[:size, 2 * t : 2 * t + size] for t in range(num_frames)])


def test_planted_faults_move_every_metric_the_right_way():
    """One row a fault, one column a metric: '+' where it must get worse than on the truth."""
    truth = clip()
    rng = np.random.default_rng(1)
    blurred = np.stack(
        [np.round(sum(np.roll(f.astype(float), s, (0, 1)) for s in range(5)) / 5) for f in truth]
    ).astype(np.uint8)
    noisy = np.clip(truth + rng.normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    flickering = np.clip(truth * np.where(np.arange(len(truth)) % 2, 0.8, 1.0)[:, None, None, None], 0, 255).astype(
        np.uint8
    )
    frozen = np.repeat(truth[:1], len(truth), 0)
    shifted = np.roll(truth, 3, axis=2)
    metrics = {
        "PSNR": lambda x: -np.mean([min(image.psnr(a, b), 100) for a, b in zip(x, truth, strict=True)]),
        "SSIM": lambda x: -np.mean([image.ssim(a, b) for a, b in zip(x, truth, strict=True)]),
        "GMSD": lambda x: np.mean([image.gmsd(a, b) for a, b in zip(x, truth, strict=True)]),
        "excess flicker": lambda x: excess_flicker(x, truth),
        "flicker": flicker,
        "warp error": lambda x: warp_error(x, truth),
    }
    worse = {
        "blur": (blurred, ("PSNR", "SSIM", "GMSD")),
        "noise": (noisy, ("PSNR", "SSIM", "GMSD", "excess flicker", "flicker", "warp error")),
        "flicker": (flickering, ("PSNR", "SSIM", "excess flicker", "flicker", "warp error")),
        "frozen": (frozen, ("PSNR", "SSIM", "GMSD", "excess flicker", "warp error")),
        "shift 3 px": (shifted, ("PSNR", "SSIM", "GMSD")),
    }
    perfect = {name: metric(truth) for name, metric in metrics.items()}
    assert perfect["PSNR"] == -100 and perfect["SSIM"] == pytest.approx(-1) and perfect["GMSD"] == 0
    assert perfect["excess flicker"] == 0
    for fault, (damaged, columns) in worse.items():
        for column in columns:
            assert metrics[column](damaged) > perfect[column] + 1e-4, f"{column} does not notice {fault}"


def test_mask_scores():
    truth = np.zeros((10, 10), bool)
    truth[:, :5] = True
    assert mask_score(truth, truth)[:4] == (1, 1, 1, 1)
    claimed = np.zeros_like(truth)
    claimed[:, :4] = claimed[:, 9:] = True
    score = mask_score(claimed, truth)
    assert score.precision == pytest.approx(0.8) and score.recall == pytest.approx(0.8)
    assert score.iou == pytest.approx(40 / 60) and score.coverage == pytest.approx(0.5)
    assert np.isnan(mask_score(~truth & truth, ~truth & truth).f1)


def test_intervals_cover_the_mean_and_shrink_with_n():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(60):
        s = summarize(rng.normal(2, 1, 30), seed=seed)
        inside += s.low <= 2 <= s.high
    assert inside >= 51  # a 95 % percentile interval at n = 30 covers about 93 %
    assert summarize(rng.normal(0, 1, 400)).high < summarize(rng.normal(0, 1, 10)).high
    assert summarize([1.0, float("nan"), 3.0]).n == 2 and summarize([float("nan")]).n == 0
    grouped = summarize([1.0, 1.0, 1.0, 5.0], groups=["a", "a", "a", "b"])
    assert grouped.mean == 3 and grouped.n == 4
    assert paired_difference([3.0, 4.0], [1.0, 2.0]).mean == 2
    assert np.isnan(summarize([7.0]).low) and summarize([7.0]).mean == 7  # one clip says nothing about its spread


def test_proportions_have_wilson_intervals():
    s = proportion(707, 1000)
    assert s.mean == pytest.approx(0.707) and (s.low, s.high) == pytest.approx((0.6781, 0.7344), abs=2e-4)
    assert proportion(0, 5).low == pytest.approx(0, abs=1e-12)


def test_pairs_of_different_shapes_are_named():
    with pytest.raises(InputError, match="one shape"):
        image.psnr(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(InputError, match="161 px"):
        image.ms_ssim(*pictures(0))
