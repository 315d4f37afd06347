"""DepthCrafter's networks on stock diffusers parts: an SVD UNet that looks at every frame's own embedding.

The released model differs from Stable Video Diffusion in one respect: its UNet uses one image embedding per frame in the
spatial cross-attention, where SVD repeats one for all. Hooks on the stock UNet's blocks do the same bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ex4d.errors import InputError, WeightsError

#: Side of the CLIP image encoder's input in Stable Video Diffusion.
CLIP_SIZE = 224

#: Frames per chunk of the image encoder and the video VAE. The temporal decoder sees one chunk at a time, so another number
#: gives other depth; this is the released default.
CHUNK_FRAMES = 8

#: SVD's micro-conditioning as the released code gives it: frames a second, motion bucket, noise added to the frames.
FPS_ID, MOTION_BUCKET, NOISE_STRENGTH = 7, 127, 0.02


@dataclass(frozen=True)
class CrafterParts:
    """The networks and constants of one DepthCrafter.

    Attributes:
        unet: Stock `UNetSpatioTemporalConditionModel` with DepthCrafter's weights.
        vae: `AutoencoderKLTemporalDecoder`.
        image_encoder: `CLIPVisionModelWithProjection`.
        scheduler: `EulerDiscreteScheduler` with SVD's values.
        mean, std: CLIP's normalisation of RGB in 0..1.
    """

    unet: Any
    vae: Any
    image_encoder: Any
    scheduler: Any
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the networks."""
        return self.unet.dtype

    @property
    def factor(self) -> int:
        """Pixels per latent along a side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)


def load_parts(unet_dir: Path, svd_dir: Path, dtype: torch.dtype) -> CrafterParts:
    """From folders laid out like `tencent/DepthCrafter` and `stabilityai/stable-video-diffusion-img2vid`.

    fp16 weight files are preferred where they exist, in any `dtype`.

    Raises:
        WeightsError: A missing file, or weights of another model.
    """
    from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
    from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from transformers import CLIPVisionModelWithProjection

    def load(cls: Any, folder: Path, dtype_name: str) -> Any:
        variant = "fp16" if any(folder.glob("*.fp16.safetensors")) else None
        try:
            if not any(folder.glob("*.safetensors")):
                raise OSError("no .safetensors file")
            return cls.from_pretrained(folder, variant=variant, **{dtype_name: dtype}, local_files_only=True).eval()
        except Exception as error:  # config checks, safetensors and torch each raise their own kind
            raise WeightsError(
                f"{folder} does not hold {cls.__name__} weights ({str(error).splitlines()[0]})",
                "DepthCrafter's UNet beside Stable Video Diffusion's other parts",
                "ex4d models download depthcrafter",
            ) from error

    unet = load(UNetSpatioTemporalConditionModel, unet_dir, "torch_dtype")
    vae = load(AutoencoderKLTemporalDecoder, svd_dir / "vae", "torch_dtype")
    image_encoder = load(CLIPVisionModelWithProjection, svd_dir / "image_encoder", "dtype")
    try:
        config = json.loads((svd_dir / "feature_extractor" / "preprocessor_config.json").read_text())
        scheduler = EulerDiscreteScheduler.from_pretrained(svd_dir / "scheduler", local_files_only=True)
        mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    except (OSError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{svd_dir} lacks its scheduler or feature extractor settings",
            "a whole copy",
            "ex4d models download depthcrafter",
        ) from error
    check_parts(unet, vae, image_encoder)
    return CrafterParts(unet, vae, image_encoder, scheduler, mean, std)


def check_parts(unet: Any, vae: Any, image_encoder: Any) -> None:
    """WeightsError when the parts do not fit together."""
    needed = (2 * vae.config.latent_channels, image_encoder.config.projection_dim)
    found = (unet.config.in_channels, unet.config.cross_attention_dim)
    if found != needed:
        raise WeightsError(
            f"a UNet with (in_channels, cross_attention_dim) = {found}",
            f"{needed} to fit the VAE and the image encoder",
            "ex4d models download depthcrafter",
        )


@contextmanager
def per_frame_context(unet: nn.Module, context: Tensor) -> Iterator[None]:
    """Let every down, mid and up block see `context` [batch * time, 1, channels] instead of one repeated embedding."""

    def replace(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if "encoder_hidden_states" in kwargs:
            kwargs = {**kwargs, "encoder_hidden_states": context}
        return args, kwargs

    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]  # type: ignore[misc]
    handles = [block.register_forward_pre_hook(replace, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def predict(unet: Any, sample: Tensor, timestep: Tensor, embeddings: Tensor) -> Tensor:
    """The UNet's output [batch, time, 4, h, w] for sample [batch, time, 8, h, w] and embeddings [batch, time, channels]."""
    ids = torch.tensor([[FPS_ID, MOTION_BUCKET, NOISE_STRENGTH]], dtype=sample.dtype, device=sample.device)
    context = embeddings.flatten(0, 1)[:, None]
    with per_frame_context(unet, context):
        # Temporal cross-attention takes the first frame's embedding, as in SVD.
        return unet(sample, timestep, embeddings[:, :1], added_time_ids=ids.repeat(len(sample), 1), return_dict=False)[
            0
        ]


def embed_frames(parts: CrafterParts, video: Tensor) -> Tensor:
    """CLIP image embeddings [n, channels] of frames [n, 3, H, W] in [-1, 1], SVD's antialiased resize included."""
    from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

    small = _resize_with_antialiasing(video.float(), (CLIP_SIZE, CLIP_SIZE))
    mean, std = (torch.tensor(v, device=video.device)[:, None, None] for v in (parts.mean, parts.std))
    pixels = ((small + 1) / 2 - mean) / std
    return parts.image_encoder(pixels.to(parts.image_encoder.dtype)).image_embeds


def encode_frames(parts: CrafterParts, video: Tensor) -> Tensor:
    """VAE latents [n, 4, h, w] (mode, not scaled) of noised frames; in float32 where the VAE asks for it."""
    upcast = parts.vae.dtype == torch.float16 and parts.vae.config.force_upcast
    if upcast:
        parts.vae.float()
    latents = parts.vae.encode(video.to(parts.vae.dtype)).latent_dist.mode()
    if upcast:
        parts.vae.half()
    return latents.to(parts.dtype)


def decode_latents(parts: CrafterParts, latents: Tensor) -> Tensor:
    """RGB [n, 3, H, W] in 0..1, float32, of one chunk of latents [n, 4, h, w]."""
    scaled = latents.to(parts.vae.dtype) / parts.vae.config.scaling_factor
    return (parts.vae.decode(scaled, num_frames=len(latents)).sample.float() / 2 + 0.5).clamp(0, 1)


def check_size(size_hw: tuple[int, int], factor: int) -> None:
    """InputError unless both sides are multiples of the VAE's factor."""
    if size_hw[0] % factor or size_hw[1] % factor:
        raise InputError(
            f"{size_hw[1]}x{size_hw[0]} pixels for DepthCrafter", f"multiples of {factor}", "--size 512x512"
        )
