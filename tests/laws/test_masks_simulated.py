"""Tracking masks, random shapes, the mixture and its curriculum."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.errors import InputError, ResourceError
from ex4d.train.masks.make import MaskRule, eroded, simulate_masks
from ex4d.train.masks.shapes import shapes_mask
from ex4d.train.masks.tracking import (
    DenseFlowTracker,
    LucasKanadeTracker,
    covered,
    get_tracker,
    grid_points,
    tracking_mask,
)
from ex4d.train.mixture import KINDS, MixtureConfig, draw_weights
from ex4d.types import DepthClip

SIZE = (96, 128)


def texture(seed=0, size=(160, 300)):
    import cv2

    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)
    soft = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 2)
    return np.clip((soft - 127) * 5 + 127, 0, 255).astype(np.uint8)


def sliding(frames=6, step=4):
    picture = texture()
    return np.stack([picture[20 : 20 + 96, 20 + step * t : 20 + step * t + 128] for t in range(frames)])


@pytest.mark.parametrize("grid", [10, 23, 50])
def test_still_tracks_cover_everything(grid):
    points = grid_points(SIZE, grid)
    mask = covered(np.repeat(points[None], 3, 0), np.ones((3, grid * grid), bool), SIZE, grid)
    assert mask[0].all() and mask[1:].mean() > 0.95
    margin = int(np.ceil(8 * 127 / 511)) + 1
    assert mask[1, margin:-margin, margin:-margin].all(), "no gaps inside the grid"


def test_holes_open_where_tracks_hide_leave_or_part():
    points = grid_points(SIZE, 12)
    positions = np.repeat(points[None], 2, 0)
    visible = np.ones((2, 144), bool)
    visible[1, points[:, 0] < 40] = False
    mask = covered(positions, visible, SIZE, 12)
    assert not mask[1, 10:-10, 5:30].any() and mask[1, 10:-10, 50:-10].all()
    apart = positions.copy()
    apart[1, points[:, 0] > 64] += (30, 0)
    gap = covered(apart, np.ones((2, 144), bool), SIZE, 12)
    assert not gap[1, 10:-10, 72:86].any() and gap[1, 10:-10, 10:55].all()


@pytest.mark.parametrize("tracker", [DenseFlowTracker(), LucasKanadeTracker()], ids=lambda t: t.name)
def test_the_built_in_trackers_follow_a_slide_and_lose_what_leaves(tracker):
    frames = sliding()
    points = grid_points(SIZE, 12)
    positions, visible = tracker.track(frames, points)
    assert visible[0].all() and np.array_equal(positions[0], points)
    inside = points[:, 0] - 4 * 5 > 4
    assert visible[-1][inside].mean() > 0.9
    good = visible[-1] & inside
    error = np.abs(positions[-1][good] - points[good] - (-20, 0)).max(1)
    assert np.percentile(error, 90) < 0.5 and error.max() < 2
    gone = points[:, 0] < 16
    assert not visible[-1][gone].any()
    mask = tracking_mask(frames, tracker, 12)
    assert mask[0].all() and mask[-1, 10:-10, 5:100].mean() > 0.9 and mask[-1, :, 118:].mean() < 0.1, (
        "what came in was never seen"
    )


@pytest.mark.parametrize("tracker", [DenseFlowTracker(), LucasKanadeTracker()], ids=lambda t: t.name)
def test_another_scene_loses_nearly_every_track(tracker):
    frames = np.stack([texture(0)[:96, :128], texture(1)[:96, :128]])
    _, visible = tracker.track(frames, grid_points(SIZE, 20))
    assert visible[1].mean() < 0.2


def test_dense_flow_carries_points_over_a_flat_surface():
    frames = np.full((4, *SIZE, 3), 200, np.uint8)
    frames[:, 40:60, 40:60] = texture()[:20, :20]
    points = grid_points(SIZE, 12)
    assert DenseFlowTracker().track(frames, points)[1].all()
    assert LucasKanadeTracker().track(frames, points)[1][-1].mean() < 0.5


def test_cotracker_without_files_says_what_to_do(tmp_path):
    with pytest.raises(ResourceError, match="dense-flow"):
        get_tracker("cotracker3", tmp_path, tmp_path / "none.pth")
    with pytest.raises(ResourceError, match="dense-flow"):
        get_tracker("cotracker3")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_shapes_leave_the_first_frame_whole(seed):
    mask = shapes_mask(np.random.default_rng(seed), 5, SIZE)
    assert mask.shape == (5, *SIZE) and mask.dtype == bool and mask[0].all()
    assert np.array_equal(mask, shapes_mask(np.random.default_rng(seed), 5, SIZE))


def test_every_kind_is_seeded_eroded_and_whole_at_first():
    K = np.array([[100.0, 0, 64], [0, 100, 48], [0, 0, 1]], np.float32)
    z = np.full((6, *SIZE), 4.0, np.float32)
    z[:, 30:60, 50:80] = 2
    depth = DepthClip(z, np.repeat(K[None], 6, 0))
    rule = MaskRule(variants=2)
    first, again, other = (simulate_masks(sliding(), depth, rule, seed) for seed in (3, 3, 4))
    assert [m.kind for m in first] == [k for k in rule.kinds for _ in range(2)]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.mask, b.mask) for a, b in zip(first, other, strict=True))
    assert all(m.mask[0].all() and not m.mask[1:].all() for m in first)
    assert {m.kind for m in simulate_masks(sliding(), None, rule, 3)} == {"tracking", "shapes"}
    fine = np.ones((2, 512, 512), bool)
    fine[1, 256, 256] = False
    shrunk = eroded(fine, MaskRule(), 0)
    assert shrunk[0].all() and (~shrunk[1]).sum() in {k * k for k in range(2, 9)}


def test_the_mixture_follows_its_curriculum():
    config = MixtureConfig({"aligned": 1.0}, {"shapes": 3.0, "tracking": 1.0}, curriculum_steps=100)
    assert dict(zip(KINDS, config.at(0), strict=True))["shapes"] == 0.75
    assert dict(zip(KINDS, config.at(50), strict=True)) == {
        "transplanted": 0, "aligned": 0.5, "tracking": 0.125, "shapes": 0.375, "view": 0,
    }  # fmt: skip
    assert config.at(100) == config.at(10**6) == (0, 1, 0, 0, 0)
    with pytest.raises(InputError, match="kinds"):
        MixtureConfig({"rendered": 1.0})


def test_more_variants_do_not_make_a_kind_more_frequent():
    kind = torch.tensor([[0, 0, 0, 2], [1, 1, 2, 2], [3, 3, 3, 3]])
    coverage = torch.tensor([[0.5, 0.5, 0.99, 0.5], [0.5] * 4, [0.5] * 4])
    weight = draw_weights(kind, coverage, MixtureConfig({"transplanted": 0.5, "tracking": 0.5}), 0)
    assert torch.allclose(weight[0], torch.tensor([0.25, 0.25, 0.0, 0.5])), "one variant shows too much to be drawn"
    assert torch.allclose(weight[1], torch.tensor([0, 0, 0.25, 0.25]))
    assert torch.allclose(weight[2], torch.ones(4)), "a clip without the kinds asked for gives any of its own"
