"""The sets of weights that can be downloaded, with sizes, licences and places."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WeightSet:
    """Weights that belong together.

    Attributes:
        name: What `ex4d models download` takes.
        repos: Hugging Face repository -> file patterns.
        gigabytes: Size of the download, as a guide; the exact size is asked from the server.
        licence: Of the weights.
        use: What they are for.
        instead: Repository -> the repositories and file patterns that a run looks for in its place, best first.
    """

    name: str
    repos: dict[str, tuple[str, ...]]
    gigabytes: float
    licence: str
    use: str
    instead: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Wan14bCard:
    """The released EX-4D and its base, in either layout."""

    bases: dict[str, tuple[str, ...]]
    adapter_repo: str
    adapter_file: str
    gigabytes: float
    licence: str


#: Sizes: 16.39 B float32 values (65.6 GB), umT5 bf16 11.4 GB, CLIP 4.8 GB, VAE 0.5 GB, adapter up to 0.4 GB.
WAN14B = Wan14bCard(
    bases={
        "Wan-AI/Wan2.1-I2V-14B-480P": (
            "diffusion_pytorch_model*.safetensors",
            "models_t5_umt5-xxl-enc-bf16.pth",
            "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
            "Wan2.1_VAE.pth",
        ),
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": ("transformer/*.safetensors", "vae/*.safetensors"),
    },
    adapter_repo="yihouxiang/EX-4D",
    adapter_file="ex4d.ckpt",
    gigabytes=83,
    licence="base Apache-2.0 (Wan2.1); adapter as its model page says (the EX-4D code is public, its weights' licence is theirs)",
)


SETS: dict[str, WeightSet] = {
    "wan14b": WeightSet(
        "wan14b",
        {
            "Wan-AI/Wan2.1-I2V-14B-480P": (
                "diffusion_pytorch_model*",
                "models_t5_umt5-xxl-enc-bf16.pth",
                "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
                "Wan2.1_VAE.pth",
                "config.json",
                "google/*",
                "LICENSE*",
            ),
            WAN14B.adapter_repo: (WAN14B.adapter_file, "LICENSE*"),
        },
        WAN14B.gigabytes,
        WAN14B.licence,
        "released EX-4D generation (--preset wan14b)",
        instead={"Wan-AI/Wan2.1-I2V-14B-480P": WAN14B.bases},
    )
}
