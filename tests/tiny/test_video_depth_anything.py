"""Video Depth Anything: the released names load strictly, the network is Depth Anything when its time layers are zero,
and windows join without a seam."""

import sys
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import DepthAnythingForDepthEstimation

from ex4d.depth.estimators.video_depth_anything import VideoDepthAnythingDepth, network_size
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.depth.make import make_depth
from ex4d.errors import WeightsError
from ex4d.models.depth import video_depth_anything as vda_model
from ex4d.models.depth.video_depth_anything import VideoDepthAnything, load_released, our_state
from ex4d.system.array_store import ArrayStore
from ex4d.types import VideoClip

sys.path.insert(0, str(Path(__file__).parent))
import depth_models

#: A made-up size: encoder width 32, 4 layers, 2 heads; widths divide by the 32 groups and 8 heads of the time layers.
ENDS = ("weight", "bias")
TINY = (4, 2, [1, 2, 3, 4], [32, 32, 32, 32], 32)


@pytest.fixture(scope="module", autouse=True)
def tiny_size():
    vda_model.SIZES[32] = TINY
    yield
    del vda_model.SIZES[32]


@pytest.fixture(scope="module")
def network(tiny_size):
    torch.manual_seed(0)
    made = VideoDepthAnything(DepthAnythingForDepthEstimation(vda_model.released_config(32))).eval()
    torch.nn.init.constant_(made.frames.head.conv3.bias, 0.5)
    return made


def file_state(network):
    """Our names, with the encoder's and head's parts named as transformers writes them into files."""
    with tempfile.TemporaryDirectory() as folder:
        network.frames.save_pretrained(folder)
        part = load_file(Path(folder) / "model.safetensors")
    return {
        **{f"frames.{n}": t for n, t in part.items()},
        **{f"mixers.{n}": t for n, t in network.mixers.state_dict().items()},
    }


def frame_names():
    """Released name -> name in `file_state`, encoder and head, written out as the checkpoint lists them."""
    backbone, neck = "frames.backbone", "frames.neck"
    names = {f"pretrained.{n}": f"{backbone}.embeddings.{n}" for n in ("cls_token", "mask_token")}
    names["pretrained.pos_embed"] = f"{backbone}.embeddings.position_embeddings"
    for i in range(4):
        block, ours = f"pretrained.blocks.{i}", f"{backbone}.encoder.layer.{i}"
        parts = ["norm1", "norm2", "mlp.fc1", "mlp.fc2"]
        names |= {f"{block}.{part}.{end}": f"{ours}.{part}.{end}" for part in parts for end in ENDS}
        names |= {f"{block}.attn.proj.{end}": f"{ours}.attention.output.dense.{end}" for end in ENDS}
        names |= {f"{block}.ls{n}.gamma": f"{ours}.layer_scale{n}.lambda1" for n in (1, 2)}
        names |= {f"head.projects.{i}.{end}": f"{neck}.reassemble_stage.layers.{i}.projection.{end}" for end in ENDS}
        refine, layer = f"head.scratch.refinenet{i + 1}", f"{neck}.fusion_stage.layers.{3 - i}"
        names |= {f"{refine}.out_conv.{end}": f"{layer}.projection.{end}" for end in ENDS}
        names |= {
            f"{refine}.resConfUnit{u}.conv{c}.{end}": f"{layer}.residual_layer{u}.convolution{c}.{end}"
            for u in (1, 2)
            for c in (1, 2)
            for end in ENDS
        }
        names[f"head.scratch.layer{i + 1}_rn.weight"] = f"{neck}.convs.{i}.weight"
    for end in ENDS:
        names[f"pretrained.patch_embed.proj.{end}"] = f"{backbone}.embeddings.patch_embeddings.projection.{end}"
        names[f"pretrained.norm.{end}"] = f"{backbone}.layernorm.{end}"
        names |= {
            f"head.resize_layers.{i}.{end}": f"{neck}.reassemble_stage.layers.{i}.resize.{end}" for i in (0, 1, 3)
        }
        names[f"head.scratch.output_conv1.{end}"] = f"frames.head.conv1.{end}"
        names[f"head.scratch.output_conv2.0.{end}"] = f"frames.head.conv2.{end}"
        names[f"head.scratch.output_conv2.2.{end}"] = f"frames.head.conv3.{end}"
    return names


def time_names():
    """The same for the four time transformers."""
    names = {}
    for i in range(4):
        outer, mixer = f"head.motion_modules.{i}.temporal_transformer", f"mixers.{i}"
        block = f"{outer}.transformer_blocks.0"
        for end in ENDS:
            names |= {f"{outer}.{part}.{end}": f"{mixer}.{part}.{end}" for part in ("norm", "proj_in", "proj_out")}
            names[f"{block}.ff.net.0.proj.{end}"] = f"{mixer}.ff_in.{end}"
            names[f"{block}.ff.net.2.{end}"] = f"{mixer}.ff_out.{end}"
            names[f"{block}.ff_norm.{end}"] = f"{mixer}.ff_norm.{end}"
        for j in range(2):
            attention = f"{block}.attention_blocks.{j}"
            names |= {f"{block}.norms.{j}.{end}": f"{mixer}.norms.{j}.{end}" for end in ENDS}
            names |= {f"{attention}.to_out.0.{end}": f"{mixer}.attentions.{j}.to_out.{end}" for end in ENDS}
            names |= {f"{attention}.to_{x}.weight": f"{mixer}.attentions.{j}.to_{x}.weight" for x in "qkv"}
            names[f"{attention}.pos_encoder.pe"] = f"{mixer}.attentions.{j}.pe"
    return names


