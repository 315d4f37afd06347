"""Tiny random depth models of every kind, in the released layout."""

import json
from pathlib import Path

import torch

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def _save(network, folder: Path, settings: dict) -> Path:
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def _dpt_config():
    from transformers import Dinov2Config

    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=70,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    sizes = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16, "head_hidden_size": 8}
    return {"backbone_config": backbone, "reassemble_hidden_size": 32, **sizes}


def depth_anything(folder: Path, metric: bool = False) -> Path:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    torch.manual_seed(0)
    kind = {"depth_estimation_type": "metric", "max_depth": 20} if metric else {}
    network = DepthAnythingForDepthEstimation(DepthAnythingConfig(**_dpt_config(), **kind))
    torch.nn.init.constant_(network.head.conv3.bias, 0.5)
    size = {"size": {"height": 70, "width": 70}, "keep_aspect_ratio": True, "ensure_multiple_of": 14, "resample": 3}
    return _save(network, folder, {"image_processor_type": "DPTImageProcessor", **size, **IMAGENET})


def prompt_depth_anything(folder: Path) -> Path:
    from transformers import PromptDepthAnythingConfig, PromptDepthAnythingForDepthEstimation

    torch.manual_seed(0)
    network = PromptDepthAnythingForDepthEstimation(PromptDepthAnythingConfig(**_dpt_config()))
    size = {"size": {"height": 70, "width": 70}, "keep_aspect_ratio": True, "ensure_multiple_of": 14, "resample": 3}
    return _save(network, folder, {"image_processor_type": "PromptDepthAnythingImageProcessor", **size, **IMAGENET})


def zoedepth(folder: Path) -> Path:
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation

    torch.manual_seed(0)
    backbone = BeitConfig(
        image_size=64,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        use_relative_position_bias=True,
        reshape_hidden_states=False,
        out_indices=[1, 2, 3, 4],
    )
    names = (("nyu", 10.0), ("kitti", 80.0))
    config = ZoeDepthConfig(
        backbone_config=backbone,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": m, "name": n} for n, m in names],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        bottleneck_features=16,
        num_relative_features=8,
        bin_embedding_dim=16,
        patch_transformer_hidden_size=128,
        patch_transformer_intermediate_size=32,
        patch_transformer_num_attention_heads=2,
        num_patch_transformer_layers=4,
    )
    size = {"size": {"height": 64, "width": 96}, "keep_aspect_ratio": True, "ensure_multiple_of": 32, "resample": 2}
    network = ZoeDepthForDepthEstimation(config)
    return _save(network, folder, {"image_processor_type": "ZoeDepthImageProcessor", **size, **HALF})


def depth_pro(folder: Path) -> Path:
    from transformers import DepthProConfig, DepthProForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoders = {
        f"{name}_model_config": Dinov2Config(**sizes, use_mask_token=False) for name in ("patch", "image", "fov")
    }
    config = DepthProConfig(
        patch_size=32,
        use_fov_model=True,
        fusion_hidden_size=16,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[16, 8],
        scaled_images_feature_dims=[16, 16, 8],
        merge_padding_value=1,
        **encoders,
    )
    network = DepthProForDepthEstimation(config)
    torch.nn.init.constant_(network.fov_model.head.layers[-1].bias, 60.0)
    torch.nn.init.constant_(network.head.layers[-2].bias, 0.3)
    size = {"size": {"height": 128, "width": 128}, "resample": 2}
    return _save(network, folder, {"image_processor_type": "DepthProImageProcessor", **size, **HALF})


def depthcrafter(root: Path) -> Path:
    """Both repositories under `root`, in float32 files named as the released fp16 ones."""
    from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
    from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    UNetSpatioTemporalConditionModel(
        in_channels=8,
        out_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        cross_attention_dim=16,
        num_attention_heads=(2, 4),
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=48,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    ).save_pretrained(root / "tencent" / "DepthCrafter")
    svd = root / "stabilityai" / "stable-video-diffusion-img2vid"
    AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        force_upcast=True,
    ).save_pretrained(svd / "vae", variant="fp16")
    clip = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(image_size=224, patch_size=32, projection_dim=16, **clip)
    ).save_pretrained(svd / "image_encoder", variant="fp16")
    EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    ).save_pretrained(svd / "scheduler")
    (svd / "feature_extractor").mkdir()
    (svd / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    return root
