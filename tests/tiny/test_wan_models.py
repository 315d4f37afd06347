"""Adapter identity, LoRA files, precision, streaming, caching, plans: the parts of the Wan generator, tiny and on the CPU."""

import io
import pickle
import warnings

import pytest
import torch
from wan_tiny import TINY, tiny_encoder, tiny_transformer

from ex4d.errors import InputError, ResourceError, WeightsError
from ex4d.generators.diffusion.memory import MODES, ModelSize, Work, estimate, plan_memory
from ex4d.generators.parameters import parameter_report
from ex4d.generators.wan14b.files import split_weight
from ex4d.models.wan.fast.float8 import FP8, FP8_MAX, QuantLinear, quantise_rows, shared_input
from ex4d.models.wan.fast.streaming import compile_blocks, stream_blocks
from ex4d.models.wan.files.adapter import (
    Adapter,
    AdapterConfig,
    adapter_from_models,
    apply_adapter,
    load_adapter,
    released_state,
    save_adapter,
)
from ex4d.models.wan.files.convert import convert_adapter, convert_base
from ex4d.models.wan.files.loading import LoadPolicy, build_transformer
from ex4d.models.wan.files.lora_files import lora_update, read_lora
from ex4d.models.wan.files.original import file_shapes, stream_tensors, transformer_config
from ex4d.models.wan.geometry_encoder import GeometryEncoder
from ex4d.models.wan.keys import diffusers_key, original_key
from ex4d.models.wan.lora import LoraUpdate, attach_lora, merge_lora
from ex4d.models.wan.sizes import CONFIG_14B
from ex4d.models.wan.transformer import Ex4dTransformer
from ex4d.system.machine import GIB, Device, parse_bytes


def inputs(seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(1, 36, 3, 4, 6, generator=g),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 512, 12, generator=g),
        "encoder_hidden_states_image": torch.randn(1, 257, 20, generator=g),
    }


def geometry(seed=1):
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, 16, 3, 4, 6, generator=g)
    return latents[:1], latents[1:]


@torch.no_grad()
def run(model, tokens=None, **changes):
    kwargs = None if tokens is None else {"geometry": tokens}
    return model(**{**inputs(), **changes}, return_dict=False, attention_kwargs=kwargs)[0]


def random_adapter(model, rank=16, seed=3) -> Adapter:
    torch.manual_seed(seed)
    attach_lora(model, rank, float(rank))
    for name, p in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(p, std=0.05)
    return adapter_from_models(model, tiny_encoder(), AdapterConfig(rank, float(rank)))


def test_a_new_adapter_is_the_base_model_bit_for_bit():
    base = run(tiny_transformer())
    model = tiny_transformer()
    attach_lora(model)
    encoder = tiny_encoder(zero=True)
    assert torch.equal(run(model, encoder(*geometry())), base)
    assert not torch.equal(run(model, tiny_encoder()(*geometry())), base)
    assert model.patch_embedding.geometry is None, "tokens must not stay behind"


def test_tokens_and_lora_have_gradients_and_the_base_has_none():
    model = tiny_transformer()
    trainable = attach_lora(model)
    encoder = tiny_encoder().requires_grad_(True)
    out = model(**inputs(), return_dict=False, attention_kwargs={"geometry": encoder(*geometry())})[0]
    out.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert sum(p.grad is not None for p in trainable.values()) == len(trainable) == 2 * 2 * 10
    assert all(p.grad is None for n, p in model.named_parameters() if ".lora_" not in n)


def test_official_sizes_have_the_published_counts():
    with torch.device("meta"):
        model = Ex4dTransformer(**{**CONFIG_14B, "added_kv_proj_dim": 5120})
        encoder = GeometryEncoder(5120)
        attach_lora(model)
    report = parameter_report(model, encoder)
    assert (report.lora, report.geometry, report.trainable) == (76_677_120, 23_109_632, 99_786_752)
    assert report.base == 16_394_878_784
    assert "0.61 %" in str(report)
    size = ModelSize.of(CONFIG_14B)
    assert abs(size.num_layers * size.block_parameters + size.other_parameters - report.base) / report.base < 1e-3


