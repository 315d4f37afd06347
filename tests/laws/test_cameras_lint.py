"""Lint: every planted mistake is named, and good paths pass in silence."""

import json
from fractions import Fraction

import numpy as np
import pytest

from ex4d.cameras.formats.registry import get_format
from ex4d.cameras.formats.track import CameraTrack, track_from_path
from ex4d.cameras.keys.keyframes import Key, sample_keys
from ex4d.cameras.lint.lint import lint_file, lint_track
from ex4d.cameras.make import make_path
from ex4d.errors import InputError
from ex4d.geometry.frames import GL_FROM_CV, invert_rigid, look_at, rigid
from ex4d.geometry.pinhole import intrinsics
from ex4d.geometry.rotations import se3_exp
from ex4d.types import DepthClip

FPS = Fraction(24)
CV_FROM_UNREAL = np.eye(4)
CV_FROM_UNREAL[:3, :3] = [[0, 1, 0], [0, 0, -1], [1, 0, 0]]
GOOD = ["orbit:yaw=60,pitch=15,in=20%", "60", "-90", "180", "orbit:yaw=40 + pan:20"]


def scene(distance=3.0, size_hw=(64, 64)):
    return DepthClip(np.full((1, *size_hw), distance, np.float32), intrinsics(size_hw, 60.0)[None])


def good_track(spec, n=49):
    return track_from_path(make_path(spec, first=scene(), num_frames=n, fps=FPS), FPS)


def poses_of(track):
    return track.cam_from_world.copy()


def mirrored(m):
    m[:, 0] *= -1
    return m


def scaled(m):
    m[:, :3, :3] *= 1.05
    return m


def sheared(m):
    m[:, 0, :3] += 0.02 * m[:, 1, :3]
    return m


def centimetres(m):
    m[:, :3, 3] *= 100
    return m


def jumped(m):
    m[20:] = m[20:] @ rigid(np.eye(3), np.array([0.8, 0, 0]))
    return m


def one_bad_pose(m):
    m[30] = se3_exp(np.array([0.5, 0.3, 0, 0.2, 0, 0])) @ m[30]
    return m


def not_finite(m):
    m[7, 0, 3] = np.nan
    return m


def away_from_the_source(m):
    return m @ se3_exp(np.array([0.3, 0, 0, 0.5, 0, 0]))


PLANTED = {
    "mirror": mirrored,
    "scale": scaled,
    "shear": sheared,
    "inverted": invert_rigid,
    "axes: OpenGL cameras": lambda m: GL_FROM_CV @ m,
    "axes: OpenGL cameras and world": lambda m: GL_FROM_CV @ m @ GL_FROM_CV,
    "axes: Unreal cameras and world": lambda m: CV_FROM_UNREAL.T @ m @ CV_FROM_UNREAL,
    "centimetres": centimetres,
    "jump": jumped,
    "jump: one pose": one_bad_pose,
    "finite": not_finite,
    "first-pose": away_from_the_source,
}


@pytest.mark.parametrize("spec", GOOD)
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_mistake_is_named(planted, spec):
    if planted.startswith("jump") and spec == "180":
        return  # half a unit is one step of this wide path
    track = good_track(spec)
    wrong = CameraTrack(PLANTED[planted](poses_of(track)), track.K, track.size_hw, fps=FPS)
    codes = [finding.code for finding in lint_track(wrong)]
    assert codes == [planted.partition(":")[0]]


def test_degrees_taken_as_radians():
    """An orbit written with sin(60) instead of sin(60 degrees)."""
    for degrees in (20, 60, 90, 180):
        angle = np.linspace(0, degrees, 49)
        eye = np.stack([3 * np.sin(angle), np.zeros(49), 3 - 3 * np.cos(angle)], -1)
        poses = look_at(eye, np.tile([0.0, 0, 3], (49, 1)))
        assert "degrees" in [finding.code for finding in lint_track(CameraTrack(poses))]


def test_lengths_rates_lenses_and_surfaces():
    track = good_track("orbit:40")

    def codes(**options):
        return [finding.code for finding in lint_track(track, **options)]

    assert codes(num_frames=49, fps=FPS) == []
    assert codes(num_frames=81) == ["truncated"] and codes(num_frames=33) == ["frames"]
    assert codes(fps=Fraction(30)) == ["fps"]
    through = good_track("dolly:in=90%")
    assert [f.code for f in lint_track(through, depth=scene(2.0))] == ["surface"]
    assert lint_track(through, depth=scene(3.0)) == []
    radians = CameraTrack(track.cam_from_world, focal_over_height=np.full(49, 0.5 / np.tan(np.radians(0.9) / 2)))
    assert [f.code for f in lint_track(radians)] == ["lens"]
    far = CameraTrack(track.scaled(30).cam_from_world)
    assert [f.code for f in lint_track(far, depth=scene(3.0))] == ["centimetres"]


