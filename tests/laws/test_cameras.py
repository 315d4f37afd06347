"""Laws of camera paths made from words and keys."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.cameras.keys.keyframes import Key, keyframe_path, sample_keys
from ex4d.cameras.keys.splines import spline_poses
from ex4d.cameras.make import make_path, notes
from ex4d.cameras.subject import find_subject
from ex4d.cameras.units import parse_length
from ex4d.cameras.words.path import build_path
from ex4d.cameras.words.released import RELEASED
from ex4d.errors import InputError
from ex4d.geometry.frames import eye_in_world, invert_rigid, rotation_angle_rad, transform_points
from ex4d.geometry.pinhole import intrinsics, project
from ex4d.geometry.rotations import se3_exp
from ex4d.types import DepthClip

FPS = Fraction(24)
PRESETS = ["orbit:60", "dolly:in=30%", "dolly-zoom", "truck", "pedestal", "roll:20", "pan:15", "tilt:10", "lens:x=1.5"]
PRESETS += ["spiral", "bullet-time:40", "static", *RELEASED, *(f"-{name}" for name in RELEASED)]


def scene(size_hw=(48, 64), distance=3.0, unit="relative", focal=60.0):
    return DepthClip(np.full((1, *size_hw), distance, np.float32), intrinsics(size_hw, focal)[None], unit)


def path(spec, num_frames=25, first=None, **options):
    return make_path(spec, first=first or scene(), num_frames=num_frames, fps=FPS, **options)


def turn_deg(p, i=-1):
    return float(np.degrees(rotation_angle_rad(p.cam_from_world[:, :3, :3]))[i])


@pytest.mark.parametrize("spec", PRESETS)
def test_every_preset_starts_at_the_source_camera(spec):
    p = path(spec)
    np.testing.assert_array_equal(p.cam_from_world[0], np.eye(4))
    np.testing.assert_allclose(p.K[0], scene().K[0])
    assert len(p) == 25 and p.size_hw == (48, 64)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 200), h=st.integers(8, 300), w=st.integers(8, 300), distance=st.floats(0.05, 500))
def test_an_orbit_of_60_degrees_turns_60_degrees_and_keeps_its_subject_on_its_pixel(n, h, w, distance):
    first = scene((h, w), distance, focal=float(max(h, w)))
    p = path("orbit:60", n, first)
    assert abs(turn_deg(p) - 60) < 1e-9
    at = find_subject(first).point
    px = np.stack([project(transform_points(m, at[None])[0], k) for m, k in zip(p.cam_from_world, p.K, strict=True)])
    np.testing.assert_allclose(px, np.tile([w / 2, h / 2], (n, 1)), atol=1e-3)


@settings(max_examples=12, deadline=None)
@given(x=st.integers(0, 63), y=st.integers(0, 47), yaw=st.floats(-150, 150), pitch=st.floats(-80, 80))
def test_a_picked_subject_stays_on_its_pixel(x, y, yaw, pitch):
    rng = np.random.default_rng(x * 64 + y)
    first = DepthClip(rng.uniform(1, 9, (1, 48, 64)).astype(np.float32), intrinsics((48, 64), 60.0)[None])
    p = path(f"orbit:yaw={yaw},pitch={pitch},at={x}x{y}", 7, first)
    point = find_subject(first, f"{x}x{y}").point
    for m, k in zip(p.cam_from_world, p.K, strict=True):
        np.testing.assert_allclose(project(transform_points(m, point[None])[0], k), [x + 0.5, y + 0.5], atol=1e-3)


@pytest.mark.parametrize(
    ("spec", "axis", "sign"),
    [
        ("orbit:30", 0, 1),
        ("orbit:-30", 0, -1),
        ("orbit:pitch=30", 1, -1),
        ("60", 0, 1),
        ("-60", 0, -1),
        ("dolly:in=20%", 2, 1),
        ("dolly:out=20%", 2, -1),
        ("zoom_in", 2, 1),
        ("-zoom_in", 2, -1),
        ("zoom_out", 2, -1),
        ("truck:right=10%", 0, 1),
        ("truck:left=10%", 0, -1),
        ("pedestal:up=10%", 1, -1),
        ("pedestal:down=10%", 1, 1),
    ],
)
def test_the_camera_moves_the_way_the_words_say(spec, axis, sign):
    assert sign * eye_in_world(path(spec).cam_from_world[-1])[axis] > 0.05


@pytest.mark.parametrize(
    ("spec", "point", "moves_to"),
    [
        ("roll:20", [1, 0, 5], [None, 1]),  # right of the middle goes down: the picture turns clockwise
        ("pan:20", [0, 0, 5], [-1, None]),  # the camera looks right, so the middle goes left
        ("tilt:20", [0, 0, 5], [None, 1]),  # ... looks up, so the middle goes down
        ("orbit:20", [0, 0, 9], [1, None]),  # what lies behind the subject goes right when the camera does
    ],
)
def test_where_a_known_point_goes_in_the_picture(spec, point, moves_to):
    p = path(spec)
    start, end = (project(transform_points(p.cam_from_world[i], np.array([point], float))[0], p.K[i]) for i in (0, -1))
    for delta, sign in zip(end - start, moves_to, strict=True):
        assert sign is None or sign * delta > 0.5


def test_orbit_180_ends_on_the_other_side_and_the_released_180_does_not_and_says_so():
    np.testing.assert_allclose(eye_in_world(path("orbit:180").cam_from_world[-1]), [0, 0, 6], atol=1e-9)
    slide = path("180", 49)
    azimuth = np.degrees(np.arctan2(-slide.cam_from_world[:, 2, 0], slide.cam_from_world[:, 2, 2]))
    assert 44 < np.abs(azimuth).max() < 45.01
    assert any("45 degrees" in note for note in notes("180")) and notes("orbit:180") == []


@pytest.mark.parametrize("spec", ["60", "180", "180_outer", "zoom_in", "orbit:yaw=40,in=20% then truck:right=10%"])
def test_the_number_of_frames_does_not_change_the_way(spec):
    long, short = path(spec, 97), path(spec, 25)
    np.testing.assert_allclose(long.cam_from_world[::4], short.cam_from_world, atol=1e-12)


def test_only_the_reference_multiplies_the_angle_when_there_are_not_49_frames():
    flat = scene(distance=2.564)
    assert turn_deg(path("30", 25, flat, reference=True)) > 1.9 * turn_deg(path("30", 49, flat, reference=True))
    radius = eye_in_world(path("zoom_in", 9, flat, reference=True).cam_from_world[-1])[2] / 0.5
    assert abs(radius - 2.714) < 1e-3, "the release adds 0.15 to the nearest depth"


def test_dolly_zoom_keeps_the_subjects_size():
    p = path("dolly-zoom:in=50%")
    size = p.K[:, 0, 0] / (p.cam_from_world @ [0, 0, 3, 1])[:, 2]
    np.testing.assert_allclose(size, size[0], rtol=1e-6)


def test_steps_follow_each_other_and_moves_add_up():
    p = path("orbit:40 then orbit:-40", 21)
    np.testing.assert_allclose(p.cam_from_world[-1], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(p.cam_from_world[10], path("orbit:40", 21).cam_from_world[-1], atol=1e-12)
    both = path("orbit:40 + roll:20")
    assert turn_deg(both) > turn_deg(path("orbit:40"))
    quick = path("orbit:40,for=25% then static", 41)
    np.testing.assert_allclose(quick.cam_from_world[10:], quick.cam_from_world[-1:].repeat(31, 0), atol=1e-12)


def test_easing_moves_later_or_sooner_but_ends_alike():
    turns = {name: turn_deg(path(f"orbit:60,ease={name}"), 6) for name in ("in", "linear", "out")}
    assert turns["in"] < turns["linear"] - 3 < turns["out"] - 6
    assert abs(turn_deg(path("orbit:60,ease=smooth")) - 60) < 1e-9


def test_time_is_apart_from_the_path():
    assert (path("orbit:60 @ freeze=7").source_time == 7).all()
    assert (path("bullet-time:60").source_time == 0).all()
    np.testing.assert_allclose(path("static @ reverse").source_time, np.arange(25)[::-1])
    np.testing.assert_allclose(path("static @ slow=0.5").source_time, np.arange(25) / 2)
    np.testing.assert_allclose(path("static @ ping-pong").source_time, np.r_[0:25:2, 22:-1:-2])
    np.testing.assert_allclose(path("static @ 0:0,24:12").source_time, np.arange(25) / 2)
    middle = path("static then bullet-time:60 then static", 31).source_time
    assert (np.diff(middle) >= 0).all() and (np.diff(middle)[11:20] == 0).all() and middle[-1] == 20


def test_lengths_in_every_unit():
    subject = find_subject(scene(unit="metric"))
    assert parse_length("50%", subject) == 1.5
    assert parse_length("0.5m", subject) == 0.5 and parse_length("20 cm", subject) == 0.2
    assert parse_length(0.7, subject) == 0.7
    np.testing.assert_allclose(parse_length("100%w", subject), 64 / 60 * 3)  # one picture width at the subject
    np.testing.assert_allclose(parse_length("45deg", subject), 3.0)
    p = path("truck:right=25%w", first=scene())
    moved = project(transform_points(p.cam_from_world[-1], np.array([[0.0, 0, 3]])), p.K[-1])[0]
    np.testing.assert_allclose(moved, [32 - 16, 24], atol=1e-4)


def test_the_subject_by_middle_box_pixel_and_nearest():
    depth = np.full((1, 40, 40), 5.0, np.float32)
    depth[0, 18:22, 18:22] = 50  # a hole in the middle does not move the median of the central quarter
    depth[0, :8, :8] = 2
    first = DepthClip(depth, intrinsics((40, 40), 40.0)[None])
    assert find_subject(first).distance == 5 and find_subject(first, "near").distance == 2
    assert find_subject(first, "2x3").distance == 2 and find_subject(first, "19x19-20x20").distance == 50
    assert find_subject(first, "3.5").distance == 3.5


unit_floats = st.floats(-1, 1)


@st.composite
def rigid_motions(draw, max_turn=3.0, travel=5.0):
    v = np.array([draw(unit_floats) for _ in range(6)])
    v[:3] *= max_turn / max(np.linalg.norm(v[:3]), 1.0)
    v[3:] *= travel
    return se3_exp(v)


@settings(max_examples=12, deadline=None)
@given(turns=st.lists(rigid_motions(1.0, 1.0), min_size=2, max_size=5))
def test_a_spline_passes_through_its_keys_without_a_kink(turns):
    keys = np.stack([np.eye(4), *turns])
    times = np.linspace(0, 1, len(keys))
    np.testing.assert_allclose(spline_poses(keys, times, times), keys, atol=1e-8)
    e = 1e-5
    for t in times[1:-1]:
        before, at, after = spline_poses(keys, times, np.array([t - e, t, t + e]))
        np.testing.assert_allclose((at - before)[:3] / e, (after - at)[:3] / e, atol=2e-2 * len(keys))


def test_two_keys_of_an_orbit_are_joined_by_the_orbits_own_arc():
    orbit = path("orbit:60", 21)
    world = invert_rigid(orbit.cam_from_world)
    arc = spline_poses(world[[0, -1]], np.array([0.0, 1.0]), np.linspace(0, 1, 21))
    np.testing.assert_allclose(arc, world, atol=1e-9)


@settings(max_examples=6, deadline=None)
@given(turns=st.lists(rigid_motions(0.8, 1.0), min_size=2, max_size=4))
def test_constant_speed_means_equal_steps(turns):
    keys = [Key(i / len(turns), pose) for i, pose in enumerate([np.eye(4), *turns])]
    gaps = [
        np.linalg.norm(b.world_from_cam[:3, 3] - a.world_from_cam[:3, 3]) for a, b in zip(keys, keys[1:], strict=False)
    ]
    if min(gaps) < 0.2:
        return
    poses, _ = sample_keys(keys, 60, 3.0, constant_speed=True)
    fine, _ = sample_keys(keys, 300, 3.0, constant_speed=True)
    way = np.linalg.norm(np.diff(fine[:, :3, 3], axis=0), axis=-1)
    assert way.max() < 1.1 * way.mean()  # key poses at odds with each other leave up to 7 %
    np.testing.assert_allclose(poses[[0, -1]], [keys[0].world_from_cam, keys[-1].world_from_cam], atol=1e-8)


def test_keyframes_say_where_when_and_how():
    document = {
        "keys": [
            {"at": 0},
            {"at": "50%", "orbit": {"yaw": 30, "in": "20%"}, "ease": "in-out"},
            {"at": "24f", "position": ["50%", 0, "0.5u"], "look_at": "subject", "roll": 5, "fov": 40},
        ],
        "time": "freeze=3",
    }
    p = keyframe_path(document, first=scene(), num_frames=25, fps=FPS)
    np.testing.assert_allclose(eye_in_world(p.cam_from_world[-1]), [1.5, 0, 0.5], atol=1e-9)
    np.testing.assert_allclose(eye_in_world(p.cam_from_world[12]), eye_in_world(path("orbit:yaw=30,in=20%").cam_from_world[-1]), atol=1e-9)  # fmt: skip
    middle = transform_points(p.cam_from_world[-1], np.array([[0.0, 0, 3]]))[0]
    np.testing.assert_allclose(middle[:2] / middle[2], 0, atol=1e-9)
    assert p.K[-1, 0, 0] > p.K[0, 0, 0] and (p.source_time == 3).all()
    down = transform_points(p.cam_from_world[-1], eye_in_world(p.cam_from_world[-1])[None] + [[1.0, 0, 0]])[0]
    assert down[1] > 0, "+roll turns the picture clockwise"


def test_a_path_longer_than_its_clip_is_clamped_to_the_clip():
    p = path("static", 30, num_source_frames=10)
    assert p.source_time.max() == 9


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("orbti:60", "orbit"),
        ("orbit:yaw=x", "number"),
        ("orbit:speed=3", "yaw"),
        ("orbit:60,30", "name=value"),
        ("orbit:yaw=1,yaw=2", "twice"),
        ("", "preset"),
        ("dolly:in=120%", "100%"),
        ("truck:right=1m", "metric"),
        ("truck:right=5yd", "30%"),
        ("orbit:60,at=900x900", "inside"),
        ("orbit:60,ease=bouncy", "in-out"),
        ("orbit:60,for=130%", "100%"),
        ("orbit:60,at=near + dolly:in=10%,at=center", "one subject"),
        ("orbit:60 @ backwards", "reverse"),
        ("orbit:60 @ freeze=99", "0..24"),
        ("orbit:60 @ 5:0,3:2", "ascending"),
        ("lens:x=-1", "> 0"),
    ],
)
def test_bad_words_are_named_with_what_is_close(spec, words):
    with pytest.raises(InputError) as error:
        path(spec)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_build_path_needs_frames():
    from ex4d.cameras.words.language import parse_path

    with pytest.raises(InputError, match="at least 1"):
        build_path(parse_path("static"), first=scene(), num_frames=0, fps=FPS)
