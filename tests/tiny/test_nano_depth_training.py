"""The depth recipe: a loss that leaves a clip's scale alone, rooms that cannot end the training, guards, and the best weights."""

import argparse
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from nano_made import RECIPE

from ex4d.models.depth.nano import ClipDepthNetwork

NETWORK = '{"widths": [16, 16, 28], "blocks": [1, 1, 1], "decoder_blocks": [1, 1], "heads": 4}'


@pytest.fixture(autouse=True)
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPE))


def truth(clips=3, frames=2, h=32, w=48, seed=0):
    """Depth [clips, frames, h, w]: smooth, with boxes, between 1 and 20."""
    g = torch.Generator().manual_seed(seed)
    low = torch.randn(clips * frames, 1, 4, 6, generator=g)
    smooth = torch.nn.functional.interpolate(low, (h, w), mode="bicubic").view(clips, frames, h, w)
    smooth[..., 8:20, 10:30] -= 1
    return (1.2 + 0.5 * smooth).clamp(0, 3).exp()


def guesses(z):
    g = torch.Generator().manual_seed(1)
    noise = torch.randn(z.shape, generator=g)
    return {
        "flat": torch.zeros_like(z),
        "noise": 0.3 * noise,
        "half right": -0.5 * z.log() + 0.1 * noise,
        "with a shift": -(z + 3).log(),
        "upside down": z.log(),
    }


@pytest.mark.parametrize("kind", ["flat", "noise", "half right", "with a shift", "upside down"])
def test_no_term_of_the_loss_pushes_a_clips_scale(kind, monkeypatch):
    import depth_loss

    monkeypatch.setattr(depth_loss, "ANCHOR", 0.0)
    monkeypatch.setattr(depth_loss, "MEDIAN_STRIDE", 1)
    z = truth()
    guess = guesses(z)[kind].requires_grad_()
    loss, _ = depth_loss.depth_loss(guess, z)
    loss.backward()
    pushes, sizes = guess.grad.flatten(1).sum(1), guess.grad.flatten(1).abs().sum(1)
    assert (pushes.abs() < 0.01 * sizes).all(), (pushes, sizes)
    other, _ = depth_loss.depth_loss(guess.detach() + torch.tensor([-3.0, 0.5, 6.0]).view(-1, 1, 1, 1), z)
    assert float(other) == pytest.approx(float(loss.detach()), rel=1e-4)


def test_the_anchor_pulls_towards_metres_and_a_stray_output_comes_back():
    from depth_loss import depth_loss

    z = truth()
    torch.manual_seed(0)
    network = ClipDepthNetwork(widths=(16, 16, 28), blocks=(1, 1, 1), decoder_blocks=(1, 1), heads=4)
    torch.nn.init.constant_(network.coarse.bias, 9.0)  # far outside of what `forward` lets out
    video = torch.rand(3, 3, 2, 32, 64)
    assert float(network(video).detach().log().std()) < 1e-6
    loss, terms = depth_loss(network.log_disparity(video)[..., :48], z)
    loss.backward()
    assert network.coarse.bias.grad is not None and float(network.coarse.bias.grad) > 0.01
    assert float(terms["drift"]) > 5


def test_a_perfect_guess_costs_nothing_and_what_is_not_known_neither_costs_nor_pulls():
    from depth_loss import depth_loss

    z = truth()
    loss, terms = depth_loss(-z.log(), z)
    assert float(loss) < 1e-4 and float(terms["drift"]) < 1e-4
    holes = z.clone()
    holes[:, :, 5:9, 7:20] = 0
    holes[0, 0, 0, 0] = torch.nan
    guess = torch.where(holes > 0, -0.6 * z.log(), 50.0).requires_grad_()
    loss, _ = depth_loss(guess, holes)
    loss.backward()
    assert torch.isfinite(loss) and float(loss.detach()) < 2
    assert guess.grad is not None and torch.isfinite(guess.grad).all()
    assert (guess.grad[~(holes > 0)] == 0).all() and (guess.grad[holes > 0] != 0).any()


@pytest.mark.parametrize("value", [-60.0, 0.0, 60.0])
def test_the_loss_of_flat_wild_and_unknown_clips_has_finite_gradients(value):
    from depth_loss import depth_loss

    z = truth()
    z[1] = 0  # a clip of which nothing is known
    z[2] = 4  # a wall
    guess = torch.full(z.shape, value)
    guess[0, 0, 3] = -value
    guess.requires_grad_()
    loss, _ = depth_loss(guess, z)
    loss.backward()
    assert torch.isfinite(loss) and guess.grad is not None and torch.isfinite(guess.grad).all()
    assert guess.grad.abs().sum() < 10


