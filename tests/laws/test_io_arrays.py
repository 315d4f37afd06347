"""Depth, cameras and meshes come back from disk as they went."""

import json
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ex4d.errors import InputError
from ex4d.geometry.frames import look_at
from ex4d.io.cameras import read_cameras, write_cameras
from ex4d.io.depth.exr import _unpacked_runs, read_exr, write_exr
from ex4d.io.depth.file import DepthWriter, open_depth, read_depth, write_depth
from ex4d.io.depth.pictures import read_png16, write_depth_exr, write_png16
from ex4d.io.mesh import read_mesh, write_mesh
from ex4d.system.manifest import content_key, file_hash, plain, write_manifest
from ex4d.system.records import is_done, mark_done
from ex4d.types import CameraPath, DepthClip, WatertightMesh

depths = st.floats(0.125, 1e4, width=32)
small = settings(max_examples=15, deadline=None)


def depth_clip(frames=5, hw=(7, 9), poses=False, seed=0):
    rng = np.random.default_rng(seed)
    K = np.tile(np.array([[50, 0, 4.5], [0, 50, 3.5], [0, 0, 1]], np.float32), (frames, 1, 1))
    eyes = rng.normal(size=(frames, 3))
    return DepthClip(
        rng.uniform(0.5, 80, (frames, *hw)).astype(np.float32),
        K,
        "metric",
        look_at(eyes, eyes + [0, 0, 1]) if poses else None,
    )


@pytest.mark.parametrize("poses", [False, True])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_depth_npz_comes_back(tmp_path, poses, compress, half):
    clip, path = depth_clip(poses=poses), tmp_path / "d.npz"
    write_depth(path, clip, Fraction(30000, 1001), half=half, compress=compress)
    back, file = read_depth(path), open_depth(path)
    if half:
        np.testing.assert_array_equal(back.depth, clip.depth.astype(np.float16).astype(np.float32))
    else:
        np.testing.assert_array_equal(back.depth, clip.depth)
    np.testing.assert_array_equal(back.K, clip.K)
    assert back.unit == "metric" and file.fps == Fraction(30000, 1001)
    assert (back.cam_from_world is None) == (not poses)
    if clip.cam_from_world is not None:
        np.testing.assert_array_equal(back.cam_from_world, clip.cam_from_world)
    for start, stop in ((3, 5), (0, 1), (2, 4), (4, 5)):  # in any order
        np.testing.assert_array_equal(file.read(start, stop), back.depth[start:stop].astype(file.read(0, 1).dtype))
    with np.load(path) as plain_file:  # NumPy alone reads it too
        assert plain_file["depth"].dtype == (np.float16 if half else np.float32)


def test_pieces_give_the_bytes_of_the_whole(tmp_path):
    clip = depth_clip(6)
    write_depth(tmp_path / "a.npz", clip, Fraction(25))
    with DepthWriter(tmp_path / "b.npz", 6, Fraction(25)) as writer:
        for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
            writer.write(DepthClip(clip.depth[part], clip.K[part], clip.unit))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_missing_frames_and_errors_leave_no_file(tmp_path):
    with pytest.raises(InputError, match="5 frames"), DepthWriter(tmp_path / "d.npz", 6) as writer:
        writer.write(depth_clip(5))
    with pytest.raises(KeyError), DepthWriter(tmp_path / "d.npz", 6) as writer:
        writer.write(depth_clip(5))
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_foreign_depth_files_are_understood(tmp_path):
    maps = np.arange(1, 25).reshape(2, 3, 4)
    np.savez_compressed(tmp_path / "d.npz", disparity=maps.astype(np.float64))
    file = open_depth(tmp_path / "d.npz")
    assert (file.kind, file.num_frames, file.size_hw, file.K) == ("disparity", 2, (3, 4), None)
    np.testing.assert_array_equal(file.read(1, 2), maps[1:])
    np.testing.assert_array_equal(file.read(0, 1), maps[:1])
    np.savez(tmp_path / "one.npz", depth=maps[0].astype(np.uint16))
    assert open_depth(tmp_path / "one.npz").num_frames == 1 and open_depth(tmp_path / "one.npz").kind is None


@small
@given(
    arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 20)), elements=depths | st.just(np.float32(np.inf)))
)
def test_exr_comes_back(tmp_path_factory, depth):
    path = tmp_path_factory.mktemp("exr") / "d.exr"
    write_exr(path, depth)
    np.testing.assert_array_equal(read_exr(path), depth)
    write_exr(path, depth, half=True)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(read_exr(path), depth.astype(np.float16).astype(np.float32))