def test_an_inverted_reconstruction():
    """Another world than the first camera's, as COLMAP's: even a plain orbit shows which way its matrices go."""
    world = se3_exp(np.array([0.4, -1.0, 0.3, 2.0, 1.0, -3.0]))
    poses = good_track("orbit:70").cam_from_world @ world
    assert lint_track(CameraTrack(poses, world="file")) == []
    assert [f.code for f in lint_track(CameraTrack(invert_rigid(poses), world="file"))] == ["inverted"]


def test_a_file_cut_off_is_said_to_be(tmp_path):
    track = good_track("orbit:40", 9)
    for name in ("ex4d", "nerfstudio", "re10k", "recammaster", "ex4d-release", "tum"):
        format = get_format(name)
        file = tmp_path / f"{name}{format.suffix}"
        format.write(file, {"": track})
        whole = file.read_bytes()
        assert not any(lint_file(str(file), num_frames=9).values()), name
        file.write_bytes(whole[: len(whole) * 2 // 3])
        assert [f.code for f in lint_file(str(file), num_frames=9)[""]][:1] == ["truncated"], name
    document = {"fps": 24, "seconds": 2, "render_height": 10, "render_width": 10}
    document["camera_path"] = [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 50}] * 40
    (tmp_path / "path.json").write_text(json.dumps(document))
    assert [f.code for f in lint_file(str(tmp_path / "path.json"))[""]] == ["truncated"]


def test_what_is_no_camera_file_is_no_finding(tmp_path):
    (tmp_path / "notes.txt").write_text("buy milk\n")
    for spec in (tmp_path / "notes.txt", tmp_path / "none.json"):
        with pytest.raises(InputError):
            lint_file(str(spec))


WORDS = [
    lambda r: f"orbit:yaw={r.uniform(-90, 90):.1f},pitch={r.uniform(-20, 40):.1f},in={r.uniform(-50, 50):.0f}%",
    lambda r: f"truck:right={r.uniform(-40, 40):.0f}%",
    lambda r: f"dolly:in={r.uniform(-60, 60):.0f}%",
    lambda r: f"pan:{r.uniform(-40, 40):.1f}",
    lambda r: f"tilt:{r.uniform(-20, 20):.1f}",
    lambda r: f"roll:{r.uniform(-40, 40):.1f}",
    lambda r: f"spiral:turns={r.uniform(1, 3):.1f},angle={r.uniform(5, 20):.1f}",
    lambda r: f"pedestal:up={r.uniform(-30, 30):.0f}%",
    lambda r: f"dolly-zoom:in={r.uniform(-50, 60):.0f}%",
    lambda r: str(r.choice(["60", "-90", "180_outer", "zoom_in", "-30", "static"])),
]


def random_good_track(seed):
    """Words in sequence or together, random splines, splines that look at something: all of 49 or more frames."""
    r = np.random.default_rng(seed)
    n = int(r.choice([49, 81, 120]))
    if r.random() < 0.5:
        parts = [make(r) for make in r.choice(np.array(WORDS, dtype=object), r.integers(1, 4), replace=False)]
        eased = [
            part + (":" if ":" not in part else ",") + f"ease={r.choice(['linear', 'in-out', 'sine'])}"
            for part in parts
        ]
        return track_from_path(make_path([" + ", " then "][r.integers(2)].join(eased), first=scene(r.uniform(1, 8)), num_frames=n, fps=FPS))  # fmt: skip
    count, distance = int(r.integers(2, 7)), r.uniform(1, 8)
    keys = [np.eye(4)]
    for _ in range(count - 1):
        step = keys[-1] @ se3_exp(np.concatenate([r.normal(size=3) * 0.25, r.normal(size=3) * 0.5]))
        look = invert_rigid(look_at(r.normal(size=3) * [1, 0.5, 0.5], np.array([0, 0, distance + 2])))
        keys.append(step if seed % 2 else look)
    poses, _ = sample_keys([Key(i / (count - 1), key) for i, key in enumerate(keys)], n, distance, constant_speed=bool(r.integers(2)))  # fmt: skip
    return CameraTrack(invert_rigid(poses))


def test_two_hundred_good_random_paths_pass_in_silence():
    named = {seed: findings for seed in range(200) if (findings := lint_track(random_good_track(seed)))}
    assert not named
