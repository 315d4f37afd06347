"""G4: the schedule, and six guided steps from noise to frames with the tiny models of the set."""

import numpy as np
import pytest
import torch
from test_dit_golden import need
from wan_set import CLIP_HEADS, DIT_HEADS

from ex4d.conditioning.condition import mask_for_vae
from ex4d.conditioning.image import clip_pixels, image_condition, requantised
from ex4d.generators.diffusion.denoise import DenoiseInputs, DenoiseSettings, denoise
from ex4d.models.wan.autoencoder import decode_latents, encode_video, to_uint8
from ex4d.models.wan.files.adapter import load_adapter, read_torch
from ex4d.models.wan.files.loading import LoadPolicy, build_transformer
from ex4d.models.wan.files.original import file_shapes, load_image_encoder, load_vae, stream_tensors, transformer_config
from ex4d.models.wan.schedule import Ex4dScheduler, flow_sigmas, flow_timesteps
from ex4d.models.wan.text import TextEmbeddings

LATENT_TOLERANCE = 5e-5
GUIDANCE = 5.0


@pytest.fixture(scope="module")
def io(load_golden):
    return {key: torch.from_numpy(np.asarray(value)) for key, value in load_golden("sampling.npz").items()}


def test_schedule_to_the_last_bit(io):
    names = [key for key in io if key.startswith("sigmas_")]
    print(f"sampling.npz: {len(names)} schedules checked")
    assert names
    for name in names:
        n = int(name.removeprefix("sigmas_"))
        sigmas = flow_sigmas(n)
        torch.testing.assert_close(sigmas[:-1], io[name], rtol=0, atol=6e-8)
        torch.testing.assert_close(flow_timesteps(sigmas), io[f"timesteps_{n}"], rtol=0, atol=6.2e-5)
        assert sigmas[-1] == 0
        scheduler = Ex4dScheduler.released()
        scheduler.set_timesteps(n)
        torch.testing.assert_close(scheduler.sigmas, sigmas, rtol=0, atol=1.2e-7)
        torch.testing.assert_close(scheduler.timesteps, flow_timesteps(sigmas), rtol=0, atol=1.3e-4)


@pytest.fixture(scope="module")
def parts(golden):
    names = ["dit.safetensors", "ex4d_adapter.ckpt", "Wan2.1_VAE.pth"]
    clip = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
    need(golden, *names, clip)
    files = [golden / names[0]]
    shapes = file_shapes(files)
    adapter = load_adapter(golden / names[1])
    config = transformer_config(shapes, DIT_HEADS[shapes["patch_embedding.weight"][0]])
    transformer = build_transformer(config, stream_tensors(files), LoadPolicy(lora=adapter.update()))
    vae = load_vae(read_torch(golden / names[2]))
    clip_state = read_torch(golden / clip)
    image_encoder = load_image_encoder(clip_state, CLIP_HEADS[clip_state["visual.cls_embedding"].shape[-1]])
    return transformer, vae, adapter, image_encoder


def test_conditions(parts, io):
    _, vae, adapter, image_encoder = parts
    video, mask = io["video"].float(), io["mask"].float()
    first = requantised(video[:, :, 0], truncate=True)
    encode = lambda v: encode_video(vae, v)  # noqa: E731
    y = image_condition(encode, first, (1, *video.shape[2:]))
    with torch.no_grad():
        tokens = image_encoder(clip_pixels(first), output_hidden_states=True).hidden_states[-2]
        color_latents, mask_latents = encode(video), encode(mask_for_vae(mask, adapter.config.mask_affine))
        geometry = adapter.geometry_encoder()(color_latents, mask_latents)
    torch.testing.assert_close(y, io["y"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(tokens, io["clip_fea"], rtol=0, atol=1e-5)
    torch.testing.assert_close(geometry, io["ray_latent"], rtol=0, atol=1e-6)


def test_six_guided_steps_and_frames(parts, io):
    transformer, vae, _, _ = parts
    shape = io["noise"].shape
    noise = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(0))
    assert torch.equal(noise, io["noise"])
    text = TextEmbeddings(io["context_pos"][None], io["context_neg"][None]).padded(512)
    inputs = DenoiseInputs(noise, io["y"], text, io["clip_fea"], io["ray_latent"])
    seen = []

    def trace(i, prediction, latents):
        torch.testing.assert_close(prediction, io["noise_pred_cfg"][i], rtol=0, atol=10 * LATENT_TOLERANCE)
        torch.testing.assert_close(latents, io["latents"][i + 1], rtol=0, atol=LATENT_TOLERANCE)
        seen.append(i)

    steps = len(io["latents"]) - 1
    latents = denoise(transformer, inputs, DenoiseSettings(steps, GUIDANCE), trace=trace)
    print(f"sampling.npz: {len(seen)} steps checked")
    assert seen == list(range(steps)) and steps
    video = decode_latents(vae, latents)
    first_last = torch.stack([video[:, :, 0], video[:, :, -1]], dim=2)
    torch.testing.assert_close(first_last, io["decoded_first_last"], rtol=0, atol=2e-4)
    frames = to_uint8(video, truncate=True)
    difference = np.abs(frames.astype(int) - io["output_uint8"].numpy().astype(int)).max()
    assert difference <= 1
