"""Made clips of the depth network's training: the same from the same seed, and sane."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "nano"))

from families import FAMILIES, assets, make_clip
from families.draw import draw

from ex4d.errors import InputError

#: What can be made without the folder of real material.
FAMILIES = [name for name in FAMILIES if name != "people" or assets.available()]


@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("family", FAMILIES)
def test_meshes_are_what_their_type_says(family):
    clip = make_clip(family, 11, frames=4, size_hw=(48, 64))
    assert clip.cam_from_world.shape == (4, 4, 4) and clip.K.dtype == np.float32
    for o in clip.objects:
        assert o.vertices.dtype == np.float32 and o.vertices.shape[0] in (1, 4) and np.isfinite(o.vertices).all()
        assert o.faces.dtype == np.int32 and 0 <= o.faces.min() and o.faces.max() < o.vertices.shape[1]
        assert o.uv.dtype == np.float32 and o.uv.shape == (o.vertices.shape[1], 2) and np.isfinite(o.uv).all()
        assert o.texture.dtype == np.uint8 and all(n & (n - 1) == 0 and 4 <= n <= 512 for n in o.texture.shape[:2])


@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.skipif(not assets.available(), reason="the folder of bodies was not made here")
def test_people_stand_on_the_ground_and_their_limbs_keep_their_length():
    from families import motion
    from families.body import bone, skin

    rng = np.random.default_rng(3)
    t = np.linspace(0, 1, 5)
    for pose in (motion.walking(rng, t)[0], motion.standing(rng, t), motion.sitting(rng, t)):
        posed = skin(4, pose)
        np.testing.assert_allclose(posed.vertices[..., 1].max(1), 0, atol=1e-6)
        forearm = posed.joint[:, bone("wrist.L")] - posed.joint[:, bone("lowerarm01.L")]
        rest = assets.rig().joints[4][bone("wrist.L")] - assets.rig().joints[4][bone("lowerarm01.L")]
        np.testing.assert_allclose(np.linalg.norm(forearm, axis=1), np.linalg.norm(rest), rtol=1e-6)


@pytest.mark.skipif(not assets.available(), reason="the folder of bodies was not made here")
def test_the_first_person_is_in_the_picture():
    seen = [
        (draw(make_clip("people", seed, frames=2, size_hw=(48, 48)), supersample=1).object_id == 1).any((1, 2)).all()
        for seed in range(8)
    ]
    assert np.mean(seen) > 0.8


def test_held_out_clips_take_other_material_than_training():
    rng = np.random.default_rng(0)
    training = {assets.pick(rng, 18, seed) for seed in range(200)}
    assert not training & {assets.pick(rng, 18, 1_000_000 + seed) for seed in range(200)}