def released_state(network):
    """The network's weights under the released names."""
    own = file_state(network)
    state = {released: own[ours].clone() for released, ours in {**frame_names(), **time_names()}.items()}
    for i in range(4):
        at = f"frames.backbone.encoder.layer.{i}.attention.attention"
        for end in ENDS:
            parts = [own[f"{at}.{part}.{end}"] for part in ("query", "key", "value")]
            state[f"pretrained.blocks.{i}.attn.qkv.{end}"] = torch.cat(parts)
    return state


def test_released_names_load_strictly_and_give_the_same_network(network):
    state = released_state(network)
    assert our_state(state).keys() == file_state(network).keys()
    loaded = load_released(state, "made up")
    x = torch.randn(1, 4, 3, 42, 56, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), network(x), rtol=0, atol=0)
    missing = dict(state)
    del missing["head.motion_modules.2.temporal_transformer.norm.weight"]
    for wrong in (missing, {**state, "head.extra.weight": torch.zeros(1)}, {"a": torch.zeros(1)}):
        with pytest.raises(WeightsError):
            load_released(wrong, "made up")


def test_it_is_depth_anything_when_the_time_layers_add_nothing(network):
    x = torch.randn(1, 3, 3, 42, 56, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mixed = network(x)
        still = VideoDepthAnything(DepthAnythingForDepthEstimation(network.frames.config)).eval()
        still.load_state_dict(network.state_dict())
        for mixer in still.mixers:
            torch.nn.init.zeros_(mixer.proj_out.weight)
            torch.nn.init.zeros_(mixer.proj_out.bias)
        torch.testing.assert_close(still(x)[0], network.frames(x[0]).predicted_depth, rtol=1e-6, atol=1e-7)
        shuffled = still(x[:, [2, 0, 1]])[:, [1, 2, 0]]
        torch.testing.assert_close(shuffled, still(x), rtol=1e-5, atol=1e-6)
    assert (mixed - still(x)).abs().max() > 1e-4, "frames look at each other"


@pytest.mark.parametrize(
    "size_hw, expected",
    [((512, 512), (518, 518)), ((480, 854), (518, 924)), ((1920, 1080), (924, 518)), ((400, 1000), (364, 910))],
)
def test_the_input_keeps_the_shorter_side(size_hw, expected):
    found = network_size(size_hw)
    assert found == expected or (abs(found[0] - expected[0]) <= 14 and abs(found[1] - expected[1]) <= 14)
    assert found[0] % 14 == 0 and found[1] % 14 == 0


class Drifting(VideoDepthAnythingDepth):
    """Answers with the truth in each frame's corner, under another scale and shift in every window."""

    def _window(self, frames, store):
        rng = np.random.default_rng(int(frames[:, 0, 0, 0].astype(int).sum()))
        scale, shift = (1.0, 0.0) if frames[1, 0, 0, 0] == 1 else (rng.uniform(0.5, 2), rng.uniform(0, 3))
        truth = 1 + frames[:, 0, 0, 0, None, None] / 50 + np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
        return ((truth - shift) / scale).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 24, 25, 31, 32, 33, 40, 53, 54, 55, 100])
def test_windows_join_without_a_seam(network, count):
    frames = np.zeros((count, 8, 8, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(count)
    run = Drifting(network, choose_intrinsics((8, 8)))
    with ArrayStore() as store:
        maps = np.stack(list(run.disparity(frames, store)))
    truth = 1 + np.arange(count)[:, None, None] / 50 + np.linspace(0, 1, 64).reshape(8, 8)
    assert len(maps) == count
    first = maps[0].ravel()
    a, b = np.polyfit(first, truth[0].ravel(), 1)  # the first window's own footing
    np.testing.assert_allclose(a * maps + b, truth, atol=2e-4)


def test_the_released_file_runs_by_name_resumes_and_is_refused_when_torn(network, tmp_path):
    folder = tmp_path / "depth-anything" / "Video-Depth-Anything-Small"
    folder.mkdir(parents=True)
    torch.save(released_state(network), folder / "video_depth_anything_vits.pth")
    frames = np.random.default_rng(0).integers(0, 255, (34, 30, 40, 3), dtype=np.uint8)
    run = replace(
        make_depth("video-depth-anything-small", size_hw=(30, 40), models_dir=tmp_path, work_dir=tmp_path / "work"),
        side=42,
    )
    chunks = [VideoClip(frames[:20], Fraction(25)), VideoClip(frames[20:], Fraction(25))]
    first = np.concatenate([clip.depth for clip in run.estimate(chunks)])
    assert first.shape == (34, 30, 40) and np.isfinite(first).all() and (first > 0).all()
    used = []
    handle = run.network.register_forward_pre_hook(lambda *_: used.append(1))
    np.testing.assert_array_equal(np.concatenate([clip.depth for clip in run.estimate(chunks)]), first)
    handle.remove()
    assert not used
    (folder / "video_depth_anything_vits.pth").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="cannot be read"):
        make_depth("video-depth-anything-small", size_hw=(30, 40), models_dir=tmp_path)


def test_auto_prefers_it(network, tmp_path):
    folder = tmp_path / "depth-anything" / "Video-Depth-Anything-Small"
    folder.mkdir(parents=True)
    torch.save(released_state(network), folder / "video_depth_anything_vits.pth")
    depth_models.depth_anything(tmp_path / "depth-anything" / "Depth-Anything-V2-Small-hf")
    assert make_depth("auto", size_hw=(30, 40), models_dir=tmp_path).name == "video-depth-anything-small"
