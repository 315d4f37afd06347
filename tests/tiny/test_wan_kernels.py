"""The Triton kernels between a Wan block's matrices, in Triton's interpreter, against torch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from wan_tiny import TINY, tiny_transformer

from ex4d.models.wan.fast import fused
from ex4d.models.wan.fast.float8 import FP8, FP8_MAX, quantise_rows
from ex4d.models.wan.files.loading import LoadPolicy, build_transformer

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: 48 and 13 channels are not powers of two: masked rows.
WIDTHS = (48, 128)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def close(ours, theirs, tolerance=2e-6):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    error = float((ours.double() - theirs.double()).norm() / theirs.double().norm())
    assert error < tolerance, error


def same_rows(values, scale, truth):
    """Fp8 rows of `truth` with their scale; a value on the edge between two codes may take either."""
    expected, expected_scale = quantise_rows(truth, FP8, FP8_MAX)
    torch.testing.assert_close(scale, expected_scale.reshape(-1, 1), rtol=1e-5, atol=0)
    assert float((values.float() != expected.float()).float().mean()) < 0.01
    close(values.float() * expected_scale, expected.float() * expected_scale, 0.01)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("batch", (1, 2))
def test_residual_norm_and_modulation(width, batch):
    residual, update = randn(batch, 5, width), randn(batch, 5, width, seed=1)
    gate, factor, shift = (randn(batch, 1, width, seed=s) for s in (2, 3, 4))
    residual[0, 2] = 0
    for given, factor_of in ((None, None), (update, gate), (update, None)):
        total, out, scale = fused.residual_norm(residual, given, factor_of, factor, shift, 1e-6, torch.float32)
        summed = residual if given is None else residual + given * (1 if factor_of is None else factor_of)
        truth = F.layer_norm(summed, (width,), eps=1e-6) * factor + shift
        close(out, truth)
        assert scale.numel() == 0
        if given is not None:
            close(total, summed)
        _, values, scale = fused.residual_norm(residual, given, factor_of, factor, shift, 1e-6, FP8)
        same_rows(values, scale, truth)


def test_quantised_rows_and_gelu():
    x = 4 * randn(6, 200)
    x[1], x[2, 7], x[3] = 0, 400.0, -60.0
    same_rows(*fused.quantise(x, False), x)
    same_rows(*fused.quantise(x, True), F.gelu(x, approximate="tanh"))


def rotated(x, weight, cos, sin, heads, eps):
    """As diffusers' processor does it."""
    x = F.rms_norm(x, x.shape[-1:], weight, eps).unflatten(2, (heads, -1))
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[..., 0::2], sin[..., 1::2]
    return torch.stack([a * c - b * s, a * s + b * c], dim=-1).flatten(-2)


@pytest.mark.parametrize("heads,batch", ((3, 2), (4, 1)))
def test_norm_and_rotation_and_the_packed_layout(heads, batch):
    width, tokens = heads * 16, 5
    q, k, v = (randn(batch, tokens, width, seed=s) for s in range(3))
    wq, wk = randn(width, seed=3), randn(width, seed=4)
    cos, sin = (randn(1, tokens, 1, 8, seed=s).repeat_interleave(2, -1) for s in (5, 6))
    truth = [rotated(x, w, cos, sin, heads, 1e-6) for x, w in ((q, wq), (k, wk))]
    out = fused.norm_rotate(q, k, wq, wk, cos, sin, heads, 1e-6)
    close(out[0], truth[0])
    close(out[1], truth[1])
    close(fused.rms_norm(q, wq, 1e-6), F.rms_norm(q, (width,), wq, 1e-6))
    if batch == 1:
        packed = fused.norm_rotate_pack(q, k, v, wq, wk, cos, sin, heads, 1e-6, 2)
        for i, x in enumerate((*truth, v.unflatten(2, (heads, -1)))):
            close(packed[:, :, i], x[0].unflatten(1, (2, -1)).permute(1, 0, 2, 3).contiguous())


