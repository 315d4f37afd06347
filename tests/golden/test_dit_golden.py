"""G3: geometry encoder, denoiser and adapter from the original files agree with the reference in float32."""

import numpy as np
import pytest
import torch
from wan_set import DIT_HEADS

from ex4d.models.wan.files.adapter import apply_adapter, check_adapter_fits, load_adapter, released_state
from ex4d.models.wan.files.loading import LoadPolicy, build_transformer
from ex4d.models.wan.files.original import file_shapes, stream_tensors, transformer_config
from ex4d.models.wan.lora import merge_lora

GEOMETRY_TOLERANCE = 1e-6
DIT_TOLERANCE = 5e-6


def need(golden, *names):
    for name in names:
        if not (golden / name).is_file():
            pytest.skip(f"{name} is not in {golden}")


@pytest.fixture(scope="module")
def dit_io(load_golden):
    return {key: torch.from_numpy(np.asarray(value)) for key, value in load_golden("dit_io.npz").items()}


@pytest.fixture
def build(golden):
    need(golden, "dit.safetensors")
    files = [golden / "dit.safetensors"]
    shapes = file_shapes(files)
    config = transformer_config(shapes, DIT_HEADS[shapes["patch_embedding.weight"][0]])
    return lambda policy=LoadPolicy(): build_transformer(config, stream_tensors(files), policy)  # noqa: B008


def denoise(model, io, name, geometry):
    context = torch.zeros(1, 512, io["context"].shape[-1])
    context[:, : len(io["context"])] = io["context"]
    inputs = torch.cat([io["latents"], io["y"]], dim=1)
    kwargs = {"geometry": geometry} if geometry is not None else None
    t = io["timesteps"][int(name[-1])][None]
    with torch.no_grad():
        return model(inputs, t, context, io["clip_fea"], return_dict=False, attention_kwargs=kwargs)[0]


def check_outputs(model, io, geometry, adapter: str) -> None:
    names = sorted(key for key in io if key.startswith(f"out_{adapter}_"))
    print(f"dit_io.npz: {len(names)} outputs checked: {', '.join(names)}")
    assert names, f"no out_{adapter}_* in dit_io.npz"
    for name in names:
        out = denoise(model, io, name, None if "noray" in name else geometry)
        torch.testing.assert_close(out, io[name], rtol=0, atol=DIT_TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


def test_geometry_encoder(golden, dit_io):
    need(golden, "ex4d_adapter.ckpt")
    encoder = load_adapter(golden / "ex4d_adapter.ckpt").geometry_encoder()
    with torch.no_grad():
        tokens = encoder(dit_io["video_latents"], dit_io["mask_latents"])
    torch.testing.assert_close(tokens, dit_io["ray_latent"], rtol=0, atol=GEOMETRY_TOLERANCE)


def test_base_denoiser_from_original_keys(build, dit_io):
    check_outputs(build(), dit_io, dit_io["ray_latent"], "base")


def test_attached_adapter(golden, build, dit_io):
    need(golden, "ex4d_adapter.ckpt")
    model = build()
    encoder = apply_adapter(load_adapter(golden / "ex4d_adapter.ckpt"), model)
    with torch.no_grad():
        tokens = encoder(dit_io["video_latents"], dit_io["mask_latents"])
    check_outputs(model, dit_io, tokens, "lora")


def test_adapter_merged_while_loading(golden, build, dit_io):
    need(golden, "ex4d_adapter.ckpt")
    adapter = load_adapter(golden / "ex4d_adapter.ckpt")
    check_outputs(build(LoadPolicy(lora=adapter.update())), dit_io, dit_io["ray_latent"], "lora")


def test_merge_and_unmerge_return_every_bit(golden, build, dit_io):
    need(golden, "ex4d_adapter.ckpt")
    adapter = load_adapter(golden / "ex4d_adapter.ckpt")
    model = build()
    check_adapter_fits(adapter, model)
    before = {name: p.clone() for name, p in model.named_parameters()}
    merged = merge_lora(model, adapter.update())
    changed = sum(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert changed == len(adapter.lora) // 2
    check_outputs(model, dit_io, dit_io["ray_latent"], "lora")
    merged.unmerge(model)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_released_names_come_back(golden):
    need(golden, "ex4d_adapter.ckpt")
    path = golden / "ex4d_adapter.ckpt"
    raw = torch.load(path, weights_only=True)
    state = released_state(load_adapter(path))
    assert state.keys() == raw.keys()
    assert all(torch.equal(state[key], raw[key]) for key in raw)
