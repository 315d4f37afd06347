"""A lead-in starts at the source camera, ends where the path starts, and never jumps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ex4d.cameras.lead_in import with_lead_in
from ex4d.errors import InputError
from ex4d.geometry.frames import eye_in_world, look_at
from ex4d.types import CameraPath

coordinate = st.floats(-3, 3)


def path_from(eye, num_frames=4):
    pose = look_at(np.array(eye, np.float64), np.array([0.0, 0.0, 9.0]))
    K = np.tile(np.array([[9, 0, 8], [0, 9, 6], [0, 0, 1]], np.float32), (num_frames, 1, 1))
    return CameraPath(np.tile(pose, (num_frames, 1, 1)), K, (12, 16), np.arange(num_frames, dtype=np.float64) + 2, "p")


@given(st.tuples(coordinate, coordinate, coordinate), st.integers(1, 30))
def test_it_leads_from_the_source_to_the_path(eye, frames):
    path = path_from(eye)
    led = with_lead_in(path, frames)
    assert len(led) == len(path) + frames
    np.testing.assert_allclose(led.cam_from_world[0], np.eye(4), atol=1e-12)
    np.testing.assert_array_equal(led.cam_from_world[frames:], path.cam_from_world)
    np.testing.assert_array_equal(led.source_time[:frames], path.source_time[0])
    eyes = eye_in_world(led.cam_from_world[: frames + 1])
    steps = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    assert steps.max() <= 1.6 * np.linalg.norm(eyes[-1]) / frames + 1e-9
    np.testing.assert_allclose(steps.sum(), np.linalg.norm(eyes[-1]), atol=1e-9)


def test_none_is_the_path_and_less_is_refused():
    path = path_from((1.0, 0.0, 0.0))
    assert with_lead_in(path, 0) is path
    with pytest.raises(InputError, match="lead-in"):
        with_lead_in(path, -1)