def test_adapter_round_trips_through_every_format(tmp_path):
    adapter = random_adapter(tiny_transformer())
    save_adapter(tmp_path / "a.safetensors", adapter)
    for form, name in (("comfy", "b.safetensors"), ("released", "c.ckpt"), ("ex4d", "d.safetensors")):
        convert_adapter(sorted(tmp_path.iterdir())[-1], tmp_path / name, form)
    back = load_adapter(tmp_path / "d.safetensors")
    assert back.config.rank == 16 and back.config.alpha == 16.0
    for mine, theirs in ((adapter.lora, back.lora), (adapter.geometry, back.geometry)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    released = torch.load(tmp_path / "c.ckpt", weights_only=True)
    assert "blocks.0.self_attn.q.lora_A.default.weight" in released and "latent_encoder.0.weight" in released
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors", "c.ckpt", "d.safetensors"]


def test_wrapped_checkpoints_are_unwrapped(tmp_path):
    adapter = random_adapter(tiny_transformer())
    plain = released_state(adapter)
    wrapped = {"state_dict": {f"module.pipe.dit.{k.replace('.default', '')}": v for k, v in plain.items()}}
    torch.save(wrapped, tmp_path / "x.ckpt")
    back = load_adapter(tmp_path / "x.ckpt")
    assert all(torch.equal(back.lora[k], adapter.lora[k]) for k in adapter.lora)


class Bomb:
    def __reduce__(self):
        return (open, ("ran_code.txt", "w"))


def test_a_pickle_with_code_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, write in (
        ("old.ckpt", lambda p: p.write_bytes(pickle.dumps({"a": Bomb()}))),
        ("new.ckpt", lambda p: torch.save({"a": Bomb()}, p)),
    ):
        write(tmp_path / name)
        with pytest.raises(WeightsError, match="more than tensors"):
            load_adapter(tmp_path / name)
    assert not (tmp_path / "ran_code.txt").exists()


def test_wrong_and_truncated_checkpoints_are_named(tmp_path):
    model = tiny_transformer()
    adapter = random_adapter(model)
    state = released_state(adapter)
    cases = {
        "missing": ({k: v for k, v in state.items() if "latent_encoder.4" not in k}, "latent_encoder.4.bias"),
        "extra": ({**state, "blocks.0.self_attn.q.weight": torch.zeros(1)}, "blocks.0.self_attn.q.weight"),
        "other": ({"a": torch.zeros(1)}, "unexpected keys, first a"),
        "empty": ({}, "missing"),
    }
    for name, (bad, words) in cases.items():
        torch.save(bad, tmp_path / f"{name}.ckpt")
        with pytest.raises(WeightsError, match=words):
            load_adapter(tmp_path / f"{name}.ckpt")
    torch.save(state, tmp_path / "whole.ckpt")
    data = (tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="truncated"):
        load_adapter(tmp_path / "cut.ckpt")
    save_adapter(tmp_path / "whole.safetensors", adapter)
    data = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="truncated"):
        load_adapter(tmp_path / "cut.safetensors")


def test_an_adapter_of_another_rank_or_width_is_refused(tmp_path):
    torch.save(released_state(random_adapter(tiny_transformer(), rank=8)), tmp_path / "rank.ckpt")
    with pytest.raises(InputError, match="rank 8"):
        load_adapter(tmp_path / "rank.ckpt")
    assert load_adapter(tmp_path / "rank.ckpt", alpha=8.0).config.scale == 1.0
    wide = random_adapter(tiny_transformer(num_attention_heads=4, added_kv_proj_dim=96))
    with pytest.raises(WeightsError, match="48|96"):
        apply_adapter(wide, tiny_transformer())
    deep = random_adapter(tiny_transformer(num_layers=3))
    with pytest.raises(WeightsError, match="blocks.2"):
        apply_adapter(deep, tiny_transformer())


