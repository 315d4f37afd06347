"""Every camera format: there and back on generated paths, real sample files, and axes checked by projecting known points."""

import json
import math
import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ex4d.cameras.formats import blender, colmap_bin, gen3c, trajectorycrafter
from ex4d.cameras.formats.base import ReadOptions
from ex4d.cameras.formats.registry import detect, formats, get_format, losses, read_track, read_tracks, split_spec
from ex4d.cameras.formats.track import CameraTrack, path_from_track, track_from_path
from ex4d.cameras.make import make_path
from ex4d.errors import InputError
from ex4d.geometry.frames import GL_FROM_CV, invert_rigid
from ex4d.geometry.pinhole import intrinsics, project
from ex4d.geometry.rotations import se3_exp
from ex4d.types import CameraPath, DepthClip

GENERAL = [name for name in formats() if name != "trajectorycrafter"]
SIZE = (96, 128)
units = st.floats(-1, 1, allow_subnormal=False)


@st.composite
def paths(draw, zoom=True):
    """A random walk on SE(3) that starts at the source camera, with a lens per frame and a time remap."""
    n = draw(st.integers(2, 6))
    poses, pose = [], np.eye(4)
    for _ in range(n):
        poses.append(pose)
        pose = pose @ se3_exp(np.array([draw(units) for _ in range(6)]) * [1.5, 1.5, 1.5, 3, 3, 3])
    K = np.repeat(intrinsics(SIZE, 90.0)[None], n, axis=0)
    if zoom:
        K[:, [0, 1], [0, 1]] *= np.array([1.0, *[draw(st.floats(0.5, 2)) for _ in range(n - 1)]], np.float32)[:, None]
    return CameraPath(invert_rigid(np.stack(poses)), K, SIZE, np.arange(float(n))[::-1].copy())


def lens_for(format, path):
    """The path's track with the lens that this format can hold."""
    track = track_from_path(path, Fraction(24))
    if "lens" in format.keeps or "fov" in format.keeps:
        return track
    K = np.repeat(track.K[:1], len(track), axis=0)
    if "zoom ramp" in format.keeps:
        K[:, :2, :2] *= np.linspace(1, 1.7, len(track))[:, None, None]
    return replace(track, K=K)


def there_and_back(format, tracks, folder, **options):
    out = folder / f"file{format.suffix}"
    if out.is_dir():
        shutil.rmtree(out)
    format.write(out, tracks)
    assert detect(out).name == format.name, "found by content"
    return out, format.read(out, ReadOptions(**options))


@pytest.mark.parametrize("name", GENERAL)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=paths())
def test_path_to_file_to_path(name, path, tmp_path):
    format = get_format(name)
    track = lens_for(format, path)
    _, read = there_and_back(format, {"": track}, tmp_path)
    back = next(iter(read.values()))
    single = "float32" in format.keeps
    np.testing.assert_allclose(back.cam_from_world, track.cam_from_world, rtol=0, atol=4e-6 if single else 1e-6)
    again = path_from_track(back, size_hw=SIZE, K=path.K[0], lens="file", world="file")
    if format.keeps & {"lens", "one lens", "fov", "zoom ramp"}:
        np.testing.assert_allclose(again.K, track.K, rtol=2e-6)
    if "fps" in format.keeps:
        assert back.fps == 24
    if "size" in format.keeps:
        assert back.size_hw == SIZE
    if "source time" in format.keeps:
        np.testing.assert_array_equal(again.source_time, path.source_time)
    check = path_from_track(back, size_hw=SIZE, K=path.K[0])
    np.testing.assert_allclose(check.cam_from_world[0], np.eye(4), atol=1e-6)


@pytest.mark.parametrize("name", list(formats()))
def test_file_to_path_to_file_is_the_same_file(name, tmp_path):
    format = get_format(name)
    spec = "orbit:yaw=33" if name == "trajectorycrafter" else "orbit:yaw=33,pitch=7,in=10% + roll:4"
    first = DepthClip(np.full((1, *SIZE), 2.0, np.float32), intrinsics(SIZE, 90.0)[None])
    track = track_from_path(make_path(spec, first=first, num_frames=7, fps=Fraction(24)), Fraction(24))
    options = {"num_frames": 7, "radius": 2.0} if name == "trajectorycrafter" else {}
    out, read = there_and_back(format, {"": replace(track, extras={"radius": 2.0})}, tmp_path, **options)
    second = tmp_path / f"second{format.suffix}"
    format.write(second, read)
    for file in sorted(out.iterdir()) if out.is_dir() else [out]:
        other = second / file.name if out.is_dir() else second
        if file.suffix == ".npz":
            with np.load(file) as a, np.load(other) as b:
                assert a.files == b.files
                for key in a.files:
                    assert a[key].dtype == b[key].dtype
                    np.testing.assert_allclose(a[key], b[key], rtol=0, atol=1e-14)
        elif file.suffix in (".json", ".csv", ".txt", ".bin", ".npz"):
            assert_same_content(file, other)


