"""The loop: it learns, it resumes bit for bit, it trains exactly the adapter, it skips what is not finite, it stops in time."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from train_parts import SIZES, tiny_config, write_clips

from ex4d.errors import InputError, ResourceError
from ex4d.train.checkpoints import list_checkpoints, load_weights_only
from ex4d.train.data.batches import Draw
from ex4d.train.log import read_log
from ex4d.train.loop import Trainer, learning_rate
from ex4d.train.task import trained_parameters
from ex4d.train.train import make_trainer, train


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on matrices this small only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights_of(run):
    return load_weights_only(list_checkpoints(run)[-1][1])


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("whole", ["adapter", "whole"])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(clips, tmp_path, whole):
    config = tiny_config(clips, whole, steps=6, accumulate=2, checkpoint_every=2, keep_last=9)
    straight = train(config, tmp_path / "a", cpu=True)
    assert straight.finished
    killed_at = int(np.random.default_rng(len(whole)).integers(1, 6))
    trainer = make_trainer(config, tmp_path / "b", cpu=True)
    with pytest.raises(RuntimeError, match="killed"):
        real = trainer._one_step

        def step():
            if trainer.step == killed_at:
                raise RuntimeError("killed")
            return real()

        trainer._one_step = step
        trainer.fit()
    resumed = train(config, tmp_path / "b", cpu=True)
    assert resumed.finished and resumed.step == 6
    a, b = weights_of(tmp_path / "a"), weights_of(tmp_path / "b")
    assert same(a.weights, b.weights) and same(a.ema, b.ema)
    assert [r["step"] for r in read_log(tmp_path / "b") if "loss" in r] == [1, 2, 3, 4, 5, 6]


def test_gradients_reach_exactly_the_adapter(clips, tmp_path):
    config = tiny_config(clips, steps=2)
    trainer = make_trainer(config, tmp_path, cpu=True)
    module = trainer.task.module
    names = set(trained_parameters(module))
    # ten linears of each block with two matrices, and the encoder's four layers: 800 + 8 in the 14B's 40 blocks
    assert len([n for n in names if "lora_" in n]) == 20 * 2
    assert len([n for n in names if n.startswith("geometry_encoder.")]) == 8 and len(names) == 20 * 2 + 8
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    trainer.fit()
    moved = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert moved == names
    assert all(p.grad is None for n, p in module.named_parameters() if n not in names)


def test_overfits_four_clips(clips, tmp_path):
    config = tiny_config(clips, "whole", steps=140, batch=4, lr=8e-3, warmup=5, ema=0.0, checkpoint_every=1000)
    config = replace(config, objective=replace(config.objective, weighting="uniform", pure_noise_share=1.0))
    wide = SIZES | {"num_attention_heads": 4, "added_kv_proj_dim": 96}  # wider than a patch, so that the noise can pass
    config = replace(config, model=replace(config.model, sizes=wide))
    result = train(config, tmp_path, cpu=True)
    first, last = result.losses[0][1], np.mean([loss for _, loss in result.losses[-5:]])
    assert last < first / 10, (first, last)


def test_a_step_without_finite_gradient_changes_nothing_and_is_counted(clips, tmp_path):
    trainer = make_trainer(tiny_config(clips, steps=3), tmp_path, cpu=True)
    real, seen = trainer.task.loss, []

    def poisoned(module, batch, draw):
        loss, scalars = real(module, batch, draw)
        seen.append({n: p.detach().clone() for n, p in trainer.parameters.items()})
        return loss * (float("nan") if draw.step == 1 else 1.0), scalars

    trainer.task.loss = poisoned
    assert trainer.fit().skipped == 1
    assert same(seen[1], seen[2]) and not same(seen[0], seen[1])


def test_divergence_stops_the_run(clips, tmp_path):
    trainer = make_trainer(tiny_config(clips, steps=9, max_skipped=3), tmp_path, cpu=True)
    real = trainer.task.loss
    trainer.task.loss = lambda m, b, d: (real(m, b, d)[0] * float("inf"), {})
    with pytest.raises(ResourceError, match="lower loop.lr"):
        trainer.fit()


def test_a_time_budget_writes_a_checkpoint_and_the_next_slice_goes_on(clips, tmp_path):
    config = tiny_config(clips, steps=4, checkpoint_every=100)
    first = train(config, tmp_path, minutes=0.0, cpu=True)
    assert not first.finished and first.step == 1 and list_checkpoints(tmp_path)[-1][0] == 1
    assert train(config, tmp_path, cpu=True).step == 4
    assert [r["event"] for r in read_log(tmp_path) if "event" in r] == ["out of time", "resumed", "finished"]


def test_a_portable_copy_restarts_elsewhere_with_warm_up(clips, tmp_path):
    config = tiny_config(clips, steps=3)
    train(config, tmp_path / "a", cpu=True)
    files = list((tmp_path / "a" / "portable").glob("*.safetensors"))
    assert files and max(f.stat().st_size for f in files) <= 15_000_000
    assert same(load_weights_only(tmp_path / "a" / "portable").weights, weights_of(tmp_path / "a").weights)
    later = replace(config, loop=replace(config.loop, steps=5))
    result = train(later, tmp_path / "b", restart_from=tmp_path / "a" / "portable", cpu=True)
    assert result.step == 5
    log = read_log(tmp_path / "b")
    assert log[0]["event"] == "weights-only restart" and log[0]["step"] == 3
    rates = [r["lr"] for r in log if "loss" in r]
    assert rates == pytest.approx([learning_rate(later.loop, 0), learning_rate(later.loop, 1)])
    assert load_weights_only(list_checkpoints(tmp_path / "b")[-1][1]).record["restarts"] == [{"step": 3, "warmup": 2}]


def test_the_keep_rule(clips, tmp_path):
    train(tiny_config(clips, steps=7, checkpoint_every=1, keep_last=2, keep_every=3), tmp_path, cpu=True)
    assert [s for s, _ in list_checkpoints(tmp_path)] == [3, 6, 7]
    assert not [p for p in tmp_path.rglob("*tmp*")]


def test_the_exported_adapter_is_loaded_by_the_generator(clips, tmp_path):
    from ex4d.models.wan.files.adapter import apply_adapter, load_adapter
    from ex4d.train.models import build_flow_module

    config = tiny_config(clips, steps=3, ema=0.0)
    trainer = make_trainer(config, tmp_path, cpu=True)
    trainer.fit()
    trainer.export()
    adapter = load_adapter(tmp_path / "adapter.safetensors")
    fresh = build_flow_module(replace(config.model, train="base"), seed=config.loop.seed).transformer
    encoder = apply_adapter(adapter, fresh)
    batch = trainer.task.batch(Draw(0, 0))
    ours, theirs = trainer.task.module.geometry_encoder, encoder
    a = ours(batch["color_latents"], batch["mask_latents"])
    assert torch.equal(a, theirs(batch["color_latents"], batch["mask_latents"])) and (a != 0).any()
    trained = {n.replace(".ex4d", ""): p for n, p in trainer.task.module.transformer.named_parameters()}
    assert all(torch.equal(p, trained[n.replace(".ex4d", "")]) for n, p in fresh.named_parameters())


def test_validation_and_logs(clips, tmp_path):
    config = tiny_config(clips, steps=2, validate_every=1, tensorboard=True)
    config = replace(config, data=replace(config.data, held_out=0.3))
    result = train(config, tmp_path, cpu=True)
    assert {"mse", "mse_0.95", "hole_mse_0.2"} <= set(result.validation)
    assert any((tmp_path / "tensorboard").iterdir())
    assert [r["held_out/mse"] for r in read_log(tmp_path) if "held_out/mse" in r]


def test_streaming_gives_the_same_batches_as_resident(clips):
    from ex4d.train.data.batches import Batches, Draw
    from ex4d.train.data.shards import read_shards

    samples = read_shards(clips)
    a = Batches(samples, ["latents", "kind"], torch.device("cpu"), resident="device")
    b = Batches(samples, ["latents", "kind"], torch.device("cpu"), resident="stream")
    b._start(Draw(3, 5, 0, 2), 3)
    for step in (5, 6):
        for micro in range(2):
            draw = Draw(3, step, micro, 2)
            ready, host = b._queue.get()
            assert ready == draw
            assert all(torch.equal(v, host[k]) for k, v in a.at(draw, 3).items())
    b.close()


def test_changed_data_another_config_and_a_full_disk(clips, tmp_path, monkeypatch):
    config = tiny_config(clips, steps=2)
    train(config, tmp_path, cpu=True)
    more = replace(config, loop=replace(config.loop, steps=4))
    with pytest.raises(InputError, match="model.lora_rank = 4"):
        train(replace(more, model=replace(config.model, lora_rank=8)), tmp_path, cpu=True)
    other = write_clips(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="data changed"):
        train(replace(more, data=replace(config.data, path=str(other))), tmp_path, cpu=True)
    import safetensors.torch

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(ResourceError, match="No space left"):
        train(more, tmp_path, cpu=True)
    monkeypatch.undo()
    assert [s for s, _ in list_checkpoints(tmp_path)] == [2] and not list(tmp_path.rglob("*.tmp"))
    assert train(more, tmp_path, cpu=True).finished


def test_a_large_tensor_is_cut_over_portable_shards(tmp_path):
    from ex4d.train.checkpoints import Checkpoint, save_portable

    weights = {
        "a": torch.randn(40, 1000),
        "b": torch.randn(7),
        "c": torch.zeros(()),
        "d": torch.randn(3, 5000).bfloat16(),
    }
    files = save_portable(tmp_path, Checkpoint(5, weights, {"a": weights["a"] + 1}, {}, {}), shard_bytes=150_000)
    assert len(files) > 3 and max(f.stat().st_size for f in files) <= 150_000
    back = load_weights_only(tmp_path)
    assert same(back.weights, weights) and torch.equal(back.ema["a"], weights["a"] + 1) and back.step == 5
    assert json.loads((tmp_path / "index.json").read_text())["step"] == 5


def test_trainer_needs_something_to_train(clips, tmp_path):
    task = make_trainer(tiny_config(clips), tmp_path, cpu=True).task
    task.module.requires_grad_(False)
    with pytest.raises(InputError, match="nothing requires gradients"):
        Trainer(task, tiny_config(clips).loop, tmp_path / "b", cpu=True)


def test_bf16_trains_the_adapter_and_keeps_the_released_float32_parts(clips, tmp_path):
    config = tiny_config(clips, steps=2, precision="bf16", activation_checkpointing=True)
    trainer = make_trainer(config, tmp_path, cpu=True)
    seen = {}
    transformer = trainer.task.module.transformer
    for name in ("condition_embedder.time_proj", "proj_out", "blocks.0.ffn.net.2"):
        transformer.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.dtype}))
    assert trainer.fit().skipped == 0
    assert seen["condition_embedder.time_proj"] == seen["proj_out"] == torch.float32
    assert seen["blocks.0.ffn.net.2"] == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in trainer.parameters.values())
    frozen = {n: p.dtype for n, p in transformer.named_parameters() if not p.requires_grad}
    assert (
        frozen["blocks.0.attn1.to_q.base_layer.weight"] == torch.bfloat16 and frozen["proj_out.weight"] == torch.float32
    )


def test_sample_videos_are_decoded_and_shown(clips, tmp_path):
    from PIL import Image
    from train_parts import write_encoders

    config = tiny_config(clips, steps=2, sample_every=2, tensorboard=True)
    vae = str(write_encoders(tmp_path / "model") / "vae")
    config = replace(config, data=replace(config.data, held_out=0.3), model=replace(config.model, vae=vae))
    assert train(config, tmp_path / "run", cpu=True).finished
    (video,) = (tmp_path / "run" / "samples").iterdir()
    with Image.open(video) as picture:
        assert picture.n_frames == 5 and picture.size == (3 * 32, 32), "condition, result and truth side by side"
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert events.Tags()["images"] == ["sample/condition_result_truth"] and "loss" in events.Tags()["scalars"]
