"""Scores of a clip's depth: one scale and shift for all frames, flicker of points that stand still before a moving camera."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ex4d.evaluate.metrics.depth import fitted, ramp, score, unsteadiness
from ex4d.geometry.pinhole import intrinsics, px_centers, unproject

SIZE, FRAMES = (40, 56), 5


def wall_and_floor():
    """Depth of a floor that ends at a wall, and the cameras that fly towards it: (depth, K, cam_from_world)."""
    K = intrinsics(SIZE, 50)
    ray_y = unproject(px_centers(SIZE), np.ones(SIZE), K)[..., 1]
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 2, 3] = -0.1 * np.arange(FRAMES)
    poses[:, 0, 3] = 0.02 * np.arange(FRAMES)
    depth = np.stack([np.minimum(6 + p[2, 3], 1 / np.maximum(ray_y, 1e-6)) for p in poses])
    return depth, K, poses


@given(st.floats(0.2, 5), st.floats(-0.02, 0.4))
def test_depth_that_is_right_up_to_one_scale_and_shift_has_no_error(scale, shift):
    truth, _, _ = wall_and_floor()
    valid = np.ones(truth.shape, bool)
    found = score(fitted(1 / (scale / truth + shift), truth, valid), truth, valid)
    assert found.abs_rel < 1e-6 and found.delta1 == 1


def test_another_scale_in_each_frame_is_an_error_and_flickers():
    truth, K, poses = wall_and_floor()
    valid = np.ones(truth.shape, bool)
    jumping = truth * np.array([1, 1.3, 1, 1.3, 1])[:, None, None]
    assert score(fitted(jumping, truth, valid), truth, valid).abs_rel > 0.05
    calm, rough = (unsteadiness(z, truth, valid, K, poses) for z in (truth, jumping))
    assert calm.flicker < 2e-3 and calm.drift < 2e-3
    assert rough.flicker == pytest.approx(2 * np.log(1.3), rel=0.02) and rough.drift == pytest.approx(
        np.log(1.3), rel=0.02
    )


def test_steady_sliding_is_drift_and_no_flicker():
    truth = np.full((FRAMES, *SIZE), 3.0)
    sliding = truth * np.exp(0.02 * np.arange(FRAMES))[:, None, None]
    found = unsteadiness(sliding, truth, np.ones(truth.shape, bool), intrinsics(SIZE, 50))
    assert found.flicker < 1e-9 and found.drift == pytest.approx(0.02)


def test_movers_and_unknown_pixels_take_no_part():
    truth = np.full((FRAMES, *SIZE), 3.0)
    truth[2, 10:20, 10:20] = 1.0
    truth[3, 30:, :] = np.inf
    valid = np.isfinite(truth)
    assert unsteadiness(np.where(valid, truth, 7.0), truth, valid, intrinsics(SIZE, 50)).flicker < 1e-9
    assert unsteadiness(truth[:2], truth[:2], valid[:2], intrinsics(SIZE, 50)) == (0.0, 0.0)


def test_a_ramp_is_near_at_the_bottom():
    depth = ramp((2, 10, 3))
    assert depth.shape == (2, 10, 3) and (np.diff(depth, axis=1) < 0).all()
