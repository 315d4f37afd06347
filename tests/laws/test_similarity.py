"""Laws of similarity transforms, scale-and-shift fits and paths relative to moving cameras."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.cameras.place import place_path
from ex4d.errors import InputError
from ex4d.geometry.frames import eye_in_world, invert_rigid, rigid, transform_points
from ex4d.geometry.poses import poses_at
from ex4d.geometry.rotations import so3_exp, so3_log
from ex4d.geometry.similarity import (
    Similarity,
    fit_cameras,
    fit_scale_shift,
    fit_similarity,
    path_length,
    pose_error,
)
from ex4d.types import CameraPath

seeds = st.integers(0, 2**32 - 1)


def random_rotation(rng, n=None, largest=3.0):
    v = rng.normal(size=(3,) if n is None else (n, 3))
    return so3_exp(v / np.linalg.norm(v, axis=-1, keepdims=True) * rng.uniform(0, largest))


def random_similarity(rng):
    return Similarity(float(np.exp(rng.normal())), random_rotation(rng), rng.normal(size=3) * 3)


def random_cameras(rng, n=12):
    return rigid(random_rotation(rng, n), rng.normal(size=(n, 3)))


@given(seeds)
def test_fit_similarity_recovers_what_was_planted(seed):
    rng = np.random.default_rng(seed)
    planted, a = random_similarity(rng), rng.normal(size=(20, 3))
    found = fit_similarity(a, planted.apply(a))
    np.testing.assert_allclose(found.scale, planted.scale, rtol=1e-9)
    np.testing.assert_allclose(found.R, planted.R, atol=1e-9)
    np.testing.assert_allclose(found.t, planted.t, atol=1e-8)


@given(seeds)
def test_inverse_of_a_similarity_undoes_it(seed):
    rng = np.random.default_rng(seed)
    planted, a = random_similarity(rng), rng.normal(size=(5, 3))
    np.testing.assert_allclose(planted.inverse().apply(planted.apply(a)), a, atol=1e-9)


@given(seeds)
def test_points_keep_their_pixels_when_world_and_cameras_move_together(seed):
    rng = np.random.default_rng(seed)
    planted, a, cameras = random_similarity(rng), rng.normal(size=(5, 3)), random_cameras(rng)
    before = transform_points(cameras, np.broadcast_to(a, (len(cameras), 5, 3)))
    after = transform_points(planted.apply_to_cameras(cameras), np.broadcast_to(planted.apply(a), (len(cameras), 5, 3)))
    np.testing.assert_allclose(after, planted.scale * before, atol=1e-8)


@given(seeds)
def test_fit_cameras_recovers_what_was_planted(seed):
    rng = np.random.default_rng(seed)
    planted, cameras = random_similarity(rng), random_cameras(rng)
    found = fit_cameras(cameras, planted.apply_to_cameras(cameras))
    np.testing.assert_allclose([found.scale, *found.t], [planted.scale, *planted.t], rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(found.R, planted.R, atol=1e-8)


def test_fit_cameras_is_determined_on_a_straight_path_where_points_alone_are_not():
    centers = np.linspace(0, 1, 9)[:, None] * [1.0, 0.5, 0.0]
    cameras = rigid(np.broadcast_to(np.eye(3), (9, 3, 3)), -centers)
    planted = Similarity(2.0, so3_exp(np.array([0.1, 0.2, 0.3])), np.array([1.0, 2.0, 3.0]))
    found = fit_cameras(cameras, planted.apply_to_cameras(cameras))
    np.testing.assert_allclose(found.R, planted.R, atol=1e-9)
    with pytest.raises(InputError, match="one line"):
        fit_similarity(centers, planted.apply(centers))


@given(seeds, st.floats(0, 0.3))
def test_scale_and_shift_survive_outliers(seed, outliers):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, 400)
    scale, shift = float(np.exp(rng.normal() * 0.5)), float(rng.normal())
    y = scale * x + shift
    wrong = rng.uniform(size=400) < outliers
    y[wrong] += rng.uniform(1, 5, wrong.sum()) * scale
    found = fit_scale_shift(x, y)
    np.testing.assert_allclose([found.scale, found.shift], [scale, shift], rtol=1e-6, atol=1e-6)


@given(seeds)
def test_scale_alone_survives_outliers(seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.5, 2, 300)
    y = 3.0 * x
    y[:60] *= 4
    assert abs(fit_scale_shift(x, y, shift=False).scale - 3) < 1e-6


@pytest.mark.parametrize(
    "x, y", [([1, 1, 1], [1, 2, 3]), ([], []), ([1, 2, 3, 4], [4, 3, 2, 1]), ([np.nan] * 3, [1, 2, 3])]
)
def test_scale_and_shift_refuse_what_cannot_be_fitted(x, y):
    with pytest.raises(InputError):
        fit_scale_shift(np.array(x, float), np.array(y, float))


def camera_path(cam_from_world, source_time):
    n = len(cam_from_world)
    return CameraPath(cam_from_world, np.tile(np.eye(3, dtype=np.float32), (n, 1, 1)), (8, 8), source_time)


@given(seeds)
@settings(max_examples=30)
def test_a_still_path_relative_to_the_source_is_the_source(seed):
    rng = np.random.default_rng(seed)
    source = random_cameras(rng)
    still = camera_path(np.tile(np.eye(4), (12, 1, 1)), np.arange(12.0))
    np.testing.assert_array_equal(place_path(still, source, "source").cam_from_world, source)
    assert place_path(still, source, "world") is still
    assert place_path(still, None, "source") is still


@given(seeds)
@settings(max_examples=30)
def test_a_path_relative_to_the_source_sees_source_points_from_where_it_says(seed):
    rng = np.random.default_rng(seed)
    source, relative = random_cameras(rng), random_cameras(rng)
    placed = place_path(camera_path(relative, np.arange(12.0)), source)
    points_in_source = rng.normal(size=(12, 4, 3))
    in_world = transform_points(invert_rigid(source), points_in_source)
    np.testing.assert_allclose(
        transform_points(placed.cam_from_world, in_world), transform_points(relative, points_in_source), atol=1e-9
    )


def test_poses_between_frames_lie_between_them():
    turn = np.array([0.0, 0.4, 0.0])
    cameras = rigid(so3_exp(np.array([[0.0, 0, 0], turn])), np.zeros((2, 3)))
    middle = poses_at(cameras, np.array([0.5]))
    np.testing.assert_allclose(so3_log(middle[0, :3, :3]), turn / 2, atol=1e-12)
    np.testing.assert_array_equal(poses_at(cameras, np.array([-3.0, 9.0])), cameras)
    assert poses_at(cameras[:1], np.array([0.0, 2.0])).shape == (2, 4, 4)


@pytest.mark.parametrize("axis", [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.6, -0.8, 0]])
def test_poses_within_a_half_turn_turn(axis):
    cameras = rigid(so3_exp(np.array([[0.0, 0, 0], np.multiply(axis, np.pi)])), np.zeros((2, 3)))
    quarter = so3_log(poses_at(cameras, np.array([0.5]))[0, :3, :3])
    np.testing.assert_allclose(np.abs(quarter), np.abs(axis) * np.pi / 2 * np.ones(3), atol=1e-9)


def test_pose_error_and_path_length_of_a_known_path():
    centers = np.array([[0.0, 0, 0], [3, 4, 0], [3, 4, 2]])
    cameras = rigid(np.broadcast_to(np.eye(3), (3, 3, 3)), -centers)
    turned = rigid(so3_exp(np.array([0, 0, np.pi / 4])) @ cameras[:, :3, :3], cameras[:, :3, 3] * 0)
    angle, gap = pose_error(turned, cameras)
    np.testing.assert_allclose(angle, 45)
    np.testing.assert_allclose(gap, np.linalg.norm(eye_in_world(cameras), axis=-1))
    assert path_length(cameras) == 7