def layout_of(seed=0, frames=2, **changes):
    from depth_layout import make_layout

    return {k: torch.as_tensor(v)[None] for k, v in (make_layout((seed, 1), 4, frames) | changes).items()}


def test_a_room_knows_every_material_it_uses_however_many_it_drew(monkeypatch):
    import depth_layout

    shelf = depth_layout.Builder.shelf

    def crowded(self):
        for _ in range(400):
            self.material()
        return shelf(self)

    plain = depth_layout.make_layout((3, 1), 4, 2)
    monkeypatch.setattr(depth_layout.Builder, "shelf", crowded)
    for seed in ((0, 1), (1, 1), (2, 1), (0, 4, 964)):  # the last one drew 712 materials even so
        room = depth_layout.make_layout(seed, 640, 6)
        rows = len(room["materials"])
        assert rows == len(plain["materials"])
        assert room["material"].max() < rows and room["shell"][6:].max() < rows
        used = np.concatenate([room["material"][depth_layout._in_use(room["count"])], room["shell"][6:]]).astype(int)
        assert (room["materials"][used, 5] > 0.1).all()  # a size of texels: a row that somebody filled in


@pytest.mark.parametrize("spoiled", ["eye", "center", "materials", "focal", "shell"])
def test_a_spoiled_room_gives_a_picture_and_unknown_depth_and_no_error(spoiled):
    from depth_rooms import RoomRenderer, TextureBank

    layout = layout_of()
    layout["count"] = layout["count"].clamp_max(5)
    layout[spoiled] = torch.full_like(layout[spoiled], torch.nan)
    torch.manual_seed(0)
    color, depth = RoomRenderer(TextureBank(torch.rand(2, 256, 256, 3), "cpu"), (8, 16))(layout, samples=1)
    assert color.shape == (1, 2, 3, 8, 16) and torch.isfinite(depth).all() and (depth >= 0).all()


def test_unknown_depth_stays_unknown_and_nothing_there_is_far():
    from depth_data import FARTHEST, cropped

    depth = torch.full((2, 3, 16, 16), 5.0, dtype=torch.float16)
    depth[0], depth[1, :, :8] = torch.inf, 0
    _, z = cropped(torch.zeros(2, 3, 3, 16, 16, dtype=torch.uint8), depth, (32, 32))
    assert (z[0] == FARTHEST).all() and set(z[1].unique().tolist()) <= {0.0, 5.0}


def options(out, **more):
    values = {"seed": 0, "init": None, "network": NETWORK, "lr": 1e-3, "warmup": 2, "compile": False, "out": out}
    return argparse.Namespace(**(values | more))


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path):
    from train_depth import Learner

    learner = Learner(options(tmp_path), "cpu", 1)
    video, depth = torch.rand(2, 3, 2, 32, 32) * 2 - 1, truth(2, 2, 32, 32)
    learner.learn(video, depth, 0.0)
    for a, b in zip(learner.averages, learner.parameters, strict=True):
        torch.testing.assert_close(a, b)  # nothing of the warm-up is remembered
    before = [p.detach().clone() for p in learner.parameters]
    learner.learn(video * torch.nan, depth, 0.0)
    assert all(torch.equal(p, q) for p, q in zip(learner.parameters, before, strict=True))
    learner.learn(video, depth, 0.0)
    assert any(not torch.equal(p, q) for p, q in zip(learner.parameters, before, strict=True))
    means = learner.means()
    assert means["skipped"] == 1 and np.isfinite(list(means.values())).all() and means["norm"] > 0
    assert learner.means() == {}


def test_the_best_weights_are_kept_and_more_clips_begin_anew(tmp_path):
    from depth_held_out import Best, HeldOut

    torch.manual_seed(0)
    network = ClipDepthNetwork(widths=(16, 16, 28), blocks=(1, 1, 1), decoder_blocks=(1, 1), heads=4)
    best = Best(tmp_path / "depth")

    def offered(value, score, clips):
        torch.nn.init.constant_(network.coarse.bias, value)
        return best.offer(network, {"scenes_abs_rel": score, "rooms_abs_rel": 0.2, "held_out_scenes": clips}, 7)

    def kept():
        return float(ClipDepthNetwork.from_pretrained(tmp_path / "depth").coarse.bias.detach())

    assert offered(1.0, 0.3, 4) and offered(2.0, 0.2, 4) and not offered(3.0, 0.5, 4) and kept() == 2
    assert not offered(4.0, float("nan"), 9) and offered(5.0, 0.4, 9) and kept() == 5
    again = Best(tmp_path / "depth", best.state)
    assert not again.offer(network, {"scenes_abs_rel": 0.45, "rooms_abs_rel": 0.2, "held_out_scenes": 9}, 9)
    # a network that says the same everywhere is called flat
    for p in network.parameters():
        torch.nn.init.zeros_(p)
    clips = [(torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8), truth(1, 2, 32, 32)[0])]
    record = HeldOut(None, clips, "cpu", 0).report(network, families=False)
    assert record["flat"] and record["rooms_spread"] < 1e-3