def test_exr_of_several_channels_and_without_compression(tmp_path):
    """A file written by hand from the published layout: channels A (half) and Z (float) in rows, stored raw."""
    half, full = np.arange(6, dtype="<f2").reshape(2, 3), np.arange(6, dtype="<f4").reshape(2, 3) + 10

    def attribute(name, kind, value):
        return name + b"\0" + kind + b"\0" + struct.pack("<i", len(value)) + value

    channel = struct.pack("<iB3x2i", 1, 0, 1, 1), struct.pack("<iB3x2i", 2, 0, 1, 1)
    header = struct.pack("<2i", 20000630, 2)
    header += attribute(b"channels", b"chlist", b"A\0" + channel[0] + b"view.Z\0" + channel[1] + b"\0")
    header += attribute(b"compression", b"compression", b"\0")
    header += attribute(b"dataWindow", b"box2i", struct.pack("<4i", 5, 7, 7, 8)) + b"\0"
    rows = [struct.pack("<2i", 7 + y, 18) + half[y].tobytes() + full[y].tobytes() for y in range(2)]
    first = len(header) + 16
    data = header + struct.pack("<2Q", first, first + len(rows[0])) + rows[0] + rows[1]
    path = tmp_path / "d.exr"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_exr(path), full)
    np.testing.assert_array_equal(read_exr(path, "A"), half)
    with pytest.raises(InputError, match="channels A, view.Z"):
        read_exr(path, "Q")
    path.write_bytes(data[:-5])
    with pytest.raises(InputError, match="damaged"):
        read_exr(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="not an OpenEXR"):
        read_exr(path)


def test_runs_are_unpacked():
    assert _unpacked_runs(bytes([3, 7, 256 - 2, 1, 2, 0, 9])) == bytes([7, 7, 7, 7, 1, 2, 9])


def test_depth_pictures_come_back(tmp_path):
    clip = depth_clip(12)
    write_depth_exr(tmp_path / "maps", clip)
    file = open_depth(tmp_path / "maps")
    assert (file.num_frames, file.kind) == (12, "metric")
    np.testing.assert_array_equal(file.read(0, 12), clip.depth)
    np.testing.assert_array_equal(file.K, clip.K[0])
    write_depth_exr(tmp_path / "one.exr", DepthClip(clip.depth[:1], clip.K[:1]))
    np.testing.assert_array_equal(open_depth(tmp_path / "one.exr").read(0, 1), clip.depth[:1])


def test_png_counts_millimetres_and_knows_blind_pixels(tmp_path):
    depth = np.array([[0.5, 12.345, 65.534], [np.nan, 70.0, 0.0002]])
    write_png16(tmp_path / "d.png", depth)
    back = read_png16(tmp_path / "d.png")
    np.testing.assert_allclose(back[0], depth[0], atol=5e-4)
    assert np.isnan(back[1]).all()


def test_pngs_are_sorted_by_number_and_scaled_by_their_sidecar(tmp_path):
    for number in (10, 9, 100):
        write_png16(tmp_path / f"frame-{number}.depth.png", np.full((4, 6), float(number)))
    (tmp_path / "frame-9.color.png").write_bytes(b"not a depth picture")
    np.testing.assert_allclose(open_depth(tmp_path).read(0, 3)[:2, 0, 0], [9, 10], atol=1e-3)
    assert open_depth(tmp_path).kind is None
    (tmp_path / "depth.json").write_text(json.dumps({"unit": "relative", "scale": 0.0002, "fps": 30}))
    file = open_depth(tmp_path)
    np.testing.assert_allclose(file.read(0, 1)[0, 0, 0], 9 / 5, atol=1e-3)
    assert (file.kind, file.fps) == ("relative", 30)


@small
@given(
    eyes=arrays(np.float64, (4, 3), elements=st.floats(-50, 50)),
    focal=st.floats(1, 5000, width=32),
    rate=st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(8000, 133), Fraction(60)]),
    times=arrays(np.float64, 4, elements=st.floats(0, 1000)),
)
def test_cameras_json_comes_back_to_the_last_bit(tmp_path_factory, eyes, focal, rate, times):
    file = tmp_path_factory.mktemp("cameras") / "cameras.json"
    K = np.tile(np.array([[focal, 0.1, 31.7], [0, focal, 17.3], [0, 0, 1]], np.float32), (4, 1, 1))
    path = CameraPath(look_at(eyes, eyes + [0.3, 0.2, 1.0]), K, (36, 64), times, "orbit:40")
    write_cameras(file, path, rate)
    back, fps = read_cameras(file)
    assert (fps, back.size_hw, back.name) == (rate, (36, 64), "orbit:40")
    for name in ("cam_from_world", "K", "source_time"):
        np.testing.assert_array_equal(getattr(back, name), getattr(path, name))
    assert json.loads(file.read_text())["axes"] == "opencv"


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"version": 1}',
        '{"version": 2, "axes": "opencv"}',
        '{"version": 1, "axes": "opengl", "frames": []}',
    ],
)
def test_what_is_no_cameras_json_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match="c.json"):
        read_cameras(tmp_path / "c.json")


