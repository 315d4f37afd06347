"""Texture continued into holes: it comes from what was seen, moves with it, and is the same each time."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.generators.nano.detail import KEYS, Detail, _drawn, _Patches
from ex4d.generators.nano.detail_bank import COLORS, blur, features

sides = st.integers(1, 90)


def texture(h, w, seed=0, contrast=30.0):
    """One material: the same colour everywhere, and a grain of about 2 px."""
    grain = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (h, w)).astype(np.float32), (0, 0), 1.2)
    return np.clip(120 + contrast * grain[..., None] / grain.std() * np.ones(3), 0, 255).astype(np.uint8)


def hole(h, w, y=slice(30, 66), x=slice(60, 100)):
    known = np.ones((h, w), bool)
    known[y, x] = False
    return known


def run(frames, known, generated=None):
    detail, made = Detail(), frames if generated is None else generated
    return np.stack([detail.next(g.astype(np.float32), f, k) for g, f, k in zip(made, frames, known, strict=True)])


def soft(frames):
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 6) for frame in frames])


@settings(max_examples=25)
@given(st.integers(0, 99), sides, sides, st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_any_size_and_any_hole_and_nothing_where_known(seed, h, w, share):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (3, h, w, 3)).astype(np.uint8)
    blocks = rng.random((3, -(-h // 16), -(-w // 16))) < share
    known = np.kron(blocks, np.ones((1, 16, 16), bool))[:, :h, :w].astype(bool)
    before = frames.copy()
    out = run(frames, known)
    assert out.shape == frames.shape and out.dtype == np.float32 and np.isfinite(out).all()
    assert not out[known].any()
    np.testing.assert_array_equal(frames, before)


def test_no_detail_seen_means_none_made():
    frames = np.full((4, 96, 128, 3), 90, np.uint8)
    known = np.stack([hole(96, 128)] * 4)
    assert np.abs(run(frames, known)).max() < 1e-2


def test_nothing_seen_means_none_made():
    frames = np.stack([texture(96, 128)] * 2)
    assert not run(frames, np.zeros((2, 96, 128), bool)).any()


def test_a_soft_hole_gets_the_grain_around_it_and_a_sharp_one_stays():
    frames = np.stack([texture(96, 128)] * 2)
    known = np.stack([hole(96, 128)] * 2)
    inner = ~cv2.dilate(known[0].astype(np.uint8), np.ones((9, 9))).astype(bool)
    added = run(frames, known, soft(frames))[-1]
    high = frames[0] - blur(frames[0].astype(np.float32), 4.0)
    assert 0.25 < added[inner].std() / high[inner].std() < 1
    assert run(frames, known)[-1][inner].std() < 0.4 * added[inner].std()


def test_the_material_of_the_same_colour_lends_its_grain():
    """Left half smooth and dark, right half grainy and bright: a hole in each."""
    picture = np.full((96, 192, 3), 40, np.uint8)
    picture[:, 96:] = np.clip(texture(96, 96).astype(int) + 60, 0, 255)
    known = hole(96, 192, slice(30, 66), slice(20, 56)) & hole(96, 192, slice(30, 66), slice(136, 172))
    out = run(picture[None], known[None], soft(picture[None]))[0]
    assert out[36:60, 26:50].std() < 0.1 * out[36:60, 142:166].std()


def test_the_same_again_is_the_same():
    frames = np.stack([np.roll(texture(96, 128), t, axis=1) for t in range(12)])
    known = np.stack([hole(96, 128)] * 12)
    np.testing.assert_array_equal(run(frames, known, soft(frames)), run(frames, known, soft(frames)))


def test_what_comes_later_changes_nothing_before():
    """So that chunks and windows do not matter."""
    frames = np.stack([np.roll(texture(96, 128), 2 * t, axis=1) for t in range(12)])
    known = np.stack([hole(96, 128)] * 12)
    whole = run(frames, known, soft(frames))
    np.testing.assert_array_equal(run(frames[:7], known[:7], soft(frames[:7])), whole[:7])


def test_it_stands_still_where_the_clip_does():
    frames = np.stack([texture(96, 128)] * 20)
    known = np.stack([hole(96, 128)] * 20)
    out = run(frames, known, soft(frames))
    assert out.any() and max(float(np.abs(b - a).max()) for a, b in pairwise(out)) == 0


def test_it_moves_with_the_clip():
    """A pan of 2 px a frame: the next frame's detail is this one's, moved, not the one that stayed."""
    wide = texture(96, 200)
    frames = np.stack([wide[:, 40 - 2 * t : 168 - 2 * t] for t in range(12)])
    known = np.stack([hole(96, 128)] * 12)
    out = run(frames, known, soft(frames))
    likeness = {}
    for shift in (0, 2):
        a, b = out[:-1, 36:60, 66:90], out[1:, 36:60, 66 + shift : 90 + shift]
        likeness[shift] = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert likeness[2] > 0.7 and likeness[2] > likeness[0] + 0.4


def test_memory_stays_with_the_length():
    detail, wide = Detail(), texture(64, 400)
    known, counts = hole(64, 96, slice(10, 50), slice(30, 80)), []
    for t in range(150):
        frame = wide[:, 2 * t : 2 * t + 96]
        detail.next(cv2.GaussianBlur(frame, (0, 0), 6).astype(np.float32), frame, known)
        counts.append(len(detail._patches.place))
    assert len(detail._keys) == KEYS and max(counts[75:]) <= 1.5 * max(counts[:75])


def test_drawn_patches_are_those_of_a_plain_loop():
    """Twin: a weighted mean pixel by pixel, for patches on whole pixels."""
    rng = np.random.default_rng(5)
    place = np.array([[20.0, 18.0], [26.0, 30.0], [50.0, 44.0]])
    pixels = rng.normal(0, 9, (3, 26, 26, 3)).astype(np.float32)
    empty = np.zeros((3, COLORS + 1), np.float32)
    patches = _Patches(
        place, pixels, np.zeros((3, 3)), empty, np.zeros(3), np.array([6.0, 3.0, 6.0]), np.array([0, 0, 4])
    )
    window = np.hanning(26)[1:-1] ** 2
    expected = np.zeros((64, 64, 3))
    for y in range(64):
        for x in range(64):
            total, weight = np.zeros(3), 0.0
            for (py, px), patch, share in zip(place, pixels, (1, 0.25, 0.25), strict=True):
                i, j = y - int(py) + 12, x - int(px) + 12
                if 0 <= i < 24 and 0 <= j < 24:
                    w = window[i] * window[j] * share
                    total, weight = total + w * patch[i + 1, j + 1], weight + w
            expected[y, x] = total / max(weight, 0.03)
    np.testing.assert_allclose(_drawn(patches, (64, 64)), expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(24, 40), (100, 60)])
def test_features_are_colours_around_and_height(shape):
    low = np.arange(shape[0] * shape[1] * 3, dtype=np.float32).reshape(*shape, 3)
    found = features(low, np.array([[12, 20]]))[0]
    np.testing.assert_array_equal(found[:3], low[12, 20])
    np.testing.assert_array_equal(found[3:6], low[4, 20])
    assert found[15] == pytest.approx(128 * 12 / shape[0])
