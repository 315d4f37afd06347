"""depth.npz: written in pieces, read by NumPy and without loading."""

from fractions import Fraction

import numpy as np
import pytest

from ex4d.errors import InputError
from ex4d.io.depth_file import DepthFile, DepthWriter
from ex4d.types import DepthClip


def clip(frames, seed=0, poses=False):
    rng = np.random.default_rng(seed)
    K = np.tile(np.array([[50, 0, 4], [0, 50, 3], [0, 0, 1]], np.float32), (frames, 1, 1))
    cam_from_world = np.tile(np.eye(4), (frames, 1, 1)) if poses else None
    return DepthClip(rng.uniform(1, 9, (frames, 6, 8)).astype(np.float32), K, "metric", cam_from_world)


@pytest.mark.parametrize("poses", [False, True])
def test_pieces_become_one_file(tmp_path, poses):
    a, b = clip(3, 1, poses), clip(2, 2, poses)
    with DepthWriter(tmp_path / "depth.npz", 5, Fraction(30000, 1001)) as writer:
        writer.write(a)
        writer.write(b)
    with np.load(tmp_path / "depth.npz") as plain:
        np.testing.assert_array_equal(plain["depth"], np.concatenate([a.depth, b.depth]))
        assert str(plain["unit"]) == "metric" and str(plain["fps"]) == "30000/1001"
    file = DepthFile(tmp_path / "depth.npz")
    assert isinstance(file.depth, np.memmap) and len(file) == 5
    np.testing.assert_array_equal(file.clip(slice(2, 4)).depth, np.concatenate([a.depth[2:], b.depth[:1]]))
    assert (file.cam_from_world is not None) == poses


def test_compressed_files_are_read_too(tmp_path):
    a = clip(3)
    np.savez_compressed(tmp_path / "d.npz", depth=a.depth.astype(np.float16), K=a.K[0])
    assert DepthFile(tmp_path / "d.npz").clip(slice(0, 3)).depth.dtype == np.float32


def test_a_missing_frame_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match="depth for 3 frames of 5"), DepthWriter(tmp_path / "depth.npz", 5, Fraction(30)) as w:
        w.write(clip(3))
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), DepthWriter(tmp_path / "depth.npz", 5, Fraction(30)) as writer:
        writer.write(clip(3))
        raise KeyError
    assert not list(tmp_path.iterdir())
