"""The editing session: pure operations, and undo that gives back exactly what was."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from ex4d.cameras.keys import session as s
from ex4d.cameras.make import make_path
from ex4d.cameras.subject import find_subject
from ex4d.errors import InputError
from ex4d.geometry.pinhole import intrinsics
from ex4d.geometry.rotations import se3_exp
from ex4d.types import DepthClip


@pytest.fixture
def orbit():
    first = DepthClip(np.full((1, 48, 64), 3.0, np.float32), intrinsics((48, 64), 60.0)[None])
    path = make_path("orbit:60", first=first, num_frames=25, fps=Fraction(24))
    return path, s.session_from_path(path, find_subject(first), Fraction(24), num_keys=4)


def same(a, b):
    return np.abs(s.path_of(a).cam_from_world - s.path_of(b).cam_from_world).max() < 1e-12


def test_an_orbit_comes_back_from_its_keys(orbit):
    path, session = orbit
    np.testing.assert_allclose(s.path_of(session).cam_from_world, path.cam_from_world, atol=1e-9)
    np.testing.assert_allclose(s.path_of(session).K, path.K, rtol=1e-6)


EDITS = {
    "insert": lambda x: s.insert_key(x, 0.5, se3_exp(np.full(6, 0.1))),
    "move": lambda x: s.move_key(x, 1, se3_exp(np.full(6, 0.2))),
    "nudge": lambda x: s.nudge_key(x, 2, np.array([0.1, 0, 0, 0, 0.3, 0])),
    "retime": lambda x: s.retime_key(x, 1, 0.5),
    "smooth": lambda x: s.smooth_keys(s.move_key(x, 1, se3_exp(np.full(6, 0.2))), 1.0),
    "delete": lambda x: s.delete_key(x, 3),
    "ease": lambda x: s.ease_key(x, 1, "in-out"),
    "zoom": lambda x: s.zoom_key(x, 1, 1.5),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_a_new_session_only_and_can_be_undone_and_redone(name, orbit):
    _, before = orbit
    kept = s.path_of(before)
    after = EDITS[name](before)
    changed = s.path_of(after)
    assert not np.allclose(changed.cam_from_world, kept.cam_from_world) or not np.allclose(changed.K, kept.K)
    np.testing.assert_array_equal(s.path_of(before).cam_from_world, kept.cam_from_world)
    back = s.undo(after)
    while back.past is not None:
        back = s.undo(back)
    assert back.keys == before.keys
    assert s.redo(s.undo(after)).keys == after.keys


def test_a_key_inserted_without_a_pose_changes_nothing_on_a_steady_path(orbit):
    _, session = orbit
    more = s.insert_key(session, 0.5)
    assert len(more.keys) == 5
    np.testing.assert_allclose(s.path_of(more).cam_from_world, s.path_of(session).cam_from_world, atol=1e-9)
    assert same(s.delete_key(more, 2), session)


def test_smoothing_shortens_the_way(orbit):
    _, session = orbit
    rough = s.nudge_key(session, 1, np.array([0, 0, 0, 0, 0.8, 0]))
    smooth = s.smooth_keys(rough, 1.0)

    def way(x):
        return np.linalg.norm(np.diff(s.path_of(x).cam_from_world[:, :3, 3], axis=0), axis=1).sum()

    assert way(smooth) < way(rough) and smooth.keys[0] == rough.keys[0]


def test_constant_speed_and_remap(orbit):
    _, session = orbit
    uneven = s.retime(s.retime_key(session, 1, 0.1), "constant")
    eyes = np.linalg.inv(s.path_of(uneven).cam_from_world)[:, :3, 3]
    steps = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    assert steps.max() < 1.1 * steps.min()
    assert (s.path_of(s.set_remap(session, "freeze=3")).source_time == 3).all()


@pytest.mark.parametrize(
    "edit",
    [
        lambda x: s.insert_key(x, 0.0),
        lambda x: s.insert_key(x, 1.5),
        lambda x: s.delete_key(x, 9),
        lambda x: s.delete_key(s.new_session(x.subject), 0),
        lambda x: s.retime_key(x, 1, 0.9),
        lambda x: s.zoom_key(x, 1, 0.0),
        lambda x: s.set_remap(x, "sideways"),
        lambda x: s.smooth_keys(x, 2.0),
    ],
)
def test_edits_that_make_no_sense_are_refused(edit, orbit):
    with pytest.raises(InputError):
        edit(orbit[1])


def test_redo_is_gone_after_a_new_edit(orbit):
    _, session = orbit
    undone = s.undo(s.zoom_key(session, 1, 2.0))
    assert undone.future is not None
    assert s.zoom_key(undone, 0, 1.2).future is None
    assert s.redo(replace(undone, future=None)).keys == undone.keys