def mesh_of(seed=0, visible=None):
    rng = np.random.default_rng(seed)
    flags = rng.random(31) < 0.6 if visible is None else np.full(31, visible)
    return WatertightMesh(
        rng.normal(size=(20, 3)).astype(np.float32),
        rng.integers(0, 20, (31, 3)).astype(np.int32),
        rng.integers(0, 256, (20, 4)).astype(np.float32),
        flags,
    )


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
@pytest.mark.parametrize("visible", [None, True, False])
def test_meshes_come_back_in_order(tmp_path, suffix, visible):
    mesh = mesh_of(visible=visible)
    write_mesh(tmp_path / f"m{suffix}", mesh)
    back = read_mesh(tmp_path / f"m{suffix}")
    np.testing.assert_array_equal(back.vertices, mesh.vertices)
    np.testing.assert_array_equal(back.color, mesh.color)
    order = np.arange(31) if suffix == ".ply" else np.argsort(~mesh.visible, kind="stable")  # a GLB has two lists
    np.testing.assert_array_equal(back.faces, mesh.faces[order])
    np.testing.assert_array_equal(back.visible, mesh.visible[order])


def test_glb_says_its_axes_and_bounds(tmp_path):
    mesh = mesh_of()
    write_mesh(tmp_path / "m.glb", mesh)
    data = (tmp_path / "m.glb").read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    assert struct.unpack_from("<I", data, 8)[0] == len(data) and length % 4 == 0
    document = json.loads(data[20 : 20 + length])
    gl_from_cv = np.array(document["nodes"][0]["matrix"]).reshape(4, 4).T  # glTF writes matrices by columns
    np.testing.assert_array_equal(gl_from_cv, np.diag([1, -1, -1, 1]))
    np.testing.assert_allclose(document["accessors"][0]["min"], mesh.vertices.min(axis=0))
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])


def test_a_foreign_or_broken_mesh_is_refused(tmp_path):
    for name, data in (
        ("a.ply", b"ply\nformat ascii 1.0\nend_header\n"),
        ("a.glb", b"glTF" + bytes(40)),
        ("a.obj", b""),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            read_mesh(tmp_path / name)
    with pytest.raises(InputError, match="suffix"):
        write_mesh(tmp_path / "b.obj", mesh_of())


def test_stages_are_kept_until_something_changes(tmp_path):
    source, out = tmp_path / "in.bin", tmp_path / "out"
    out.mkdir()
    source.write_bytes(b"one")
    key = content_key({"video": source}, {"size": (2, 3)})
    assert not is_done(out, "depth", key)
    (out / "depth.npz").write_bytes(b"result")
    mark_done(out, "depth", key, ["depth.npz"])
    assert is_done(out, "depth", key)
    renamed = tmp_path / "other-name.bin"
    source.rename(renamed)
    assert content_key({"video": renamed}, {"size": (2, 3)}) == key, "names of inputs do not matter, their bytes do"
    assert content_key({"video": renamed}, {"size": (2, 4)}) != key
    renamed.write_bytes(b"two")
    assert content_key({"video": renamed}, {"size": (2, 3)}) != key
    (out / "depth.npz").write_bytes(b"changed by hand")
    assert not is_done(out, "depth", key)
    (out / "depth.npz").unlink()
    assert not is_done(out, "depth", key)
    (out / ".stages" / "depth.json").write_text("broken")
    assert not is_done(out, "depth", key)


def test_folders_are_hashed_by_names_and_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text("x")
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b")
    (tmp_path / "b" / "1.txt").rename(tmp_path / "b" / "2.txt")
    assert file_hash(tmp_path / "a") != file_hash(tmp_path / "b")
    with pytest.raises(InputError):
        file_hash(tmp_path / "none")


def test_a_manifest_is_plain_json(tmp_path):
    (tmp_path / "in").write_text("x")
    config = {
        "path": tmp_path,
        "rate": Fraction(24),
        "nan": float("nan"),
        "array": np.arange(3),
        "flag": np.bool_(True),
    }
    write_manifest(tmp_path / "m.json", config=config, seed=3, inputs={"in": tmp_path / "in"}, warnings=["w"], extra=1)
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["config"] == {"path": str(tmp_path), "rate": 24.0, "nan": "nan", "array": [0, 1, 2], "flag": True}
    assert (record["seed"], record["warnings"], record["extra"]) == (3, ["w"], 1)
    assert record["inputs"]["in"]["sha256"] == file_hash(tmp_path / "in")
    assert {"python", "ex4d", "torch", "numpy"} <= set(record["versions"])
    assert plain({"s": {2, 1}}) == {"s": [1, 2]}
