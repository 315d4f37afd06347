"""Rendering a chunk: source times, source poses, kept first frames, supersampling, and what is refused."""

from fractions import Fraction

import numpy as np
import pytest

from ex4d.errors import InputError, ResourceError
from ex4d.geometry.frames import look_at
from ex4d.geometry.pinhole import intrinsics
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.mesh.watertight import build_mesh
from ex4d.render.clip import render_clip
from ex4d.render.cpu.rasterizer import CpuRasterizer
from ex4d.render.make import get_rasterizer
from ex4d.types import CameraPath, DepthClip, VideoClip

SIZE = (24, 32)
K = intrinsics(SIZE, 30.0)
CPU = CpuRasterizer(2)


def clip_of(count, seed=0):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
    depth = (4 + rng.uniform(-0.02, 0.02, (count, *SIZE))).astype(np.float32)
    return VideoClip(frames, Fraction(24)), DepthClip(depth, np.tile(K, (count, 1, 1)))


def path_of(poses, times):
    return CameraPath(np.stack(poses), np.tile(K, (len(poses), 1, 1)), SIZE, np.asarray(times, np.float64))


def render(source, depth, path, **options):
    settings = {"rule": MeshRule(), "depth_range": DepthRange.of(depth.depth), "rasterizer": CPU} | options
    return render_clip(source, depth, path, **settings)


def test_source_time_takes_the_nearest_frame_in_any_order():
    source, depth = clip_of(4)
    out = render(source, depth, path_of([np.eye(4)] * 5, [0, 0.4, 2.6, 3, 1]))
    for t, s in enumerate([0, 0, 3, 3, 1]):
        np.testing.assert_array_equal(out.color[t], source.frames[s])
        np.testing.assert_array_equal(out.source.frames[t], source.frames[s])
    assert out.mask.all() and out.fps == 24 and out.coverage is None


def test_a_later_chunk_counts_from_the_clips_start():
    source, depth = clip_of(3)
    out = render(source, depth, path_of([np.eye(4)] * 3, [64, 65, 66]), source_start=64)
    np.testing.assert_array_equal(out.color, source.frames)
    with pytest.raises(InputError, match="source time 67"):
        render(source, depth, path_of([np.eye(4)] * 2, [66, 67]), source_start=64)


def test_chunks_together_equal_the_whole():
    source, depth = clip_of(4)
    poses = [look_at(np.array([0.2 * t, 0, 0]), np.array([0.0, 0, 4])) for t in range(4)]
    path, whole_range = path_of(poses, range(4)), DepthRange.of(depth.depth)
    whole = render(source, depth, path)
    halves = [
        render(
            VideoClip(source.frames[s], source.fps),
            DepthClip(depth.depth[s], depth.K[s]),
            path[s],
            depth_range=whole_range,
            source_start=s.start,
        )
        for s in (slice(0, 2), slice(2, 4))
    ]
    for name in ("color", "mask", "depth"):
        np.testing.assert_array_equal(np.concatenate([getattr(h, name) for h in halves]), getattr(whole, name))


def test_source_poses_place_every_mesh_in_one_world():
    """A path equal to the moving source camera's own is the identity for every frame."""
    source, depth = clip_of(3)
    poses = np.stack([look_at(np.array([0.3 * t, -0.1 * t, 0.2 * t]), np.array([0.0, 0, 5])) for t in range(3)])
    moving = DepthClip(depth.depth, depth.K, cam_from_world=poses)
    out = render(source, moving, path_of(list(poses), range(3)))
    assert out.mask.mean() > 0.99
    close = np.abs(out.color.astype(int) - source.frames).max(-1) <= 1
    assert close[out.mask].mean() > 0.99
    still = render(source, moving, path_of([np.eye(4)] * 3, range(3)))
    assert (still.color[2] != source.frames[2]).any()


def test_keep_first_needs_no_identity_pose_and_touches_only_the_first_frame():
    source, depth = clip_of(2)
    aside = look_at(np.array([1.0, 0, 0]), np.array([0.0, 0, 4]))
    kept = render(source, depth, path_of([aside] * 2, [0, 1]), keep_first=True)
    plain = render(source, depth, path_of([aside] * 2, [0, 1]), keep_first=False)
    np.testing.assert_array_equal(kept.color[0], source.frames[0])
    assert kept.mask[0].all() and not plain.mask[0].all()
    np.testing.assert_array_equal(kept.color[1], plain.color[1])
    reference = render(source, depth, path_of([aside] * 2, [0, 1]), rule=MeshRule.reference())
    np.testing.assert_array_equal(reference.color[0], source.frames[0])


def test_supersampling_gives_coverage_between_the_samples():
    source, depth = clip_of(1)
    half = depth.depth.copy()
    half[:, :, :16] = 2.0
    depth = DepthClip(half, depth.K)
    path = path_of([look_at(np.array([0.3, 0.1, 0]), np.array([0.0, 0, 3]))], [0])
    one, two = render(source, depth, path), render(source, depth, path, supersample=2)
    assert two.color.shape == one.color.shape and two.coverage is not None
    assert ((two.coverage >= 128) == two.mask).all()
    assert {0, 255} < set(np.unique(two.coverage).tolist()) <= {0, 64, 128, 191, 255}
    assert (two.mask == one.mask).mean() > 0.9
    assert (two.color[~two.mask] == 0).all()
    both = two.mask & one.mask & (two.coverage == 255)
    assert np.abs(two.depth[both] - one.depth[both]).max() < 0.1


def test_progress_and_mesh_only_rasterisers():
    class MeshOnly:
        name = "mesh only"
        draw = staticmethod(CPU.draw)

    source, depth = clip_of(2)
    path = path_of([look_at(np.array([0.4, 0, 0]), np.array([0.0, 0, 4]))] * 2, [0, 1])
    told = []
    built = render(
        source, depth, path, rasterizer=MeshOnly(), build_mesh=build_mesh, progress=lambda *args: told.append(args)
    )
    np.testing.assert_array_equal(built.color, render(source, depth, path).color)
    assert told == [(1, 2, "rendering"), (2, 2, "rendering")]
    with pytest.raises(TypeError, match="build_mesh"):
        render(source, depth, path, rasterizer=MeshOnly())


def test_sizes_and_lengths_must_fit():
    source, depth = clip_of(2)
    path = path_of([np.eye(4)] * 2, [0, 1])
    with pytest.raises(InputError, match="one depth per frame"):
        render(source, DepthClip(depth.depth[:1], depth.K[:1]), path)
    with pytest.raises(InputError, match="one size"):
        render(source, DepthClip(depth.depth[:, :12], depth.K), path)
    small = CameraPath(path.cam_from_world, path.K, (12, 16), path.source_time)
    with pytest.raises(InputError, match="cannot stand"):
        render(source, depth, small, keep_first=True)


def test_rasterisers_by_name():
    assert get_rasterizer("cpu").name == "cpu"
    assert get_rasterizer("reference").name == "reference"
    with pytest.raises(InputError, match="one of auto"):
        get_rasterizer("opengl")


def test_nvdiffrast_says_what_is_missing():
    try:
        import nvdiffrast  # noqa: F401 # pyright: ignore
    except ImportError:
        with pytest.raises(ResourceError, match="nvdiffrast is not installed"):
            get_rasterizer("nvdiffrast")
