"""G1: released trajectories, intrinsics and clip matrices within 1e-6 (5e-4 for clip positions)."""

import re
from fractions import Fraction

import numpy as np
import pytest

from ex4d.cameras.formats.base import ReadOptions
from ex4d.cameras.formats.ex4d_release import read
from ex4d.cameras.make import make_path
from ex4d.geometry.frames import GL_FROM_CV
from ex4d.geometry.pinhole import fov_rad, intrinsics
from ex4d.types import DepthClip

NEAR, FAR = 1e-3, 1e3


def reference_path(preset, radius, num_frames, size_hw=(64, 64)):
    """The path of a clip whose nearest depth gives this radius (the release adds 0.15)."""
    depth = np.full((1, *size_hw), radius - 0.15, np.float32)
    first = DepthClip(depth, intrinsics(size_hw, 500.0)[None])
    return make_path(preset, first=first, num_frames=num_frames, fps=Fraction(30), reference=True)


def test_released_poses(load_golden):
    arrays = load_golden("cameras.npz")
    checked = 0
    for key, view in arrays.items():
        named = re.fullmatch(r"view_cam(.+)_n(\d+)_r(\d+)", key)
        if not named:
            continue
        radius = float(arrays["radii"][int(named[3])])
        path = reference_path(named[1], radius, int(named[2]))
        # the release's matrices look left: x negated is OpenCV's
        expected = np.diag([-1.0, 1, 1, 1]) @ view
        np.testing.assert_allclose(path.cam_from_world, expected, rtol=0, atol=1e-6, err_msg=key)
        checked += 1
    print(f"cameras.npz: {checked} trajectories checked")
    assert checked, "no trajectory in cameras.npz"


def test_intrinsics_fields_of_view_and_clip_matrices(load_golden):
    arrays = load_golden("cameras.npz")
    checked = 0
    for key, K in arrays.items():
        if not (named := re.fullmatch(r"K_(\d+)x(\d+)", key)):
            continue
        h, w = int(named[1]), int(named[2])
        np.testing.assert_array_equal(intrinsics((h, w), 500.0), K)
        fov = [fov_rad(w, 500.0), fov_rad(h, 500.0)]
        np.testing.assert_allclose(fov, arrays[f"fov_xy_{h}x{w}"], rtol=0, atol=1e-6)
        proj = clip_from_gl(h, w)
        np.testing.assert_allclose(proj, arrays[f"proj_{h}x{w}"], rtol=0, atol=1e-6)
        for name in arrays:
            if m := re.fullmatch(rf"mvp_{h}x{w}_cam(.+)_n(\d+)_r(\d+)_i(\d+)", name):
                path = reference_path(m[1], float(arrays["radii"][int(m[3])]), int(m[2]))
                clip_from_world = proj @ GL_FROM_CV @ path.cam_from_world[int(m[4])]
                np.testing.assert_allclose(clip_from_world, arrays[name], rtol=0, atol=5e-4)
        checked += 1
    print(f"cameras.npz: {checked} sizes checked")
    assert checked, "no intrinsics in cameras.npz"


def clip_from_gl(h, w):
    """The release's clip matrix: y grows downwards, as its rasteriser wrote rows from the top."""
    a, b = -(FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
    return np.array([[1000 / w, 0, 0, 0], [0, -1000 / h, 0, 0], [0, 0, a, b], [0, 0, -1, 0]])


def test_the_published_camera_file_from_its_radius(shared):
    file = shared / "videos" / "flower" / "camera_180.npz"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    track = read(file, ReadOptions())[""]
    path = reference_path("180", 2.7401088, 49, (512, 512))
    np.testing.assert_allclose(path.cam_from_world, track.cam_from_world, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(path.K, track.K.astype(np.float32))


@pytest.mark.parametrize("planted", ["radius", "frames", "lens sign", "rise"])
def test_the_check_sees_planted_faults(load_golden, planted):
    arrays = load_golden("cameras.npz")
    key = next(key for key in arrays if key.startswith("view_cam90_n49"))
    radius = float(arrays["radii"][int(key[-1])])
    path = reference_path("60" if planted == "rise" else "90", radius + (planted == "radius") * 0.01, 49)
    poses = path.cam_from_world.copy()
    if planted == "lens sign":
        poses[:, 0] *= -1
    if planted == "frames":
        poses = np.roll(poses, 1, axis=0)
    assert np.abs(poses - np.diag([-1.0, 1, 1, 1]) @ arrays[key]).max() > 1e-3
