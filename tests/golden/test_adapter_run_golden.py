"""The whole `wan14b` preset on the golden set's files, in float32 on the CPU: released frames within one level."""

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_dit_golden import need
from wan_set import CLIP_HEADS, DIT_HEADS

from ex4d.generators.wan14b.files import CLIP_FILE, VAE_FILE
from ex4d.generators.wan14b.generator import make
from ex4d.models.wan.files.adapter import read_torch
from ex4d.models.wan.files.original import file_shapes
from ex4d.types import CameraPath, RenderClip, VideoClip


@pytest.fixture
def base(golden, tmp_path, load_golden):
    """The set's files in the original Wan layout, with the head counts they do not say."""
    need(golden, "dit.safetensors", "ex4d_adapter.ckpt", VAE_FILE, CLIP_FILE)
    io = load_golden("sampling.npz")
    for name, target in (
        ("dit.safetensors", "diffusion_pytorch_model.safetensors"),
        (VAE_FILE, VAE_FILE),
        (CLIP_FILE, CLIP_FILE),
    ):
        shutil.copyfile(golden / name, tmp_path / target)
    dim = file_shapes([golden / "dit.safetensors"])["patch_embedding.weight"][0]
    width = read_torch(golden / CLIP_FILE)["visual.cls_embedding"].shape[-1]
    heads = {"num_heads": DIT_HEADS[dim], "image_num_heads": CLIP_HEADS[width]}
    (tmp_path / "config.json").write_text(json.dumps(heads))
    text = {name: torch.from_numpy(io[f"context_{name[:3]}"])[None] for name in ("positive", "negative")}
    save_file(text, str(tmp_path / "text.safetensors"))
    return tmp_path


def render_clip(io) -> RenderClip:
    color, mask = io["frames_rgb_in"], io["mask_in"] > 127
    n, h, w = mask.shape
    poses = np.tile(np.eye(4), (n, 1, 1))
    K = np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))
    path = CameraPath(poses, K, (h, w), np.arange(n, dtype=np.float64), "golden")
    no_source = VideoClip(np.zeros((0, h, w, 3), np.uint8), Fraction(15))
    return RenderClip(color, mask, np.ones((n, h, w), np.float32), path, no_source, Fraction(15))


def test_released_frames_come_out(golden, base, load_golden, monkeypatch):
    io = load_golden("sampling.npz")
    generator = make(
        base=base,
        adapter=golden / "ex4d_adapter.ckpt",
        text_embeddings=base / "text.safetensors",
        device="cpu",
        steps=len(io["latents"]) - 1,
        reference_rounding=True,
        fit="exact",
    )
    kernels = [int(k) for k in io["kernels"]]
    monkeypatch.setattr("ex4d.conditioning.condition.ConditionRule.kernels", lambda rule, n, seed: kernels[:n])
    clip = render_clip(io)
    frames = np.concatenate([c.frames for c in generator.generate([clip], seed=0)])
    difference = np.abs(frames.astype(int) - io["output_uint8"].astype(int))
    print(f"sampling.npz: {len(frames)} frames checked, largest difference {difference.max()}")
    assert len(frames) == len(clip) and difference.max() <= 1