def test_merged_equals_attached_and_unmerges_to_the_bit():
    attached = tiny_transformer()
    adapter = random_adapter(attached)
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_transformer().cast_compute_(dtype)
        before = {n: p.clone() for n, p in model.named_parameters()}
        undo = merge_lora(model, adapter.update())
        assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())
        if dtype == torch.float32:
            torch.testing.assert_close(run(model), run(attached), rtol=0, atol=1e-5)
        undo.unmerge(model)
        assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_community_lora_naming(tmp_path):
    from safetensors.torch import save_file

    g = torch.Generator().manual_seed(0)
    down, up = torch.randn(4, 48, generator=g), torch.randn(48, 4, generator=g)
    module = "blocks.1.self_attn.q"
    forms = [
        {f"diffusion_model.{module}.lora_down.weight": down, f"diffusion_model.{module}.lora_up.weight": up,
         f"diffusion_model.{module}.alpha": torch.tensor(2.0)},
        {f"{module}.lora_A.default.weight": down * 0.5, f"{module}.lora_B.default.weight": up},
        {"transformer.blocks.1.attn1.to_q.lora_A.weight": down * 0.5, "transformer.blocks.1.attn1.to_q.lora_B.weight": up},
    ]  # fmt: skip
    for state in forms:
        update = lora_update(state)
        (pair,) = update.pairs["blocks.1.attn1.to_q.weight"]
        torch.testing.assert_close(pair.delta(), 0.5 * up @ down)
    save_file(forms[0], str(tmp_path / "x.safetensors"))
    twice = read_lora(tmp_path / "x.safetensors", 0.5) + read_lora(tmp_path / "x.safetensors", 0.5)
    model = tiny_transformer()
    before = model.blocks[1].attn1.to_q.weight.clone()
    merge_lora(model, twice)
    torch.testing.assert_close(model.blocks[1].attn1.to_q.weight, before + 0.5 * up @ down)
    biased = lora_update(
        {f"diffusion_model.{module}.diff_b": torch.ones(48), "blocks.0.modulation.diff": torch.ones(1)}
    )
    assert set(biased.deltas) >= {"blocks.1.attn1.to_q.bias"}
    with pytest.raises(WeightsError, match="one half only"):
        lora_update({f"{module}.lora_down.weight": down})
    with pytest.raises(WeightsError, match="unet"):
        lora_update({"lora_unet_x.lora_down.weight": down, "lora_unet_x.lora_up.weight": up})


def test_every_key_maps_both_ways():
    for name in tiny_transformer().state_dict():
        original = original_key(name)
        assert original is not None and diffusers_key(original) == name
    assert diffusers_key("something.else") is None


def test_base_converts_both_ways(tmp_path):
    from safetensors.torch import save_file

    model = tiny_transformer()
    source = tmp_path / "diffusers"
    source.mkdir()
    (source / "config.json").write_text('{"num_attention_heads": 2}')
    state = {k: v.clone() for k, v in model.state_dict().items()}
    half = len(state) // 2
    for i, keys in enumerate((list(state)[:half], list(state)[half:])):
        save_file({k: state[k] for k in keys}, str(source / f"diffusion_pytorch_model-{i}.safetensors"))
    convert_base(source, tmp_path / "original", "original")
    (tmp_path / "original" / "config.json").write_text('{"num_heads": 2}')
    convert_base(tmp_path / "original", tmp_path / "back", "diffusers")
    files = sorted((tmp_path / "back").glob("*.safetensors"))
    config = transformer_config(file_shapes(files), 2)
    again = build_transformer(config, stream_tensors(files))
    assert all(torch.equal(p, state[n]) for n, p in again.named_parameters())
    assert torch.equal(run(again), run(model))
    with pytest.raises(WeightsError, match="how many heads"):
        transformer_config(file_shapes(files))


def stream_of(model):
    return [(name, p.clone()) for name, p in model.named_parameters()]