def test_the_self_check_passes_here_and_finds_a_wrong_kernel(monkeypatch):
    import depth_check
    from depth_rooms import trace

    layout = layout_of()
    layout["count"] = layout["count"].clamp_max(8)
    network = ClipDepthNetwork(widths=(16, 16, 28), blocks=(1, 1, 1), decoder_blocks=(1, 1), heads=4)
    small = {"rays_per_frame": 200}
    assert depth_check.check_trace(layout, **small) == 0
    torch.manual_seed(0)
    color, depth = torch.randint(0, 255, (2, 2, 3, 64, 64), dtype=torch.uint8), truth(2, 2, 64, 64)
    assert depth_check.check_learning(network, color, depth) < 1e-4
    assert all(p.grad is None for p in network.parameters())

    def wrong(*args, plain=None, **kw):
        t, index = trace(*args, plain=True, **kw)
        return (t, index) if plain else (t * 1.1, index)

    monkeypatch.setattr(depth_check, "trace", wrong)
    with pytest.raises(depth_check.CheckFailed, match="differ in"):
        depth_check.check_trace(layout, **small)
    broken = ClipDepthNetwork(widths=(16, 16, 28), blocks=(1, 1, 1), decoder_blocks=(1, 1), heads=4)
    torch.nn.init.constant_(broken.coarse.bias, torch.nan)
    with pytest.raises(depth_check.CheckFailed, match="not finite"):
        depth_check.check_learning(broken, color, depth)


KERNEL = """
import torch, depth_check, depth_rooms
layout = {k: torch.as_tensor(v)[:1] for k, v in next(depth_rooms.layouts(3, 4, 1, 1, 0)).items()}
layout["count"] = layout["count"].clamp_max(3)
print(depth_check.check_trace(layout, 128, plain=False))
"""


def test_the_kernel_sees_what_the_plain_loop_sees():
    """The kernel itself, in Triton's interpreter (set before Triton is imported, hence a process of its own)."""
    pytest.importorskip("triton")
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(RECIPE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", KERNEL], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-800:]
    assert float(done.stdout) <= 0.01


def test_orthogonal_steps_have_singular_values_near_one():
    from muon import orthogonal

    g = torch.Generator().manual_seed(0)
    for shape in ((3, 8, 20), (2, 20, 8)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(*shape, generator=g) * 1e-4))
        assert 0.6 < values.min() and values.max() < 1.3


def test_a_batched_step_is_that_of_each_matrix_alone():
    from muon import MOMENTUM, RMS, Muon, orthogonal

    g = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(6, 2, 3, 3, generator=g)) for _ in range(3)]
    before, momenta = [p.detach().clone() for p in parameters], [torch.zeros(6, 18) for _ in parameters]
    opt = Muon(parameters, 0.01, weight_decay=0.1)
    for _ in range(2):
        grads = [torch.randn(p.shape, generator=g) for p in parameters]
        for p, grad in zip(parameters, grads, strict=True):
            p.grad = grad.clone()
        opt.step()
        for k, grad in enumerate(grads):
            flat = grad.flatten(1)
            momenta[k] = MOMENTUM * momenta[k] + (1 - MOMENTUM) * flat
            ahead = MOMENTUM * momenta[k] + (1 - MOMENTUM) * flat
            change = 0.01 * RMS * 18**0.5 * orthogonal(ahead[None])[0]
            before[k] = before[k] * (1 - 0.01 * 0.1) - change.view_as(before[k])
    for p, wanted in zip(parameters, before, strict=True):
        torch.testing.assert_close(p.detach(), wanted)


def test_a_step_that_is_not_finite_leaves_weights_and_momentum_as_they_are():
    from muon import Muon

    p = torch.nn.Parameter(torch.ones(4, 5))
    opt = Muon([p], 0.01, weight_decay=0.1)
    p.grad = torch.eye(4, 5)
    opt.step()
    kept, momentum = p.detach().clone(), opt.state[p]["momentum"].clone()
    p.grad, opt.found_inf = torch.full((4, 5), torch.nan), torch.ones(())
    opt.step()
    assert torch.equal(p, kept) and torch.equal(opt.state[p]["momentum"], momentum)


def test_every_parameter_has_one_optimiser():
    from muon import divided

    model = ClipDepthNetwork()
    inner, outer = divided(model)
    assert len({id(p) for p in inner + outer}) == len(inner) + len(outer) == len(list(model.parameters()))
    assert sum(p.numel() for p in inner) > 0.9 * sum(p.numel() for p in model.parameters())
