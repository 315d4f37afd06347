"""The estimates that are printed before a run, against the modules themselves and the released model's numbers."""

from dataclasses import replace

import pytest
from train_parts import SIZES, tiny_config

from ex4d.train.cost import count_parameters, describe, estimate, forward_work, model_sizes
from ex4d.train.models import WAN_14B, build_flow_module


def test_parameters_are_counted_as_the_modules_have_them(tmp_path):
    config = tiny_config(tmp_path)
    module = build_flow_module(config.model, seed=0)
    base, lora, encoder = count_parameters(config, model_sizes(config) | {"text_dim": SIZES["text_dim"]})
    assert lora == sum(p.numel() for n, p in module.named_parameters() if "lora_" in n)
    assert encoder == sum(p.numel() for p in module.geometry_encoder.parameters())
    own = sum(p.numel() for n, p in module.transformer.named_parameters() if "lora_" not in n)
    time_frequency = (256 - SIZES["freq_dim"]) * 48  # the estimate takes Wan's 256
    assert base - time_frequency == own


def test_the_released_model():
    config = tiny_config("none")
    config = replace(config, model=replace(config.model, sizes=WAN_14B, lora_rank=16, geometry_hidden=1024))
    base, lora, encoder = count_parameters(config, model_sizes(config))
    assert (base, lora, encoder) == (16_394_878_784, 76_677_120, 23_109_632)
    work = forward_work(model_sizes(config), 13_312, 512 + 257)
    assert work.linear + work.attention == pytest.approx(475e12, rel=0.02)
    cost = estimate(replace(config, loop=replace(config.loop, batch=1, activation_checkpointing=True)))
    assert 40 < sum(cost.memory_gib.values()) < 80
    assert "GiB a GPU" in describe(cost)