@pytest.mark.parametrize("words", (0, 3, 70, 96))
def test_both_cross_attentions_in_one_pass(words):
    heads, head, batch = 2, 16, 2
    q, image_k, image_v = randn(batch, 21, 32), randn(batch, 65, 32, seed=1), randn(batch, 65, 32, seed=2)
    text = randn(batch, 96, 32, seed=3)
    text[:, words:] = text[:, -1:]
    text_v = 2 * text + 1
    distinct = fused.distinct_rows(text)
    assert distinct.tolist() == [min(words + 1, 96)] * batch
    out = fused.cross_attention(q, image_k, image_v, text, text_v, distinct, heads)

    def attend(k, v):
        q_, k_, v_ = (x.unflatten(2, (heads, head)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q_, k_, v_).transpose(1, 2).flatten(2)

    # A GPU multiplies float32 tiles with ten mantissa bits; bfloat16 is what is used there.
    close(out, attend(image_k, image_v) + attend(text, text_v), 1e-5 if DEVICE == "cpu" else 5e-3)


CONFIG = {**TINY, "num_attention_heads": 2, "attention_head_dim": 16, "added_kv_proj_dim": 32, "ffn_dim": 64}


def sample(batch=1):
    return {
        "hidden_states": randn(batch, 36, 2, 4, 6),
        "timestep": torch.full((batch,), 500.0, device=DEVICE),
        "encoder_hidden_states": F.pad(randn(batch, 20, 12, seed=1), (0, 0, 0, 492)),
        "encoder_hidden_states_image": randn(batch, 257, 20, seed=2),
    }


@pytest.mark.parametrize("quantise", (None, "fp8"))
def test_a_fused_denoiser_is_the_plain_one(quantise):
    source = tiny_transformer(**CONFIG)
    tensors = [(name, p.clone()) for name, p in source.named_parameters()]
    policy = LoadPolicy(DEVICE, dtype=torch.bfloat16, quantise=quantise)
    with torch.no_grad():
        truth = source.to(DEVICE)(**sample(), return_dict=False)[0]
        model = build_transformer(CONFIG, tensors, policy)
        model.fuse_kernels_(DEVICE, False)
        plain = model(**sample(), return_dict=False)[0]
        assert model.fuse_kernels_(DEVICE) and all(block.fused for block in model.blocks)
        ours = model(**sample(), return_dict=False)[0]
        twice = model(**sample(2), return_dict=False)[0]
        for block in model.blocks:
            block.forward = torch.compile(block.forward, backend="aot_eager", fullgraph=True, dynamic=False)
        traced = model(**sample(), return_dict=False)[0]
    assert torch.equal(traced, ours) and not torch.equal(ours, plain)
    error = [float((x - truth).norm() / truth.norm()) for x in (plain, ours)]
    assert error[1] < 1.2 * error[0], error
    assert twice.shape[0] == 2 and torch.isfinite(twice).all()


def test_training_and_other_widths_stay_in_torch():
    model = tiny_transformer(**CONFIG)
    model.fuse_kernels_(DEVICE)
    model.cast_compute_(torch.bfloat16).to(DEVICE).requires_grad_(True)
    model(**sample(), return_dict=False)[0].sum().backward()
    assert model.blocks[0].attn1.to_q.weight.grad is not None
    assert not fused.fits(5120, 13824, 24) and not fused.fits(5120, 40000, 128) and fused.fits(5120, 13824, 128)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="gloo with two processes, on a CPU")
def test_two_processes_exchange_heads_and_return_the_same_bits():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Path(__file__).parent
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"PYTHONPATH": str(here), "TRITON_INTERPRET": "1"}
    command = [sys.executable, str(here / "ulysses_script.py")]
    ranks = [{"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(2)]
    workers = [subprocess.Popen(command, env=os.environ | shared | rank, stderr=subprocess.DEVNULL) for rank in ranks]
    assert [w.wait(timeout=100) for w in workers] == [0, 0]
