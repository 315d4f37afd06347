"""G7 and G8: VAE, text and image encoders from the original files."""

import numpy as np
import pytest
import torch
from test_dit_golden import need
from wan_set import CLIP_HEADS

from ex4d.conditioning.image import clip_pixels
from ex4d.models.wan.autoencoder import decode_latents, encode_video
from ex4d.models.wan.files.adapter import read_torch
from ex4d.models.wan.files.original import load_image_encoder, load_text_encoder, load_vae
from ex4d.models.wan.text import encode_tokens

CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
T5 = "models_t5_umt5-xxl-enc-bf16.pth"


def close(actual, expected, atol, rtol=0.0):
    torch.testing.assert_close(actual, torch.from_numpy(np.asarray(expected)), rtol=rtol, atol=atol)


@torch.no_grad()
def test_vae(golden, load_golden):
    need(golden, "Wan2.1_VAE.pth")
    io = load_golden("vae_io.npz")
    vae = load_vae(read_torch(golden / "Wan2.1_VAE.pth"))
    video = torch.from_numpy(io["video_u8_thwc"]).float().permute(3, 0, 1, 2)[None] / 127.5 - 1
    close(
        vae.encode(video).latent_dist.mode(), io["latent_mean_raw"], 1e-6, 1e-6
    )  # values reach 3: one float32 step is 2e-7
    close(encode_video(vae, video), io["latent_scaled"], 1e-6, 1e-6)
    close(encode_video(vae, video[:, :, :1]), io["latent_scaled_single_frame"], 1e-6, 1e-6)
    close(torch.tensor(vae.config.latents_mean), io["latents_mean"], 1e-7)
    close(torch.tensor(vae.config.latents_std), io["latents_std"], 1e-7)
    for z, raw, clamped in zip(io["z_in"], io["decoded_raw"], io["decoded_clamped_first2frames"], strict=True):
        mean, std = (torch.from_numpy(io[k]).view(-1, 1, 1, 1) for k in ("latents_mean", "latents_std"))
        decoded = decode_latents(vae, torch.from_numpy(z)[None])[0]
        close(decoded, raw.clip(-1, 1), 3e-5)
        close(decoded[:, : clamped.shape[1]], clamped, 3e-5)
        unclamped = vae._decode((torch.from_numpy(z) * std + mean)[None].float(), return_dict=True).sample[0]
        assert torch.isfinite(unclamped).all()


def test_text_encoder(golden, load_golden):
    need(golden, T5)
    io = load_golden("t5_io.npz")
    model = load_text_encoder(read_torch(golden / T5))
    ids, mask = (torch.from_numpy(io[key].astype(np.int64)) for key in ("ids", "mask"))
    with torch.no_grad():
        hidden = model(ids, attention_mask=mask).last_hidden_state
    close(hidden[:, : io["hidden_first40"].shape[1]], io["hidden_first40"], 1e-5)
    positive, negative = encode_tokens(model, ids, mask)
    close(positive[0], io["context_pos"], 1e-5)
    close(negative[0], io["context_neg"], 1e-5)


def test_image_encoder(golden, load_golden):
    need(golden, CLIP)
    io = load_golden("clip_io.npz")
    state = read_torch(golden / CLIP)
    assert any(key.startswith("textual.") for key in state), "the dummy text tower is part of the test"
    model = load_image_encoder(state, CLIP_HEADS[state["visual.cls_embedding"].shape[-1]])
    pixels = clip_pixels(torch.from_numpy(io["image"]))
    close(pixels[:, :, ::7, ::5], io["pixel_values_sub"], 1e-5)
    close(pixels.mean(dim=(2, 3)), io["pixel_values_mean"], 1e-5)
    with torch.no_grad():
        states = model(pixels, output_hidden_states=True).hidden_states
    close(states[-2], io["features"], 1e-5)
    tokens = io["features_all_layers_first4tok"].shape[1]
    close(states[-1][:, :tokens], io["features_all_layers_first4tok"], 1e-5)


def test_an_unofficial_width_asks_for_its_heads(golden):
    need(golden, CLIP)
    state = read_torch(golden / CLIP)
    if state["visual.cls_embedding"].shape[-1] == 1280:
        pytest.skip("official width")
    with pytest.raises(Exception, match="how many heads"):
        load_image_encoder(state)
