"""Released timesteps and weights against METHOD 9.1's numbers, and the loss on golden tensors against a hand calculation."""

import math

import numpy as np
import pytest
import torch

from ex4d.errors import InputError
from ex4d.train.objective import ObjectiveConfig, draw_noised, flow_loss, noised_at, schedule_table


def weight_at(t: float) -> float:
    _, timestep, weight = schedule_table()
    return float(np.interp(t, timestep.flip(0).numpy(), weight.flip(0).numpy()))


@pytest.mark.parametrize(("t", "w"), [(1000, 0), (978, 0.139), (937.5, 0.398), (833, 1.025), (500, 2.076), (5, 0.032)])
def test_weights_are_the_released_ones(t, w):
    assert weight_at(t) == pytest.approx(w, abs=2e-3)


def test_timesteps_are_the_released_ones():
    sigma, timestep, weight = schedule_table()
    assert sigma[0] == 1 and timestep[0] == 1000 and weight[0] == 0
    assert float(weight.mean()) == pytest.approx(1, abs=1e-5)
    assert float((timestep > 900).float().mean()) == pytest.approx(0.358, abs=1e-3)
    assert float(timestep.median()) == pytest.approx(833, abs=1)
    # by hand: s = 0.5 gives 5 * .5 / (1 + 4 * .5) = 5/6
    assert float(sigma[500]) == pytest.approx(5 / 6, abs=1e-7)


def test_table_agrees_with_the_golden_sampling_sigmas(golden):
    checked = 0
    path = golden / "sampling.npz"
    if not path.exists():
        pytest.skip("no sampling.npz in this set")
    with np.load(path) as data:
        for name in (n for n in data.files if n.startswith("sigmas_")):
            expected = data[name]
            if 1000 % len(expected):
                continue
            sigma = schedule_table()[0][:: 1000 // len(expected)]
            np.testing.assert_allclose(sigma.numpy(), expected, atol=1e-6)
            checked += 1
    print(f"{checked} sigma lists checked")
    assert checked


def test_loss_on_golden_tensors_equals_a_hand_calculation(golden):
    path = golden / "dit_io.npz"
    if not path.exists():
        pytest.skip("no dit_io.npz in this set")
    with np.load(path) as data:
        x0 = data["video_latents"].astype(np.float64)
        noise = data["latents"].astype(np.float64)
        outs = sorted(n for n in data.files if n.startswith("out_lora_ray_t"))
        predictions = {n: data[n].astype(np.float64) for n in outs}
    sigma, timestep, weight = schedule_table()
    for index, name in zip((100, 900), outs, strict=True):
        # by hand, in float64: s, sigma, w from their formulas, sums written out
        s = 1 - index / 1000
        sig = 5 * s / (1 + 4 * s)
        bells = [
            math.exp(-2 * ((5000 * u / (1 + 4 * u) - 500) / 1000) ** 2) for u in (1 - i / 1000 for i in range(1000))
        ]
        low = min(bells)
        w = (math.exp(-2 * ((1000 * sig - 500) / 1000) ** 2) - low) * 1000 / sum(b - low for b in bells)
        by_hand = w * ((predictions[name] - (noise - x0)) ** 2).mean()
        noised = noised_at(
            torch.from_numpy(x0).float(),
            torch.from_numpy(noise).float(),
            sigma[index : index + 1],
            weight[index : index + 1],
        )
        np.testing.assert_allclose(noised.x_t.numpy(), (1 - sig) * x0 + sig * noise, atol=2e-6)
        loss = flow_loss(torch.from_numpy(predictions[name]).float(), noised)
        assert float(loss) == pytest.approx(by_hand, rel=1e-5)
        assert float(noised.timestep) == pytest.approx(1000 * sig, rel=1e-6)


def test_a_perfect_prediction_costs_nothing_and_draws_follow_the_generator():
    x0 = torch.randn(4, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    config = ObjectiveConfig()
    first, again = (draw_noised(x0, config, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first.x_t, again.x_t) and torch.equal(first.weight, again.weight)
    assert float(flow_loss(first.target, first).abs().max()) == 0
    # the clean latents come back from x_t and the velocity: x0 = x_t - sigma v
    back = first.x_t - (first.timestep / 1000).view(-1, 1, 1, 1, 1) * first.target
    torch.testing.assert_close(back, x0, atol=1e-5, rtol=0)


def test_hole_weight_keeps_the_mean_and_moves_it_into_holes():
    config = ObjectiveConfig(weighting="uniform", hole_weight=4.0)
    x0 = torch.zeros(1, 2, 1, 2, 2)
    noised = noised_at(x0, torch.zeros_like(x0), torch.tensor([0.5]), torch.tensor([1.0]))
    hole = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    flat = flow_loss(torch.ones_like(x0), noised, hole, config.hole_weight)
    assert float(flat) == pytest.approx(1)
    in_hole = torch.zeros_like(x0)
    in_hole[..., 0, 0] = 1
    # weights 4,1,1,1 of mean 7/4: the hole's error counts 4 / (7/4) / 4 cells
    assert float(flow_loss(in_hole, noised, hole, config.hole_weight)) == pytest.approx(4 / 1.75 / 4)


def test_pure_noise_needs_a_weight_that_sees_it():
    with pytest.raises(InputError, match="uniform"):
        ObjectiveConfig(pure_noise_share=0.3)
    config = ObjectiveConfig(weighting="uniform", pure_noise_share=1.0)
    noised = draw_noised(torch.zeros(8, 16, 1, 2, 2), config, torch.Generator().manual_seed(0))
    assert (noised.timestep == 1000).all() and (noised.weight == 1).all()
