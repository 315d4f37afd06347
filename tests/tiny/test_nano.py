"""The embedded model's generator with tiny random weights: sizes, lengths, what stays untouched, refusal of changed weights."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from ex4d.errors import InputError, WeightsError
from ex4d.generators.geometry_encoder import GeometryEncoder
from ex4d.generators.nano import Nano, small_size
from ex4d.generators.parts import Lazy, TextEmbeddings, WanParts
from ex4d.generators.transformer import Ex4dTransformer
from ex4d.models import embedded
from ex4d.models.depth_network import ClipDepthNetwork
from ex4d.models.video_autoencoder import VideoAutoencoder
from ex4d.pipeline import RenderOptions, reconstruct
from ex4d.types import DepthClip, VideoClip


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    ones, zeros = [1.0] * 4, [0.0] * 4
    return VideoAutoencoder(4, (16, 16, 16), (1, 1, 1), (1, 1, 1), latents_mean=zeros, latents_std=ones).eval()


@pytest.fixture(scope="module")
def parts(autoencoder):
    torch.manual_seed(1)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 12, "out_channels": 4, "text_dim": 8}
    transformer = Ex4dTransformer(**sizes, freq_dim=16, ffn_dim=32, num_layers=2).eval()
    return WanParts(
        name="nano",
        transformer=Lazy.of(transformer),
        vae=Lazy.of(autoencoder),
        geometry_encoder=Lazy.of(GeometryEncoder(24, 8, 4)),
        text=Lazy.of(TextEmbeddings(torch.zeros(1, 1, 8), None)),
        mask_affine=(1.0, 0.0),
        text_tokens=None,
    )


def render(frames=6, h=50, w=72):
    rng = np.random.default_rng(0)
    video = VideoClip(rng.integers(0, 255, (frames, h, w, 3)).astype(np.uint8), Fraction(25))
    K = np.tile(np.array([[w, 0, w / 2], [0, w, h / 2], [0, 0, 1]], np.float32), (frames, 1, 1))
    depth = np.full((frames, h, w), 5, np.float32)
    depth[:, 15:35, 20:40] = 2
    return reconstruct(video, DepthClip(depth, K), "orbit:35", RenderOptions(rasterizer="cpu", plate=False))


def test_observed_pixels_keep_their_full_resolution(parts):
    clip = render()
    made = list(Nano("draft", parts=parts).generate([clip[:4], clip[4:]], seed=1))
    frames = np.concatenate([part.frames for part in made])
    assert frames.shape == clip.color.shape and not clip.mask.all()
    np.testing.assert_array_equal(frames[clip.mask], clip.color[clip.mask])
    again = np.concatenate([part.frames for part in Nano("draft", parts=parts).generate([clip], seed=1)])
    np.testing.assert_array_equal(again, frames)


def test_another_seed_changes_only_what_was_not_seen(parts):
    clip = render()
    a, b = (np.concatenate([p.frames for p in Nano(parts=parts).generate([clip], seed=s)]) for s in (1, 2))
    changed = (a != b).any(axis=-1)
    assert changed.any() and not (changed & clip.mask).any()


@pytest.mark.parametrize(
    ("size_hw", "expected"), [((720, 1280), (256, 448)), ((256, 256), (256, 256)), ((100, 90), (96, 96))]
)
def test_the_working_size_is_near_256_on_the_short_side(size_hw, expected):
    assert small_size(size_hw, 256) == expected


def test_unknown_quality_is_refused():
    with pytest.raises(InputError, match="draft, default, best"):
        Nano("fast")


def test_a_weights_file_with_another_hash_is_refused(tmp_path, monkeypatch):
    (tmp_path / "adapter.safetensors").write_bytes(b"changed")
    (tmp_path / "hashes.json").write_text(json.dumps({"adapter.safetensors": "0" * 64, "gone.safetensors": "0" * 64}))
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    embedded.hashes.cache_clear()
    with pytest.raises(WeightsError, match="has hash .* try: pip install --force-reinstall"):
        embedded.verified("adapter.safetensors")
    with pytest.raises(WeightsError, match="missing"):
        embedded.verified("gone.safetensors")
    assert not embedded.available()
    embedded.hashes.cache_clear()


def test_the_autoencoder_has_wans_shapes_and_its_groups_look_back_only(autoencoder):
    x = torch.rand(1, 3, 9, 32, 24) * 2 - 1
    z = autoencoder.encode(x).latent_dist.mode()
    assert z.shape == (1, 4, 3, 4, 3) and autoencoder.decode(z).sample.shape == x.shape
    torch.testing.assert_close(autoencoder.encode(x[:, :, :5]).latent_dist.mode(), z[:, :, :2])
    for mix in autoencoder.dec_time:
        torch.nn.init.normal_(mix.out.weight, std=0.1)
    torch.testing.assert_close(autoencoder.decode(z[:, :, :2]).sample, autoencoder.decode(z).sample[:, :, :5])
    with pytest.raises(ValueError, match="4k\\+1"):
        autoencoder.encode(x[:, :, :8])


def test_the_depth_network_gives_positive_disparity_of_every_frame():
    torch.manual_seed(0)
    network = ClipDepthNetwork((16, 16, 16, 24), (1, 1, 1, 1), mixes=1, heads=4).eval()
    with torch.no_grad():
        out = network(torch.rand(2, 3, 3, 32, 64))
    assert out.shape == (2, 3, 32, 64) and out.dtype == torch.float32 and (out > 0).all()
    with pytest.raises(ValueError, match="divisible by 32"):
        network(torch.rand(1, 3, 1, 32, 40))
