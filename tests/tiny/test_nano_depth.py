"""The depth recipe's data and scores: rays against a second formula, crops that keep depth, fits that find scale and shift."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "nano"))

depth_rooms = pytest.importorskip("depth_rooms")
import depth_data  # noqa: E402
import score_depth  # noqa: E402
from depth_layout import SLOTS, make_layout  # noqa: E402


def test_rays_hit_a_box_a_cylinder_and_a_ball_where_geometry_says():
    prims = torch.zeros(1, sum(SLOTS), 12)
    for slot, x in ((0, -3.0), (SLOTS[0], 0.0), (SLOTS[0] + SLOTS[1], 3.0)):  # radius 0.5, at depth 4
        prims[0, slot, [0, 4, 8]] = 2.0
        prims[0, slot, 9:] = -2.0 * torch.tensor([x, 0.0, 4.0])
    origin = torch.tensor([[-3.1, 0.2, 0.0], [0.3, 0.1, 0.0], [3.0, 0.4, 0.0], [1.5, 0.0, 0.0]]).T
    rays = torch.cat([origin, torch.tensor([[0.0, 0.0, 1.0]]).T.expand(3, 4)])[None]
    t, index = depth_rooms.trace(rays, prims, torch.ones(1, 3, dtype=torch.int32), plain=True)
    torch.testing.assert_close(t[0, :3], torch.tensor([3.5, 3.6, 3.7]))
    assert index[0].tolist() == [0, SLOTS[0], SLOTS[0] + SLOTS[1], -1]


def test_a_room_is_the_same_twice_and_its_picture_has_depth_everywhere():
    a, b = (make_layout((3, 0, 1), 10, 2) for _ in range(2))
    assert all((a[k] == b[k]).all() for k in a)
    bank = depth_rooms.TextureBank(torch.rand(10, 256, 256, 3), "cpu")
    layout = {k: torch.from_numpy(v)[None] for k, v in a.items()}
    color, depth = depth_rooms.RoomRenderer(bank, (8, 16))(layout, samples=1)
    assert color.shape == (1, 2, 3, 8, 16) and color.dtype == torch.uint8
    assert (depth > 0).all() and torch.isfinite(depth.float()).all() and color.float().std() > 1


def test_a_crop_moves_colour_and_depth_together():
    torch.manual_seed(0)
    depth = torch.linspace(1, 4, 64)[:, None].expand(64, 64).expand(2, 3, 64, 64)
    color = (depth / 4 * 255).to(torch.uint8)[:, :, None].expand(-1, -1, 3, -1, -1)
    video, z = depth_data.cropped(color, depth, (32, 48))
    assert video.shape == (2, 3, 3, 32, 48) and z.shape == (2, 3, 32, 48)
    assert (video[:, :, 0] - z / 4).abs().max() < 0.03 and z.min() < z.max()
    assert 0 <= depth_data.changed(video).min() and depth_data.changed(video).max() <= 1


@pytest.mark.parametrize("domain", ["depth", "disparity"])
def test_a_guess_up_to_scale_and_shift_scores_perfectly_in_its_domain_only(domain: str):
    torch.manual_seed(0)
    z = 1 + 4 * torch.rand(500)
    guess = 1 / (0.3 * z + 0.2) if domain == "depth" else 0.3 / z + 0.2
    found = score_depth.summary(guess, z)
    assert found["better"] == domain and found[domain]["abs_rel"] < 1e-4 and found[domain]["delta1"] == 1
    other = "disparity" if domain == "depth" else "depth"
    assert found[other]["abs_rel"] > 0.01
