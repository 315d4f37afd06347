"""G5: conditions from frames: sampling, resize, erosion, rounding, the I2V condition and the doubly scaled mask."""

import numpy as np
import pytest
import torch
from test_dit_golden import need
from wan_set import CLIP_HEADS

from ex4d.conditioning.condition import mask_for_vae, released_condition
from ex4d.conditioning.image import clip_pixels, image_condition, requantised
from ex4d.models.wan.files.adapter import MASK_AFFINE, read_torch
from ex4d.models.wan.files.original import load_image_encoder


@pytest.fixture(scope="module")
def io(load_golden):
    return load_golden("cond.npz")


def fake_encode(io):
    W, B = (torch.from_numpy(io[key]).float() for key in ("fake_vae_W", "fake_vae_B"))

    def encode(video):
        groups = [video[:, :, :1], *video[:, :, 1:].split(4, dim=2)]
        frames = torch.stack([g.mean(dim=2) for g in groups], dim=2)
        t, h, w = frames.shape[2:]
        pooled = frames.reshape(1, 3, t, h // 8, 8, w // 8, 8).mean(dim=(4, 6))
        step = torch.arange(1, t + 1).view(1, 1, t, 1, 1)
        return torch.einsum("cr,brthw->bcthw", W, pooled) + B.view(1, -1, 1, 1, 1) * step

    return encode


def test_colour_and_mask_exactly(io):
    cases = sorted(key.removesuffix("_frames_rgb_in") for key in io if key.endswith("_frames_rgb_in"))
    print(f"cond.npz: {len(cases)} cases checked: {', '.join(cases)}")
    assert cases
    for case in cases:
        out = io[f"{case}_color_out"]
        condition = released_condition(
            io[f"{case}_frames_rgb_in"],
            io[f"{case}_mask_in"],
            out.shape[1],
            out.shape[2:],
            [int(k) for k in io[f"{case}_kernels"]],
        )
        np.testing.assert_array_equal(condition.color[0].numpy(), out.astype(np.float32), err_msg=case)
        np.testing.assert_array_equal(condition.mask[0].numpy(), io[f"{case}_mask_out"].astype(np.float32))
        np.testing.assert_array_equal(condition.mask[0].numpy() > 0, io[f"{case}_mask_bin"] > 0)


def test_y(io):
    first = requantised(torch.from_numpy(io["y_first_frame_in"]).float()[None], truncate=True)
    np.testing.assert_allclose(first.numpy(), io["y_image_requantised"], rtol=0, atol=1e-7)
    names = [key for key in io if key.startswith("y_n") and key[3:].isdigit()]
    print(f"cond.npz: {len(names)} y checked")
    assert names
    for name in names:
        y = image_condition(fake_encode(io), first, (1, int(name[3:]), *first.shape[2:]))
        np.testing.assert_allclose(y.numpy(), io[name], rtol=0, atol=2e-6)


def test_image_tokens_of_the_first_frame(golden, io):
    clip = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
    need(golden, clip)
    state = read_torch(golden / clip)
    model = load_image_encoder(state, CLIP_HEADS[state["visual.cls_embedding"].shape[-1]])
    image = torch.from_numpy(io["y_image_requantised"])
    with torch.no_grad():
        tokens = model(clip_pixels(image), output_hidden_states=True).hidden_states[-2].numpy()
    names = [key for key in io if key.startswith("y_clip_fea_")]
    assert names
    for name in names:
        np.testing.assert_allclose(tokens[:, : io[name].shape[1]], io[name], rtol=0, atol=1e-5)


def test_the_mask_is_scaled_twice(io):
    mask = torch.from_numpy(io["cam_mask_in"]).float()
    np.testing.assert_array_equal(mask_for_vae(mask, MASK_AFFINE).numpy(), io["cam_mask_to_vae"])
    assert set(np.unique(io["cam_mask_to_vae"])) == {-3, 1}
