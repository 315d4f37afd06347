"""Putting generated pixels beside observed ones: nothing observed changes, tones meet, and nothing leaves the range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ex4d.generators.nano.blend import MAX_DRIFT, composed, drift, sharpened

sides = st.integers(1, 40)


def scene(seed, h, w, share):
    rng = np.random.default_rng(seed)
    filled, generated = rng.integers(0, 256, (2, h, w, 3)).astype(np.uint8)
    known = np.kron(rng.random((-(-h // 4), -(-w // 4))) < share, np.ones((4, 4), bool))[:h, :w].astype(bool)
    return filled, generated, known


@given(st.integers(0, 999), sides, sides, st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.floats(0, 9), st.integers(8, 24))
def test_known_pixels_stay_bit_for_bit_and_the_rest_stays_in_range(seed, h, w, share, feather_px, small):
    filled, _, known = scene(seed, h, w, share)
    wild = np.random.default_rng(seed).normal(128, 200, (small, small, 3)).astype(np.float32)
    before = filled.copy()
    out = composed(wild, filled, known, feather_px)
    assert out.dtype == np.uint8 and out.shape == filled.shape
    np.testing.assert_array_equal(out[known], filled[known])
    np.testing.assert_array_equal(filled, before)


@given(st.integers(0, 999), sides, sides, st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_the_correction_is_small_smooth_and_zero_without_knowledge(seed, h, w, share):
    filled, generated, known = scene(seed, h, w, share)
    out = drift(generated, filled, known)
    assert out.dtype == np.float32 and out.shape == filled.shape and np.abs(out).max() <= MAX_DRIFT + 1e-3
    if not known.any():
        assert not out.any()
    np.testing.assert_array_equal(drift(filled, filled, known), 0)


@given(st.integers(0, 999), st.integers(20, 70), st.integers(20, 70), st.integers(-20, 20))
def test_a_shift_of_all_colours_is_undone_where_anything_is_known(seed, h, w, levels):
    filled, _, known = scene(seed, h, w, 0.6)
    filled = np.clip(filled, 24, 230)
    known[0, 0] = True
    generated = (filled.astype(int) + levels).astype(np.uint8)
    np.testing.assert_allclose(generated + drift(generated, filled, known), filled, atol=0.01)


def test_without_a_hole_nothing_is_made():
    filled, generated, _ = scene(0, 12, 16, 1.0)
    assert composed(generated.astype(np.float32), filled, np.ones((12, 16), bool), 2.0) is filled


def test_a_slow_drift_of_the_rim_reaches_into_the_hole():
    """A ramp of tone over the picture, as an autoencoder leaves it: at least halved inside the hole."""
    filled = np.full((96, 128, 3), 120, np.uint8)
    ramp = np.linspace(-10, 10, 128)[None, :, None]
    generated = np.rint(filled + ramp).astype(np.uint8)
    known = np.ones((96, 128), bool)
    known[24:72, 40:88] = False
    after = np.abs(generated + drift(generated, filled, known) - filled)[~known].mean()
    assert after < 0.5 * np.abs(generated.astype(int) - filled)[~known].mean()


@pytest.mark.parametrize("feather_px", [1.0, 4.0, 9.0])
def test_generated_pixels_start_with_the_tone_of_the_rim(feather_px):
    filled, known = np.full((9, 40, 3), 100, np.uint8), np.ones((9, 40), bool)
    known[:, 20:] = False
    row = composed(np.full((9, 40, 3), 150, np.float32), filled, known, feather_px)[4, :, 0].astype(int)
    assert (row[:20] == 100).all() and (np.diff(row[19:]) >= 0).all() and row[-1] == 150
    assert np.diff(row).max() <= 50 / feather_px + 1


@given(st.integers(0, 2**32 - 1), st.floats(1.0, 12.0))
def test_where_the_model_shows_what_was_seen_nothing_spreads_into_the_hole(seed, feather_px):
    """A hole beside an object: the fill's colours in the hole do not matter, nor does the object's."""
    rng = np.random.default_rng(seed)
    filled = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    known = rng.random((24, 32)) < 0.6
    generated = filled.astype(np.float32)
    generated[~known] = 77
    out = composed(generated, filled, known, feather_px)
    assert (out[known] == filled[known]).all() and (out[~known] == 77).all()


@given(st.integers(0, 2**32 - 1))
def test_a_part_around_the_hole_is_enough(seed):
    """Twin: the same picture with a known pixel flipped far away, which makes the part the whole picture."""
    rng = np.random.default_rng(seed)
    filled = rng.integers(0, 256, (40, 48, 3)).astype(np.uint8)
    known = np.ones((40, 48), bool)
    known[14:24, 16:30] = rng.random((10, 14)) < 0.3
    generated = rng.uniform(0, 255, (40, 48, 3)).astype(np.float32)
    far = known.copy()
    far[0, 0] = far[39, 47] = False
    small, whole = composed(generated, filled, known, 5.0), composed(generated, filled, far, 5.0)
    assert np.abs(small[8:30, 10:36].astype(int) - whole[8:30, 10:36]).max() <= 1


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 2.0))
def test_sharpening_keeps_flat_parts_and_raises_detail(seed, amount):
    rng = np.random.default_rng(seed)
    frame = rng.uniform(0, 255, (24, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(sharpened(frame, 0.0), frame)
    flat = np.full_like(frame, frame[0, 0])
    np.testing.assert_allclose(sharpened(flat, amount), flat, atol=1e-2)
    out = sharpened(frame, amount)
    assert np.abs(np.diff(out, axis=1)).mean() >= np.abs(np.diff(frame, axis=1)).mean() - 1e-3
    np.testing.assert_allclose(sharpened(2 * frame, amount), 2 * out, rtol=1e-3, atol=1e-2)