def test_loading_is_strict_and_does_not_share_memory():
    model = tiny_transformer()
    tensors = stream_of(model)
    with pytest.raises(WeightsError, match="missing, first blocks.0.attn1"):
        build_transformer(TINY, tensors[:3] + tensors[40:])
    with pytest.raises(WeightsError, match="unexpected, first other"):
        build_transformer(TINY, [*tensors, ("other", torch.zeros(1))])
    with pytest.raises(WeightsError, match="shape"):
        build_transformer(TINY, [(n, p[..., :1]) for n, p in tensors])
    with pytest.raises(WeightsError, match="LoRA"):
        build_transformer(TINY, tensors, LoadPolicy(lora=LoraUpdate({}, {"blocks.9.x": torch.zeros(1)})))
    again = build_transformer(TINY, tensors)
    assert all(p.data_ptr() != t.data_ptr() for (_, t), p in zip(tensors, again.parameters(), strict=True))
    assert torch.equal(run(again), run(model))


def test_the_precision_map_is_closer_to_float32_than_stock_bfloat16():
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    config = {**TINY, "num_layers": 6}
    model = tiny_transformer(num_layers=6)
    truth = run(model)
    ours = build_transformer(config, stream_of(model), LoadPolicy(dtype=torch.bfloat16))
    assert ours.condition_embedder.time_proj.weight.dtype == torch.float32
    assert ours.proj_out.weight.dtype == torch.float32 and ours.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    stock = WanTransformer3DModel(**config)
    stock.load_state_dict(model.state_dict())
    stock.to(torch.bfloat16)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = stock(**{k: v.bfloat16() for k, v in inputs().items()}, return_dict=False)[0].float()
    assert 2 * (run(ours) - truth).norm() < (plain - truth).norm()


def test_eight_bit_modes_stay_close_and_survive_an_outlier():
    model = tiny_transformer()
    truth = run(model)
    for kind in ("fp8", "fp8_weight", "int8_weight"):
        small = build_transformer(TINY, stream_of(model), LoadPolicy(quantise=kind))
        count = sum(isinstance(m, QuantLinear) for m in small.modules())
        assert count == 2 * 12
        error = float((run(small) - truth).norm() / truth.norm())
        assert 1e-5 < error < 0.05, (kind, error)
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    x[:, 7] *= 100
    values, scale = quantise_rows(x, FP8, FP8_MAX)
    others = torch.arange(256) != 7
    error = (values.float() * scale - x)[:, others].norm() / x[:, others].norm()
    assert error < 0.04, "an outlier must leave its neighbours their three mantissa bits"
    linear = QuantLinear.from_weight(torch.randn(32, 256), "fp8")
    assert torch.equal(linear(shared_input(linear, x)), linear(x))
    assert torch.isfinite(quantise_rows(torch.zeros(2, 16), FP8, FP8_MAX)[0].float()).all()


def test_int8_weights_compile():
    """On a GPU Inductor rewrites products with bfloat16 scales and fails where their input is computed; ours are float32."""
    import shutil

    from torch._dynamo.utils import counters

    backend = "inductor" if shutil.which("g++") or shutil.which("clang++") else "aot_eager"
    counters.clear()
    x = torch.randn(1, 16, 48).bfloat16()
    first, last = (QuantLinear.from_weight(torch.randn(48, 48) / 7, "int8_weight") for _ in range(2))
    expected = last(torch.nn.functional.gelu(first(x)))
    compiled = torch.compile(lambda v: last(torch.nn.functional.gelu(first(v))), backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x), expected, rtol=0.02, atol=0.02)
    assert counters["inductor"]["woq_matcher_count"] == 0


def test_streamed_and_compiled_blocks_return_the_same_bits():
    config = {**TINY, "num_layers": 3}
    model = tiny_transformer(num_layers=3)
    for prefetch, kind in ((True, None), (False, "fp8")):
        twin = build_transformer(config, stream_of(model), LoadPolicy(quantise=kind))
        expected = run(twin)
        compile_blocks(twin, fullgraph=True, backend="eager")
        stream = stream_blocks(twin, "cpu", prefetch=prefetch)
        for _ in range(2):
            assert torch.equal(run(twin), expected)
        per_pass = sum(stream.bytes_per_block)
        assert 2 * per_pass <= stream.copied_bytes <= 3 * per_pass
        assert len(stream._slots) == (2 if prefetch else 1)