def assert_same_content(a, b):
    if a.suffix == ".bin":
        np.testing.assert_equal(len(a.read_bytes()), len(b.read_bytes()))
        return
    one, two = (path.read_text().replace("[", " ").replace("]", " ").replace(",", " ").split() for path in (a, b))
    assert len(one) == len(two)
    for x, y in zip(one, two, strict=True):
        if x != y:
            assert abs(float(x) - float(y)) <= 1e-12 * max(1, abs(float(x))), (x, y)


SAMPLES = {
    "ex4d_camera_180.npz": "ex4d-release",
    "trajcrafter_loop1.txt": "trajectorycrafter",
    "trajcrafter_loop2.txt": "trajectorycrafter",
    "recammaster_camera_extrinsics.json": "recammaster",
    "infcam_camera_extrinsics_10types.json": "infcam",
    "cameractrl_0bf152ef84195293.txt": "re10k",
    "cameractrl_0f47577ab3441480.txt": "re10k",
    "videoxfun_CW.txt": "re10k",
    "videoxfun_Pan_Left.txt": "re10k",
    "videoxfun_Pan_Up.txt": "re10k",
    "videoxfun_Zoom_In.txt": "re10k",
    "vista4d_couple-newspaper_dolly-zoom.npz": "vista4d",
    "vista4d_parkour_truck-left.npz": "vista4d",
    "vista4d_soapbox_crane-above-right.npz": "vista4d",
    "neoverse_custom.json": "neoverse",
    "neoverse_custom.npz": "neoverse",
    "neoverse_custom2.json": "neoverse",
    "neoverse_front_to_left.json": "neoverse",
    "neoverse_orbit_left_pull_out.json": "neoverse",
    "neoverse_sparse_matrices.json": "neoverse",
    "nerfstudio_camera_path.json": "nerfstudio-path",
    "instantngp_fox_transforms.json": "nerfstudio",
    "nerfstudio_lego_test_transforms_train.json": "nerfstudio",
    "tum_groundtruth.txt": "tum",
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_real_files_are_found_read_and_written_back(sample, shared, tmp_path):
    source = tmp_path / sample.replace("neoverse_custom", "custom")
    shutil.copy(shared / "formats" / sample, source)
    if sample == "neoverse_custom.json":
        shutil.copy(shared / "formats" / "neoverse_custom.npz", tmp_path / "custom.npz")
    format = detect(source)
    assert format.name == SAMPLES[sample]
    tracks = format.read(source, ReadOptions())
    for track in tracks.values():
        det = np.linalg.det(track.cam_from_world[:, :3, :3])
        np.testing.assert_allclose(det, 1, atol=1e-4)
    if source.suffix == ".npz" and format.name == "neoverse":
        return  # an input of the JSON, not written alone
    out = tmp_path / f"out{format.suffix}"
    format.write(out, tracks)
    again = format.read(out, ReadOptions())
    assert list(again) == list(tracks)
    for name, track in tracks.items():
        np.testing.assert_allclose(again[name].cam_from_world, track.cam_from_world, rtol=0, atol=1e-9)
        if track.K is not None:
            np.testing.assert_allclose(again[name].K, track.K, rtol=1e-12)
    if source.suffix == ".npz":
        with np.load(source) as a, np.load(out) as b:
            assert set(a.files) == set(b.files)
            for key in a.files:
                np.testing.assert_allclose(a[key], b[key], rtol=0, atol=1e-9)
                assert a[key].dtype == b[key].dtype
    elif source.suffix == ".json" and sample != "neoverse_custom.json":
        assert_same_json(json.loads(source.read_text()), json.loads(out.read_text()))
    elif sample != "neoverse_custom.json":
        lines = [line for line in source.read_text().splitlines() if not line.startswith("#")]
        for a, b in zip(lines, out.read_text().splitlines(), strict=True):
            if format.name == "re10k" and a.startswith("http"):
                assert a == b
            else:
                np.testing.assert_allclose(
                    [float(v) for v in b.split()], [float(v) for v in a.split()], rtol=0, atol=1e-9
                )


def assert_same_json(a, b):
    if isinstance(a, dict):
        assert set(a) <= set(b)
        for key in a:
            assert_same_json(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same_json(x, y)
    elif isinstance(a, int | float) and not isinstance(a, bool):
        assert abs(a - b) <= 1e-9 * max(1, abs(a))
    elif isinstance(a, str) and a.startswith("[") and a != b:
        numbers = [
            [float(v) for v in text.replace("[", " ").replace("]", " ").replace(",", " ").split()] for text in (a, b)
        ]
        np.testing.assert_allclose(*numbers, rtol=0, atol=1e-9)
    else:
        assert a == b


def test_a_real_colmap_model(shared, tmp_path):
    shutil.copy(shared / "formats" / "colmap_cameras.txt", tmp_path / "cameras.txt")
    shutil.copy(shared / "formats" / "colmap_images_first3.txt", tmp_path / "images.txt")
    track = read_track(str(tmp_path))
    assert track.size_hw == (2160, 3840) and track.names == tuple(f"frame_{i:06d}.png" for i in range(3))
    np.testing.assert_allclose(track.K[0], [[2567.9902, 0, 1928.3684], [0, 2567.9902, 1080.0807], [0, 0, 1]])
    np.testing.assert_allclose(track.cam_from_world[1, :3, 3], [0.014133767138848317, 0.024720606441378894, -0.03083650487968785])  # fmt: skip
    get_format("colmap").write(tmp_path / "again", {"": track})
    words = (tmp_path / "again" / "images.txt").read_text().split("\n")[4].split()
    np.testing.assert_allclose([float(v) for v in words[1:5]], [0.9572868003607523, -0.2862762125644496, -0.018446495499720824, -0.03616128839803884], atol=1e-12)  # fmt: skip
    cameras = colmap_bin.read_cameras(shared / "formats" / "colmap_cameras.bin")
    assert [(camera.model, len(camera.params)) for camera in cameras.values()] == [("SIMPLE_RADIAL", 4)]


# --- axes: what moves where in the picture -------------------------------------------------------------------------------


def seen(track, point, i=-1):
    """Pixel of a world point in a 100 px wide picture with a 90 degree lens."""
    p = track.cam_from_world[i] @ [*point, 1]
    assert p[2] > 0, "in front of the camera"
    return project(p[None, :3], intrinsics((100, 100), 50.0))[0]


@pytest.mark.parametrize(
    ("sample", "way"),
    [
        ("recammaster_camera_extrinsics.json#cam01", (-1, 0)),  # pans right: the middle goes left
        ("recammaster_camera_extrinsics.json#cam02", (1, 0)),
        ("recammaster_camera_extrinsics.json#cam03", (0, 1)),  # tilts up: the middle goes down
        ("recammaster_camera_extrinsics.json#cam04", (0, -1)),
        ("infcam_camera_extrinsics_10types.json#cam01", (-1, 0)),
        ("infcam_camera_extrinsics_10types.json#cam03", (0, 1)),
        ("videoxfun_Pan_Left.txt", (1, 0)),  # moves left, says its name: a near point goes right
        ("videoxfun_Pan_Up.txt", (0, 1)),
    ],
)
def test_real_files_move_as_they_are_named(sample, way, shared):
    track = read_track(str(shared / "formats" / sample)).rebased()
    moved = seen(track, (0, 0, 5)) - seen(track, (0, 0, 5), 0)
    for delta, sign in zip(moved, way, strict=True):
        assert sign * delta > 3 if sign else abs(delta) < 1


def test_real_distances_are_metres_and_forward_is_forward(shared):
    forward = read_track(str(shared / "formats" / "recammaster_camera_extrinsics.json#cam05")).rebased()
    np.testing.assert_allclose(forward.world_from_cam[-1, :3, 3], [0, 0, 1.9876], atol=1e-3)
    arc = read_track(str(shared / "formats" / "recammaster_camera_extrinsics.json#cam09")).rebased()
    np.testing.assert_allclose(arc.world_from_cam[-1, :3, 3], [-1.9876, 0, 0.5326], atol=1e-3)
    zoom = read_track(str(shared / "formats" / "videoxfun_Zoom_In.txt")).rebased()
    np.testing.assert_allclose(zoom.world_from_cam[-1, :3, 3], [0, 0, 2.963], atol=1e-3)
    pushed = read_track(str(shared / "formats" / "neoverse_orbit_left_pull_out.json"))
    assert pushed.world_from_cam[40, 0, 3] < -0.1 and pushed.world_from_cam[80, 2, 3] < 0
    loop = read_track(str(shared / "formats" / "trajcrafter_loop1.txt"), ReadOptions(49, 2.0))
    assert loop.world_from_cam[9, 1, 3] < 0, "theta > 0 raises the camera (y is down)"
    assert loop.world_from_cam[20, 0, 3] < 0, "phi < 0 moves it to the left"


HAND_MADE = {
    # a camera at (1, 0, 0), turned by 90 degrees to look along world +x: what lies there stands in its middle
    "ex4d-release": lambda R, c: {
        "extrinsics": (GL_FROM_CV @ w2c(R, c))[None].repeat(2, 0).astype(np.float32),
        "intrinsics": np.float32([[50, 0, 50], [0, 50, 50], [0, 0, 1]]),
    },  # fmt: skip
    "vista4d": lambda R, c: {"cam_c2w": c2w(R, c)[None], "intrinsics": np.array([[50.0, 50, 50, 50]])},
    "gen3c-npz": lambda R, c: {
        "w2c": w2c(R, c)[None].astype(np.float32),
        "intrinsics": np.float32([[[50, 0, 50], [0, 50, 50], [0, 0, 1]]]),
    },  # fmt: skip
    "nerfstudio": lambda R, c: {
        "fl_x": 50,
        "fl_y": 50,
        "cx": 50,
        "cy": 50,
        "w": 100,
        "h": 100,
        "frames": [{"file_path": "a.png", "transform_matrix": (c2w(R, c) @ GL_FROM_CV).tolist()}],
    },  # fmt: skip
    "nerfstudio-path": lambda R, c: {
        "render_height": 100,
        "render_width": 100,
        "seconds": 1,
        "camera_path": [{"camera_to_world": (c2w(R, c) @ GL_FROM_CV).ravel().tolist(), "fov": 90, "aspect": 1}],
    },  # fmt: skip
    "cam-info": lambda R, c: {
        "intrinsic": [[50, 0, 50], [0, 50, 50], [0, 0, 1]],
        "extrinsic": [np.eye(4).tolist(), w2c(R, c).tolist()],
        "height": 100,
        "width": 100,
        "k_resolution": [100, 100],
    },  # fmt: skip
    "gen3c": lambda R, c: {
        "path": [{"R": [0, math.sin(math.pi / 4), 0, math.cos(math.pi / 4)], "T": list(c), "fov": 90, "timestamp": 1}],
        "spline_order": 1,
    },  # fmt: skip
    "neoverse": lambda R, c: {
        "num_frames": 2,
        "trajectory": {"frame_indices": [0, 1], "frame_matrices": [np.eye(4).tolist(), c2w(R, c).tolist()]},
    },  # fmt: skip
    "tum": lambda R, c: f"0 {c[0]} {c[1]} {c[2]} 0 {math.sin(math.pi / 4)} 0 {math.cos(math.pi / 4)}\n",
    "csv": lambda R, c: (
        f"x,y,z,qw,qx,qy,qz\n{c[0]},{c[1]},{c[2]},{math.cos(math.pi / 4)},0,{math.sin(math.pi / 4)},0\n"
    ),
    "re10k": lambda R, c: "header\n0 0.5 0.5 0.5 0.5 0 0 " + " ".join(str(v) for v in w2c(R, c)[:3].ravel()),
    "recammaster": lambda R, c: {
        "frame0": {"cam01": "[1 0 0 0] [0 1 0 0] [0 0 1 0] [0 0 0 1] "},
        "frame1": {"cam01": "[0 1 0 0] [-1 0 0 0] [0 0 1 0] [0 100 0 1] "},
    },  # fmt: skip
    "infcam": lambda R, c: {"frame0": {"cam01": "[1 0 0 0] [0 0 -1 0] [0 -1 0 0] [100 0 0 1] "}},
    "ex4d": lambda R, c: {
        "version": 1,
        "axes": "opencv",
        "size_hw": [100, 100],
        "fps": 24.0,
        "frames": [
            {"cam_from_world": w2c(R, c).tolist(), "K": [[50, 0, 50], [0, 50, 50], [0, 0, 1]], "source_time": 0}
        ],
    },  # fmt: skip
}


def c2w(R, c):
    m = np.eye(4)
    m[:3, :3], m[:3, 3] = R, c
    return m


def w2c(R, c):
    return np.linalg.inv(c2w(R, c))


@pytest.mark.parametrize("name", HAND_MADE)
def test_a_file_made_by_hand_shows_known_points_where_they_are(name, tmp_path):
    """The camera stands at (1, 0, 0) and looks along +x; its right is world -z, its down world +y."""
    R = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    content = HAND_MADE[name](R, (1.0, 0.0, 0.0))
    format = get_format(name)
    file = tmp_path / f"hand{format.suffix}"
    if format.suffix == ".npz":
        np.savez(file, **content)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    assert detect(file).name == name
    track = read_track(str(file))
    track = track.rebased() if name == "recammaster" else track
    np.testing.assert_allclose(seen(track, (6, 0, 0)), [50, 50], atol=1e-4)
    np.testing.assert_allclose(seen(track, (6, 0, -1)), [60, 50], atol=1e-4)
    np.testing.assert_allclose(seen(track, (6, 1, 0)), [50, 60], atol=1e-4)


def test_blender_axes_and_lens_by_a_known_view():
    """A camera at Blender's (0, -5, 1), rotation (90, 0, 0) degrees: it looks along +y, z is up in the picture."""
    c2w_blender = [1, 0, 0, 0, 0, 0, -1, -5, 0, 1, 0, 1, 0, 0, 0, 1]
    frame = {"c2w": c2w_blender, "lens_mm": 36.0, "sensor_width_mm": 36.0, "sensor_height_mm": 24.0, "sensor_fit": "AUTO", "shift_x": 0.1, "shift_y": 0.0}  # fmt: skip
    document = {"width": 100, "height": 60, "frames": [frame]}
    K = blender.lens_to_K(document, frame)
    np.testing.assert_allclose(K, [[100, 0, 40], [0, 100, 30], [0, 0, 1]])
    portrait = blender.lens_to_K({"width": 60, "height": 100}, frame)
    np.testing.assert_allclose(portrait[0, 0], 100), "AUTO fits the longer side with the sensor's width"
    world_from_cam = blender.CV_FROM_BLENDER @ np.reshape(c2w_blender, (4, 4)) @ GL_FROM_CV
    up_in_blender = blender.CV_FROM_BLENDER @ [0, 0, 3.0, 1]
    p = np.linalg.inv(world_from_cam) @ up_in_blender
    assert p[1] < 0 < p[2], "a point above the camera is above the middle of its picture"
    right = np.linalg.inv(world_from_cam) @ blender.CV_FROM_BLENDER @ [2.0, 0, 1, 1]
    assert right[0] > 0


class FakeMatrix(list):
    """As much of mathutils.Matrix as the exporter uses."""

    def determinant(self):
        return float(np.linalg.det(np.array(self)))

    def normalized(self):
        m = np.array(self, float)
        m[:3, :3] /= np.linalg.norm(m[:3, :3], axis=0)
        return FakeMatrix(m.tolist())


def fake_blender(matrix, camera_type="PERSP"):
    from types import SimpleNamespace as NS

    data = NS(type=camera_type, lens=50.0, sensor_width=36.0, sensor_height=24.0, sensor_fit="AUTO", shift_x=0.0, shift_y=0.0, clip_start=0.1, clip_end=100.0)  # fmt: skip
    camera = NS(type="CAMERA")
    camera.evaluated_get = lambda graph: NS(data=data, matrix_world=FakeMatrix(matrix.tolist()))
    render = NS(fps=30, fps_base=1.001, resolution_x=1920, resolution_y=1080, resolution_percentage=50, pixel_aspect_x=1.0, pixel_aspect_y=1.0)  # fmt: skip
    scene = NS(camera=camera, render=render, frame_current=7, frame_start=1, frame_end=5, frame_step=2, unit_settings=NS(scale_length=0.01, system="METRIC"))  # fmt: skip
    scene.frame_set = lambda frame: setattr(scene, "frame_current", frame)
    return NS(context=NS(scene=scene, evaluated_depsgraph_get=lambda: None))


def test_what_blender_exports_is_read(tmp_path):
    """The exporter itself, run against a stand-in for Blender's module: scaled parent, 29.97 fps, centimetres."""
    from ex4d.cameras.formats.blender_export import export

    matrix = np.array([[2.0, 0, 0, 0], [0, 0, -2, -500], [0, 2, 0, 100], [0, 0, 0, 1]])
    bpy = fake_blender(matrix)
    export(bpy, str(tmp_path / "camera.json"))
    assert bpy.context.scene.frame_current == 7, "the scene is left as it was"
    format, tracks = read_tracks(str(tmp_path / "camera.json"))
    track = tracks[""]
    assert format.name == "blender" and len(track) == 3 and track.size_hw == (540, 960) and track.unit == "metric"
    assert abs(float(track.fps) - 29.97) < 1e-3
    np.testing.assert_allclose(track.world_from_cam[0, :3, 3], [0, -1, -5], atol=1e-12), "metres, y down, z forward"
    np.testing.assert_allclose(track.cam_from_world[0, :3, :3], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(track.K[0, 0, 0], 50 / 36 * 960)
    with pytest.raises(SystemExit, match="mirrored"):
        export(fake_blender(matrix * [-1, 1, 1, 1]), str(tmp_path / "bad.json"))
    with pytest.raises(SystemExit, match="ORTHO"):
        export(fake_blender(matrix, "ORTHO"), str(tmp_path / "bad.json"))
    assert not (tmp_path / "bad.json").exists()


# --- formats of keys ----------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    theta=st.floats(-50, 50),
    phi=st.floats(-80, 80),
    r=st.floats(-0.5, 0.5),
    radius=st.floats(0.5, 5),
    n=st.integers(5, 60),
)
def test_trajectorycrafter_paths_of_its_own_family(theta, phi, r, radius, n, tmp_path_factory):
    out = tmp_path_factory.mktemp("t") / "t.txt"
    out.write_text(f"0 {theta}\n0 {phi / 3} {phi / 2} {phi}\n0 {r / 2} {r}")
    options = ReadOptions(n, radius)
    track = trajectorycrafter.read(out, options)[""]
    trajectorycrafter.write(out, {"": replace(track, extras={"radius": radius})})
    back = trajectorycrafter.read(out, options)[""]
    smoothed = losses(out, get_format("trajectorycrafter"), {"": replace(track, extras={"radius": radius})})
    if not smoothed:
        np.testing.assert_allclose(back.cam_from_world, track.cam_from_world, atol=1e-6 * max(radius, 1))


def test_trajectorycrafter_rows_are_smoothed_as_its_own_tool_does():
    scipy_interpolate = pytest.importorskip("scipy.interpolate")
    rng = np.random.default_rng(1)
    for n, size in ((4, 30), (9, 30), (13, 20), (25, 3), (30, 60)):
        keys = rng.normal(size=n) * size
        x, frames = np.linspace(0, 1, n), np.linspace(0, 1, 49)
        expected = scipy_interpolate.UnivariateSpline(x, keys, k=3)(frames)
        mine = trajectorycrafter.stretched(keys, 49)
        np.testing.assert_allclose(mine[1:-1], expected[1:-1], atol=1e-6 * size)
        assert mine[0] == keys[0] and mine[-1] == keys[-1]


def test_trajectorycrafter_refuses_what_it_cannot_say(tmp_path):
    track = track_from_path(make_path("orbit:30 + roll:10", first=flat(), num_frames=9, fps=Fraction(24)))
    with pytest.raises(InputError, match="rolls"):
        trajectorycrafter.write(tmp_path / "x.txt", {"": track})


def flat():
    return DepthClip(np.full((1, *SIZE), 2.0, np.float32), intrinsics(SIZE, 90.0)[None])


def test_gen3c_splines_by_their_measured_values(tmp_path):
    keys = [{"R": [0, 0, 0, 1], "T": [v, 0, 0], "fov": 60, "timestamp": i + 1} for i, v in enumerate((0, 1, 0, 2))]
    file = tmp_path / "keys.json"
    for order, expected in ((3, [1 / 6, 2 / 3, 0.5, 5 / 3]), (1, [0, 1, 0, 2])):
        file.write_text(json.dumps({"path": keys, "spline_order": order}))
        track = gen3c.read(file, ReadOptions(4))[""]
        np.testing.assert_allclose(track.world_from_cam[:, 0, 3], expected, atol=1e-12)
    file.write_text(json.dumps({"path": keys, "spline_order": 2}))
    with pytest.raises(InputError, match="spline_order 2"):
        gen3c.read(file, ReadOptions())


def test_neoverse_operations(tmp_path):
    file = tmp_path / "ops.json"
    operations = [
        {"0": [{"static": {}}]},
        {"8": [{"orbit_right": {"angle": 90, "orbit_radius": 2.0}}, {"boom_up": {"distance": 1}}]},
    ]
    file.write_text(json.dumps({"num_frames": 9, "zoom_ratio": 2, "keyframes": operations}))
    track = read_track(str(file))
    np.testing.assert_allclose(track.world_from_cam[-1, :3, 3], [2, -1, 2], atol=1e-9)
    np.testing.assert_allclose(track.world_from_cam[4, :3, 3], [1, -0.5, 1], atol=1e-9), "straight lines between keys"
    path = path_from_track(track, size_hw=SIZE, K=intrinsics(SIZE, 90.0))
    np.testing.assert_allclose(path.K[-1, 0, 0], 180)


# --- the registry ---------------------------------------------------------------------------------------------------------


def test_a_prefix_wins_and_a_name_picks_a_camera(tmp_path):
    first = {
        "frame0": {
            "cam01": "[1 0 0 0] [0 1 0 0] [0 0 1 0] [0 0 0 1] ",
            "cam02": "[1 0 0 0] [0 1 0 0] [0 0 1 0] [0 100 0 1] ",
        }
    }
    file = tmp_path / "two.json"
    file.write_text(json.dumps(first))
    assert split_spec(f"recammaster:{file}#cam02") == ("recammaster", file, "cam02")
    np.testing.assert_allclose(read_track(f"{file}#cam02").world_from_cam[0, :3, 3], [1, 0, 0])
    assert split_spec("C:/cameras/a.json")[0] is None
    for spec, words in ((f"{file}#cam09", "cam01, cam02"), (f"{tmp_path}/none.json", "does not exist")):
        with pytest.raises(InputError, match=words):
            read_tracks(spec)
    with pytest.raises(InputError, match="recammaster"):
        get_format("recammastr")


@pytest.mark.parametrize("name", list(formats()))
def test_every_format_says_its_convention_in_words(name):
    import importlib

    format = get_format(name)
    module = importlib.import_module(format.read.__module__)
    assert "Convention:" in module.__doc__ or "as ReCamMaster" in module.__doc__
    assert len(format.convention) > 20 and format.title


@pytest.mark.parametrize("name", list(formats()))
def test_damage_is_one_clear_line(name, tmp_path):
    """Cut off in the middle, or of another kind: an InputError, never another exception."""
    format = get_format(name)
    track = track_from_path(make_path("orbit:30", first=flat(), num_frames=5, fps=Fraction(24)), Fraction(24))
    out = tmp_path / f"file{format.suffix}"
    format.write(out, {"": track})
    damaged = [out / "images.txt", out / "images.bin"] if out.is_dir() else [out]
    for file in (f for f in damaged if f.is_file()):
        whole = file.read_bytes()
        for content in (whole[: len(whole) * 2 // 3], b"", b"hello there\n", b"{}", whole[:-200]):
            file.write_bytes(content)
            try:
                read = format.read(out, ReadOptions())
                assert all(isinstance(track, CameraTrack) for track in read.values())
            except InputError as error:
                assert "\n" not in str(error)


def test_files_through_make_path(tmp_path):
    first = flat()
    made = make_path("orbit:yaw=40,in=20%", first=first, num_frames=9, fps=Fraction(24))
    for name in ("re10k", "ex4d", "tum", "colmap-bin", "csv"):
        format = get_format(name)
        out = tmp_path / f"{name}{format.suffix}"
        format.write(out, {"": track_from_path(made, Fraction(24))})
        again = make_path(str(out), first=first, num_frames=9, fps=Fraction(24))
        np.testing.assert_allclose(again.cam_from_world, made.cam_from_world, atol=1e-6)
        np.testing.assert_allclose(again.K, made.K, rtol=1e-6)
        assert (make_path(f"{out} @ freeze=2", first=first, num_frames=9, fps=Fraction(24)).source_time == 2).all()
        with pytest.raises(InputError, match="9 poses for 12 frames"):
            make_path(str(out), first=first, num_frames=12, fps=Fraction(24))
