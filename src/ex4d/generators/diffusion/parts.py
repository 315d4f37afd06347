"""Everything a Wan-shaped generator is made of, in one frozen value, so that another model only has to provide other parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from ex4d.models.wan.text import TextEmbeddings

T = TypeVar("T")


class Lazy(Generic[T]):
    """A part that is built when first needed and can be let go, so that encoders and denoiser never share the GPU."""

    def __init__(self, build: Callable[[], T]) -> None:
        self._build = build
        self._value: T | None = None

    @classmethod
    def of(cls, value: T) -> Lazy[T]:
        """A part that exists already and stays."""
        return cls(lambda: value)

    def get(self) -> T:
        """The part, built now if need be."""
        if self._value is None:
            self._value = self._build()
        return self._value

    def release(self) -> None:
        """Forget the part; the next `get` builds it again."""
        self._value = None

    @property
    def built(self) -> bool:
        """Whether the part is in memory."""
        return self._value is not None


@dataclass(frozen=True)
class WanParts:
    """A denoiser of `WanTransformer3DModel`'s shape and what goes with it.

    Attributes:
        name: For manifests and messages.
        transformer: The denoiser, LoRA merged or attached, on `device` (or streaming to it).
        vae: Anything with `AutoencoderKLWan`'s interface.
        geometry_encoder: Colour and mask latents to tokens.
        text: Precomputed or lazily computed prompt embeddings.
        image_encoder: CLIP image tower whose last-but-one hidden states are the image tokens; None where the denoiser has none.
        device: Where the denoiser and the VAE compute.
        image_device: Where the image tower lives, and computes once the denoiser is on the GPU (before, it visits `device`).
        mask_affine: (scale, offset) applied to the -1..1 mask before the VAE.
        shift: Time shift of the schedule.
        text_tokens: Zero-pad text to this many tokens; None passes it as it is.
        first_frame: Whether frame 0 conditions the denoiser through y and CLIP.
        default_steps: Denoising steps where none are asked for.
        default_guidance: Guidance scale where none is asked for.
        max_frames: Longest clip one pass should see; longer ones go through overlapping windows.
        vae_tiling: Whether the VAE works in tiles.
        batched_guidance: Both guidance passes in one forward, where streamed weights make that cheaper.
        strides: (frames of a latent frame, pixels of a latent pixel) of the VAE, known before it is loaded.
        prepare: Called with these parts and the `memory.Work` of the first window, before anything large is loaded.
        manifest: Hashes, precision, memory plan: whatever an output should say of these parts.
    """

    name: str
    transformer: Lazy[Any]
    vae: Lazy[Any]
    geometry_encoder: Lazy[Any]
    text: Lazy[TextEmbeddings]
    image_encoder: Lazy[Any] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    image_device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mask_affine: tuple[float, float] = (2.0, -1.0)
    shift: float = 5.0
    text_tokens: int | None = 512
    first_frame: bool = True
    default_steps: int = 25
    default_guidance: float = 5.0
    max_frames: int = 81
    vae_tiling: bool = False
    batched_guidance: bool = False
    strides: tuple[int, int] = (4, 8)
    prepare: Callable[[WanParts, Any], WanParts] | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
