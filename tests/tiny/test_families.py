"""Made clips of the depth network's training: the same from the same seed, and sane."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "nano"))

from families import FAMILIES, make_clip
from families.draw import draw

from ex4d.errors import InputError


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_clip_is_a_function_of_family_and_seed(family):
    one, two = (make_clip(family, 5, frames=3, size_hw=(48, 64)) for _ in range(2))
    other = make_clip(family, 6, frames=3, size_hw=(48, 64))
    assert len(one.objects) == len(two.objects)
    for a, b in zip(one.objects, two.objects, strict=True):
        for name in ("vertices", "faces", "uv", "texture"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert a.object_id == b.object_id
    np.testing.assert_array_equal(one.cam_from_world, two.cam_from_world)
    assert not np.array_equal(one.cam_from_world, other.cam_from_world)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_meshes_are_what_their_type_says(family):
    clip = make_clip(family, 11, frames=4, size_hw=(48, 64))
    assert clip.cam_from_world.shape == (4, 4, 4) and clip.K.dtype == np.float32
    for o in clip.objects:
        assert o.vertices.dtype == np.float32 and o.vertices.shape[0] in (1, 4) and np.isfinite(o.vertices).all()
        assert o.faces.dtype == np.int32 and 0 <= o.faces.min() and o.faces.max() < o.vertices.shape[1]
        assert o.uv.dtype == np.float32 and o.uv.shape == (o.vertices.shape[1], 2) and np.isfinite(o.uv).all()
        assert o.texture.dtype == np.uint8 and all(n & (n - 1) == 0 and 4 <= n <= 512 for n in o.texture.shape[:2])


@pytest.mark.parametrize("family", list(FAMILIES))
def test_things_are_seen_at_sane_depths(family):
    seen = 0
    for seed in range(3):
        clip = make_clip(family, seed, frames=2, size_hw=(48, 64))
        found = draw(clip, supersample=1)
        assert ((found.object_id >= 0) == np.isfinite(found.depth)).all()
        near = found.depth[np.isfinite(found.depth)]
        assert near.size == 0 or near.min() > 0.05
        seen += int((found.object_id > 0).sum())
    assert seen > 50


def test_an_unknown_family_is_refused():
    with pytest.raises(InputError, match="one of floating"):
        make_clip("fish", 0, frames=2, size_hw=(32, 32))
