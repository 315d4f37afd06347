"""G6: DepthCrafter on stock diffusers parts returns what the released code returns."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from ex4d.depth.conversion import released_depth
from ex4d.depth.estimators.crafter_windows import Windows
from ex4d.depth.estimators.depth_crafter import DepthCrafterDepth
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.models.depth.depth_crafter import embed_frames, load_parts, predict
from ex4d.system.array_store import ArrayStore
from ex4d.types import VideoClip

SHARED = Path(os.environ.get("EX4D_SHARED", Path(__file__).parents[3] / "shared"))
TOLERANCE = 5e-5
RUNS = ["depthcrafter_io.npz", "depthcrafter_short_io.npz"]


@pytest.fixture(scope="module")
def parts(golden):
    # A held-out set keeps its weights in set a's folder: the pictures differ, the networks do not.
    around = [golden, golden.parent, golden.parent / "a", SHARED / "golden" / "a"]
    folders = [place / "depthcrafter" for place in around]
    folder = next((f for f in folders if (f / "unet" / "config.json").is_file()), None)
    if folder is None:
        pytest.skip("this set has no DepthCrafter weights")
    return load_parts(folder / "unet", folder / "svd", torch.float32)


def estimator(parts, io, **more):
    return DepthCrafterDepth(
        parts,
        choose_intrinsics(io["frames_u8"].shape[1:3], reference=True),
        Windows(int(io["window"]), int(io["overlap"])),
        int(io["steps"]),
        float(io["guidance"]),
        reference=True,
        **more,
    )


@pytest.fixture(scope="module", params=RUNS)
def io(request, golden):
    if not (golden / request.param).is_file():
        pytest.skip(f"this set has no {request.param}")
    return dict(np.load(golden / request.param))


@pytest.fixture(scope="module")
def decoded(parts, io, tmp_path_factory):
    """(the released pipeline's output RGB [T, 3, H, W], the estimator that made it, which keeps its pieces)."""
    run = estimator(parts, io, work_dir=tmp_path_factory.mktemp("pieces"))
    return torch.cat(list(run.decoded([io["frames_u8"]], seed=42))).numpy(), run


def test_depth_equals_the_released_code(decoded, io):
    rgb, _ = decoded
    gray = rgb.mean(axis=1)
    checked = {
        "raw_first2": rgb.transpose(0, 2, 3, 1)[:2],
        "depth_gray": gray,
        "depth_raw_minmax": np.array([gray.min(), gray.max()]),
    }
    errors = {name: np.abs(found - io[name]).max() for name, found in checked.items()}
    print(len(errors), "arrays checked:", errors)
    assert max(errors.values()) < TOLERANCE


def test_released_conversion_of_a_second_run_that_resumes_in_chunks_of_any_length(parts, decoded, io):
    frames = io["frames_u8"]
    clips = [VideoClip(frames[i : i + 7], Fraction(25)) for i in range(0, len(frames), 7)]
    used = []
    handles = [net.register_forward_pre_hook(lambda *_: used.append(1)) for net in (parts.unet, parts.image_encoder)]
    try:
        depth = np.concatenate([clip.depth for clip in decoded[1].estimate(clips)])
    finally:
        for handle in handles:
            handle.remove()
    assert not used, "everything was kept, so no network runs again"
    gray = decoded[0].mean(axis=1)
    np.testing.assert_allclose(depth, released_depth(gray, gray.min(), gray.max()), rtol=1e-6)
    # The conversion is exact on the golden disparity; behind it, 1/z carries the network's tolerance.
    first = io["depth_first3"][:, 0]
    exact = released_depth(io["depth_gray"], *io["depth_raw_minmax"])[: len(first)]
    np.testing.assert_allclose(exact, first, rtol=3e-7)
    gap = np.abs(1 / depth[: len(first)] - 1 / first).max() * 10000 / 3900 * np.ptp(io["depth_raw_minmax"])
    print("disparity after the whole line off by", gap)
    assert gap < TOLERANCE


def test_intermediate_values_equal_the_released_code(parts, io):
    frames = io["frames_u8"]
    run = estimator(parts, io)
    generator = torch.Generator().manual_seed(42)
    with ArrayStore() as store, torch.inference_mode():
        latents, embeddings, _ = run._encode([frames], generator, store, None)
    num_latents = io["latents_init"].shape
    noise = torch.randn(*num_latents, generator=generator) * parts.scheduler.init_noise_sigma
    checked = {
        "video_latents": latents[0],
        "video_embeddings": embeddings[0],
        "latents_init": noise,
    }
    errors = {name: float((value - torch.from_numpy(io[name])).abs().max()) for name, value in checked.items()}
    print(len(errors), "arrays checked:", errors)
    assert errors.pop("latents_init") < 1e-3  # values reach 3000; the stream of random numbers is the same
    assert max(errors.values()) < TOLERANCE
    torch.manual_seed(42)
    whole = torch.randn(len(frames), 3, *frames.shape[1:3])
    np.testing.assert_array_equal(whole[:1].numpy(), io["noise_aug_first1"])
    assert abs(float(whole.double().sum()) - float(io["noise_aug_sum"])) < 1e-6


def test_block_hooks_equal_a_unet_that_repeats_one_embedding_when_all_frames_share_it(parts):
    # The stock UNet repeats one embedding for all frames; with the same embedding in every frame the hooks must not change a bit.
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 5, 8, 8, 8, generator=generator)
    one = torch.randn(1, 1, parts.unet.config.cross_attention_dim, generator=generator)
    ids = torch.tensor([[7, 127, 0.02]])
    timestep = torch.tensor(1.5)
    with torch.inference_mode():
        stock = parts.unet(sample, timestep, one, added_time_ids=ids, return_dict=False)[0]
        hooked = predict(parts.unet, sample, timestep, one.expand(-1, 5, -1))
        different = torch.randn(1, 5, one.shape[-1], generator=generator)
        varied = predict(parts.unet, sample, timestep, different)
        flattened = in_every_spatial_attention(parts.unet, sample, timestep, different, ids)
    assert torch.equal(stock, hooked)
    assert torch.equal(varied, flattened)
    assert not torch.equal(varied, stock)
    assert not any(block._forward_pre_hooks for block in parts.unet.down_blocks)


def in_every_spatial_attention(unet, sample, timestep, embeddings, ids):
    """The same change written another way: the flattened embeddings are put in the UNet's own repeat step."""
    original = torch.Tensor.repeat_interleave

    def repeat(tensor, n, dim=None, output_size=None):
        if tensor.ndim == 3 and tensor.shape[1] == 1:
            return embeddings.flatten(0, 1)[:, None]
        return original(tensor, n, dim=dim, output_size=output_size)

    torch.Tensor.repeat_interleave = repeat
    try:
        return unet(sample, timestep, embeddings[:, :1], added_time_ids=ids, return_dict=False)[0]
    finally:
        torch.Tensor.repeat_interleave = original


def test_embeddings_differ_from_frame_to_frame(parts, io):
    video = torch.from_numpy(io["frames_u8"][:2]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        embeddings = embed_frames(parts, video)
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-4
