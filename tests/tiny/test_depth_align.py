"""Planted scales and shifts are found again, flicker falls, and the filter along flow does its work."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.depth.maps.align import TemporalAligner
from ex4d.depth.maps.flow_filter import filter_along_flow
from ex4d.depth.source_cameras.given import rescaled, scale_to_cameras, scale_to_points
from ex4d.depth.source_cameras.parallax import depth_ratio_from_parallax
from ex4d.errors import InputError
from ex4d.pixels.tracks import to_gray
from ex4d.types import DepthClip, VideoClip

sys.path.insert(0, str(Path(__file__).parent))
from test_source_cameras import room_with_a_mover


@pytest.fixture(scope="module")
def room():
    return room_with_a_mover(16)


def planted(depth, kind, shift, seed=1):
    """(maps with a random scale and shift per frame, scales, shifts in the maps' own domain); the first frame has none."""
    rng = np.random.default_rng(seed)
    true = (1 / depth if kind == "disparity" else depth).astype(np.float64)
    span = np.ptp(true[0])
    scale = np.exp(rng.normal(0, 0.3, len(depth)))
    offset = rng.normal(0, 0.3, len(depth)) * span * shift
    scale[0], offset[0] = 1, 0
    maps = ((true - offset[:, None, None]) / scale[:, None, None]).astype(np.float32)
    return maps, scale, offset, span


def run(frames, maps, K, kind, shift, ratio=35.0):
    aligner = TemporalAligner(kind, shift, ratio)
    for frame, map_, k in zip(frames, maps, K, strict=True):
        aligner.step(frame, map_, k)
    return aligner


def errors(aligner, scale, offset, span):
    """Largest error of the scales (relative) and shifts (against the range of the maps), on the first frame's footing."""
    first = aligner.fits[0]
    s = [abs(fit.scale / (first.scale * a) - 1) for fit, a in zip(aligner.fits, scale, strict=True)]
    t = [
        abs(fit.shift - (first.scale * b + first.shift)) / (first.scale * span)
        for fit, b in zip(aligner.fits, offset, strict=True)
    ]
    return max(s), max(t)


def test_planted_scale_and_shift_are_recovered_before_a_still_camera_with_a_mover(room):
    video, depth, _ = room
    moving = np.repeat(depth.depth[:1], 16, axis=0)
    frames = np.repeat(video.frames[:1], 16, axis=0).copy()
    for t in range(16):  # a near card slides through the picture
        frames[t, 60:120, 10 + 12 * t : 70 + 12 * t] = np.random.default_rng(3).integers(0, 255, (60, 60, 3))
        moving[t, 60:120, 10 + 12 * t : 70 + 12 * t] = 1.5
    maps, *truth = planted(moving, "disparity", True)
    aligner = run(frames, maps, depth.K, "disparity", True)
    found = errors(aligner, *truth)
    before, after = aligner.before.flicker, aligner.after.flicker
    print(f"scale {found[0]:.2e}, shift {found[1]:.2e}; flicker {before:.4f} -> {after:.6f}")
    assert max(found) < 0.01
    assert after * 5 <= before


@pytest.mark.parametrize("shift", [False, True])
def test_planted_scale_is_recovered_from_a_moving_camera(room, shift):
    video, depth, _ = room
    maps, *truth = planted(depth.depth, "metric", shift)
    aligner = run(video.frames, maps, depth.K, "metric", shift)
    found = errors(aligner, *truth)
    print(f"shift {shift}: scale {found[0]:.2e}, shift {found[1]:.2e}", aligner.summary())
    assert max(found) < 0.01
    assert aligner.after.flicker * 5 <= aligner.before.flicker


def test_parallax_tells_how_deep_a_relative_scene_is(room):
    video, depth, _ = room
    inverse = 1 / depth.depth[0]
    low, high = np.quantile(inverse, [0.002, 0.998])
    grays = [to_gray(frame) for frame in video.frames]
    told = depth_ratio_from_parallax(lambda t: grays[t], 16, (3 * inverse + 1).astype(np.float32), depth.K[0])
    print("true ratio", high / low, "told", told)
    assert told is not None and abs(told / (high / low) - 1) < 0.1
    assert depth_ratio_from_parallax(lambda _: grays[0], 16, inverse, depth.K[0]) is None, "a still camera cannot tell"


def test_depth_is_scaled_to_given_cameras_and_to_sparse_points(room):
    video, depth, true = room
    small = DepthClip(depth.depth / np.float32(2.5), depth.K, "relative")
    fit = scale_to_cameras(video, small, true)
    assert fit is not None and abs(1 / fit.scale / 2.5 - 1) < 0.03
    np.testing.assert_allclose(rescaled(small.depth[0], fit), depth.depth[0], rtol=0.03)
    still = VideoClip(np.repeat(video.frames[:1], 16, axis=0), video.fps)
    assert scale_to_cameras(still, small, np.tile(np.eye(4), (16, 1, 1))) is None, "cameras that stand still"
    with pytest.raises(InputError, match="points agree"):
        scale_to_cameras(video, small, np.linalg.inv(true))
    rng = np.random.default_rng(0)
    xy = np.stack([rng.uniform(5, 315, 80), rng.uniform(5, 235, 80)], axis=1).astype(np.float32)
    z = depth.depth[0][xy[:, 1].astype(int), xy[:, 0].astype(int)].astype(float)
    affine = (1 / (0.4 / depth.depth[0] + 0.1)).astype(np.float32)
    found = scale_to_points(affine, xy, z)
    np.testing.assert_allclose([found.scale, found.shift], [2.5, -0.25], rtol=0.03)


def test_the_filter_along_flow_keeps_motion_and_drops_noise(room):
    video, depth, _ = room
    grays = np.stack([to_gray(frame) for frame in video.frames[:5]])
    noisy = depth.depth[:5] * np.exp(np.random.default_rng(0).normal(0, 0.01, depth.depth[:5].shape)).astype(np.float32)
    calm = filter_along_flow(grays, noisy, 2)
    error = [np.median(np.abs(np.log(z / depth.depth[2]))) for z in (noisy[2], calm)]
    print("median error", error)
    assert error[1] < 0.75 * error[0]
    np.testing.assert_array_equal(filter_along_flow(grays[:1], noisy[:1], 0), noisy[0])


def test_clips_of_one_and_two_frames_align(room):
    video, depth, _ = room
    for count in (1, 2):
        aligner = run(video.frames[:count], depth.depth[:count], depth.K[:count], "metric", False)
        assert len(aligner.fits) == count and aligner.after.flicker == 0


def test_video_clip_of_noise_holds_the_last_fit():
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3), dtype=np.uint8)
    clip = VideoClip(noise, Fraction(25))
    K = np.array([[80, 0, 48], [0, 80, 32], [0, 0, 1]], np.float32)
    maps = np.random.default_rng(1).uniform(1, 2, (3, 64, 96)).astype(np.float32)
    aligner = run(clip.frames, maps, [K] * 3, "disparity", True)
    assert len(aligner.fits) == 3 and all(
        np.isfinite(aligner.depth(m, f)).all() for m, f in zip(maps, aligner.fits, strict=True)
    )