def test_stock_diffusers_tools_take_the_subclass():
    from diffusers import FirstBlockCacheConfig

    model = tiny_transformer()
    truth = run(model)
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    assert torch.equal(run(model), truth)
    offloaded = tiny_transformer()
    offloaded.enable_group_offload(torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)
    assert torch.equal(run(offloaded), truth)
    cached = tiny_transformer()
    cached.enable_cache(FirstBlockCacheConfig(threshold=1e-9))
    with cached.cache_context("positive"):
        assert torch.equal(run(cached), truth)
    buffer = io.BytesIO()
    torch.save(tiny_transformer(), buffer)
    buffer.seek(0)
    assert torch.equal(run(torch.load(buffer, weights_only=False)), truth)


def h100(free_gib=78.0, host_gib=128.0, capability=(9, 0), name="NVIDIA H100 80GB HBM3"):
    return Device(name, "cuda", int(free_gib * GIB), int(free_gib * GIB), capability, int(host_gib * GIB))


def test_plans_fit_and_say_why():
    size, work = ModelSize.of(CONFIG_14B), Work(49, (512, 512))
    assert work.tokens == 13312
    assert plan_memory(size, work, h100()).mode == "bf16"
    assert plan_memory(size, work, h100(), precision="fp8").mode == "fp8"
    budgets = {m: plan_memory(size, work, h100(free_gib=g)).mode for m, g in (("a", 24), ("b", 12))}
    assert budgets == {"a": "fp8", "b": "offload_bf16"}
    assert plan_memory(size, work, h100(free_gib=24, capability=(8, 6), name="RTX 3090")).mode == "fp8_weight"
    for free in range(8, 80, 3):
        plan = plan_memory(size, work, h100(free_gib=free))
        assert plan.peak_bytes <= free * GIB and "GiB" in str(plan) and plan.why
    budget = parse_bytes("12GB")
    assert plan_memory(size, work, h100(), budget_bytes=budget).peak_bytes <= budget
    assert estimate(size, work, h100(), "fp8").peak_bytes < 22 * GIB
    assert estimate(size, work, h100(), "offload_fp8").peak_bytes < 11 * GIB
    assert len({estimate(size, work, h100(), m).peak_bytes for m in MODES}) > 3


def test_too_little_memory_names_what_would_fit():
    size = ModelSize.of(CONFIG_14B)
    with pytest.raises(ResourceError, match="--work-size .* --window") as error:
        plan_memory(size, Work(81, (720, 1280)), h100(free_gib=6))
    assert "GiB" in str(error.value)
    with pytest.raises(ResourceError, match="host memory"):
        plan_memory(size, Work(49, (512, 512)), h100(free_gib=10, host_gib=4))
    with pytest.raises(ResourceError, match="no fp8 products"):
        plan_memory(size, Work(49, (512, 512)), h100(capability=(8, 0), name="A100"), precision="fp8")
    with pytest.raises(ResourceError, match="no CUDA GPU.*--preset"):
        plan_memory(size, Work(49, (512, 512)), Device("CPU", "cpu", 0, 0))


@pytest.mark.parametrize("text", ["12", "twelve", "-3GB", "12 apples", "0GB"])
def test_memory_sizes(text):
    assert parse_bytes("12GB") == 12_000_000_000 and parse_bytes("1.5GiB") == 3 * 2**29
    if text == "12":
        assert parse_bytes(text) == 12
        return
    with pytest.raises(InputError):
        parse_bytes(text)


def test_small_parsers():
    assert split_weight("a/b.safetensors:0.5")[1] == 0.5 and split_weight("a.safetensors")[1] == 1.0
    assert str(split_weight("C:/x/lora.safetensors")[0]).endswith("lora.safetensors")
