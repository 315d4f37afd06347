"""Laws of the one logarithm and exponential of rotations and rigid motions, half turns included."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.geometry.frames import rotation_angle_rad
from ex4d.geometry.quaternion import quaternion_from_rotation, rotation_from_quaternion
from ex4d.geometry.rotations import screw, se3_exp, se3_log, slerp, so3_exp, so3_log

numbers = st.floats(-1, 1)
#: No turn, the least ones, anything between, and up to half a turn from below.
angles = st.one_of(
    st.sampled_from([0.0, 1e-12, 1e-8, 1e-7, 1e-4, np.pi - 1e-4, np.pi - 1e-8, np.pi]), st.floats(0, np.pi)
)


def angle_between(a, b):
    return rotation_angle_rad((a.T @ b)[None])[0]


@st.composite
def axes(draw):
    v = np.array([draw(numbers) for _ in range(3)])
    length = np.linalg.norm(v)
    return v / length if length > 1e-3 else np.eye(3)[draw(st.integers(0, 2))]


@st.composite
def twists(draw):
    return np.concatenate([draw(axes()) * draw(angles), [5 * draw(numbers) for _ in range(3)]])


@given(axis=axes(), angle=angles)
def test_exp_is_a_rotation_by_the_angle_about_the_axis(axis, angle):
    R = so3_exp(axis * angle)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(R @ axis, axis, atol=1e-14)
    np.testing.assert_allclose(R, cv2.Rodrigues(axis * angle)[0], atol=1e-13)
    np.testing.assert_allclose(angle_between(np.eye(3), R), angle, atol=1e-7)


@given(axis=axes(), angle=angles)
def test_log_is_the_inverse_of_exp_up_to_half_a_turn(axis, angle):
    back = so3_log(so3_exp(axis * angle))
    if angle > np.pi - 1e-7:  # a half turn about an axis is one about the opposite axis
        back = back * np.sign(back @ axis)
    np.testing.assert_allclose(back, axis * angle, atol=2e-15 + 1e-9 * angle)


@given(axis=axes())
def test_a_half_turn_is_not_lost(axis):
    half = 2 * np.outer(axis, axis) - np.eye(3)
    np.testing.assert_allclose(np.linalg.norm(so3_log(half)), np.pi, atol=1e-12)
    np.testing.assert_allclose(so3_exp(so3_log(half)), half, atol=1e-12)


@given(q=st.tuples(numbers, numbers, numbers, numbers).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_quaternions_there_and_back(q):
    q = np.array(q) / np.linalg.norm(q)
    R = rotation_from_quaternion(q)
    again = quaternion_from_rotation(R)
    np.testing.assert_allclose(again * np.sign(again @ q), q, atol=1e-12)
    np.testing.assert_allclose(rotation_from_quaternion(again), R, atol=1e-12)


@given(twist=twists())
def test_se3_log_is_the_inverse_of_exp(twist):
    T = se3_exp(twist)
    np.testing.assert_allclose(se3_exp(se3_log(T)), T, atol=1e-7)


@settings(max_examples=50)
@given(a=twists(), b=twists(), share=st.floats(0, 1))
def test_what_lies_between_two_lies_between_them(a, b, share):
    start, stop = se3_exp(a), se3_exp(b)
    whole = angle_between(start[:3, :3], stop[:3, :3])
    part = slerp(start[:3, :3], stop[:3, :3], np.array(share))
    np.testing.assert_allclose(angle_between(start[:3, :3], part), share * whole, atol=1e-6)
    np.testing.assert_allclose(angle_between(part, stop[:3, :3]), (1 - share) * whole, atol=1e-6)
    np.testing.assert_allclose(screw(start, stop, np.array(0.0)), start, atol=1e-12)
    np.testing.assert_allclose(screw(start, stop, np.array(1.0)), stop, atol=1e-6)
    np.testing.assert_allclose(screw(start, stop, np.array(share))[:3, :3], part, atol=1e-9)


def test_a_batch_is_its_single_members():
    twist = np.random.default_rng(3).normal(size=(4, 2, 6))
    one_by_one = np.stack([[se3_exp(t) for t in row] for row in twist])
    np.testing.assert_array_equal(se3_exp(twist), one_by_one)
    np.testing.assert_allclose(
        se3_log(one_by_one), np.stack([[se3_log(T) for T in row] for row in one_by_one]), atol=1e-14
    )
