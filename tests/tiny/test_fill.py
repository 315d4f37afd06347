"""The finisher without a model: observed pixels stay, hidden background comes from other times, holes belong to what is behind."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.generators.fill.fill import Fill
from ex4d.generators.fill.pull_push import pull_push
from ex4d.pipeline.config import RenderOptions
from ex4d.pipeline.line import generate, reconstruct
from ex4d.types import DepthClip, VideoClip

H, W, FRAMES = 48, 64, 13
NEAR, FAR = 2.0, 6.0


def passing_object():
    """A textured wall, and a red square that crosses in front of it while the camera stands still."""
    rng = np.random.default_rng(5)
    wall = np.kron(rng.integers(60, 200, (H // 4, W // 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    frames = np.repeat(wall[None], FRAMES, axis=0)
    depth = np.full((FRAMES, H, W), FAR, np.float32)
    for t in range(FRAMES):
        x = 4 + 4 * t
        frames[t, 16:32, x : x + 8] = (250, 20, 20)
        depth[t, 16:32, x : x + 8] = NEAR
    K = np.tile(np.array([[W, 0, W / 2], [0, W, H / 2], [0, 0, 1]], np.float32), (FRAMES, 1, 1))
    return VideoClip(frames, Fraction(25)), DepthClip(depth, K), wall


def test_hidden_background_comes_from_another_time():
    video, depth, wall = passing_object()
    render = reconstruct(video, depth, "truck:right=12%", RenderOptions(rasterizer="cpu"))
    assert render.plate is not None and render.plate_mask is not None
    alone = reconstruct(
        VideoClip(np.repeat(wall[None], FRAMES, axis=0), video.fps),
        DepthClip(np.full_like(depth.depth, FAR), depth.K),
        render.path,
        RenderOptions(rasterizer="cpu"),
    )
    behind = ~render.mask & alone.mask  # holes behind the square that the wall alone would show
    assert behind.sum() > 100
    filled = generate(render, Fill()).frames.astype(int)
    without = generate(render, Fill(temporal=False)).frames.astype(int)
    error = np.abs(filled - alone.color)[behind].mean()
    assert error < 3, f"the wall behind the square is off by {error:.1f} levels"
    assert np.abs(without - alone.color)[behind].mean() > 3 * error + 5, "spatial fill alone would do as well"


def test_observed_pixels_are_copied_exactly():
    video, depth, _ = passing_object()
    render = reconstruct(video, depth, "orbit:35", RenderOptions(rasterizer="cpu"))
    assert not render.mask.all()
    out = generate(render, "fill")
    np.testing.assert_array_equal(out.frames[render.mask], render.color[render.mask])


def test_the_cut_into_chunks_changes_nothing():
    video, depth, _ = passing_object()
    render = reconstruct(video, depth, "orbit:35", RenderOptions(rasterizer="cpu"))
    whole = generate(render, Fill()).frames
    parts = list(Fill().generate([render[:5], render[5:6], render[6:]]))
    np.testing.assert_array_equal(np.concatenate([part.frames for part in parts]), whole)


def test_a_moving_camera_gets_no_still_plate():
    video, depth, _ = passing_object()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, video.frames.shape).astype(np.uint8)
    render = reconstruct(VideoClip(noise, video.fps), depth, "orbit:20", RenderOptions(rasterizer="cpu"))
    assert render.plate is None


def test_a_hole_beside_an_object_takes_the_background():
    color = np.full((40, 40, 3), 200, np.uint8)
    depth = np.full((40, 40), 10, np.float32)
    known = np.ones((40, 40), bool)
    color[10:30, 5:20], depth[10:30, 5:20] = (255, 0, 0), 3
    known[10:30, 20:28] = False
    out = pull_push(color, known, depth)[10:30, 20:28]
    blind = pull_push(color, known, np.ones_like(depth))[10:30, 20:28]
    assert np.abs(out - 200).mean() < 0.5 * np.abs(blind - 200).mean()


@given(st.integers(0, 2**32 - 1), st.integers(1, 19), st.integers(1, 23))
@settings(max_examples=30, deadline=None)
def test_pull_push_keeps_what_is_known_and_stays_inside_its_range(seed, h, w):
    rng = np.random.default_rng(seed)
    color = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
    known = rng.random((h, w)) < rng.random()
    depth = rng.uniform(0.1, 50, (h, w)).astype(np.float32)
    out = pull_push(color, known, depth)
    np.testing.assert_array_equal(out[known], color[known])
    if known.any():
        low, high = color[known].min(axis=0), color[known].max(axis=0)
        assert (out >= low - 0.01).all() and (out <= high + 0.01).all()


def test_nothing_known_is_grey():
    out = pull_push(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), bool), np.ones((4, 5), np.float32))
    assert out == pytest.approx(127.5)
