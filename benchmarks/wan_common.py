"""Random full-size weights, a stand-in for the released code's numerics, and a float32 truth, for wan.py and wan_parallel.py."""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# As the preset asks for, and before torch reads it.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT / "src") not in sys.path:
    sys.path.insert(0, str(ROOT / "src"))

from diffusers.models.transformers.transformer_wan import WanAttnProcessor  # noqa: E402

from ex4d.models.wan.files.adapter import Adapter, AdapterConfig  # noqa: E402
from ex4d.models.wan.geometry_encoder import GeometryEncoder  # noqa: E402
from ex4d.models.wan.lora import LoraUpdate, lora_keys  # noqa: E402
from ex4d.models.wan.transformer import Ex4dBlock, Ex4dTransformer  # noqa: E402

GIB = 2**30
SEED = 7
WEIGHT_STD = 0.02
#: A channel this many times its neighbours is planted in every block.
OUTLIER = 100.0

#: Wan2.1-I2V-14B-480P.
CONFIG_14B: dict[str, Any] = {
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 13824,
    "num_layers": 40,
    "image_dim": 1280,
    "added_kv_proj_dim": 5120,
}
#: The same shape in miniature, so that every part of the benchmark runs on a CPU in seconds.
CONFIG_TINY: dict[str, Any] = {
    **CONFIG_14B,
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "text_dim": 32,
    "ffn_dim": 128,
    "num_layers": 2,
    "image_dim": 32,
    "added_kv_proj_dim": 64,
}


class Scene:
    """Sizes of one benchmark: 49 frames of 512x512, or tiny."""

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny
        self.config = CONFIG_TINY if tiny else CONFIG_14B
        self.frames, self.size_hw = (9, (32, 48)) if tiny else (49, (512, 512))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dim = self.config["num_attention_heads"] * self.config["attention_head_dim"]
        self.hidden = 16 if tiny else 1024

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        return (1, 16, (self.frames - 1) // 4 + 1, self.size_hw[0] // 8, self.size_hw[1] // 8)

    def inputs(self) -> dict[str, Tensor]:
        """Random denoiser inputs, the same in every process."""
        g = torch.Generator("cpu").manual_seed(SEED)
        _, _, t, h, w = self.latent_shape
        text = torch.zeros(1, 512, self.config["text_dim"])
        text[:, :30] = torch.randn(1, 30, self.config["text_dim"], generator=g)
        values = {
            "hidden_states": torch.randn(1, 36, t, h, w, generator=g),
            "timestep": torch.tensor([731.0]),
            "encoder_hidden_states": text,
            "encoder_hidden_states_image": torch.randn(1, 257, self.config["image_dim"], generator=g),
            "geometry": 0.5 * torch.randn(1, self.dim, t, h // 2, w // 2, generator=g),
        }
        return {key: value.to(self.device) for key, value in values.items()}


def random_tensor(name: str, shape: tuple[int, ...], device: torch.device, planted: bool) -> Tensor:
    """One float32 parameter, a function of its name alone: normal(0, 0.02), norm weights 1."""
    is_norm = ".norm" in name and name.endswith("weight")
    if is_norm:
        return torch.ones(shape, device=device)
    g = torch.Generator(device).manual_seed(SEED + zlib.crc32(name.encode()))
    value = torch.empty(shape, device=device).normal_(0, WEIGHT_STD, generator=g)
    if planted and name.startswith("blocks."):
        channel = 11 % shape[-1]
        if name.endswith("scale_shift_table"):  # inputs of q, k, v and of the feed-forward
            value[:, [1, 4], channel] = OUTLIER - 1
        if name.endswith(
            ("ffn.net.0.proj.bias", "attn1.to_v.bias", "attn2.to_v.bias")
        ):  # inputs of ffn.net.2 and to_out
            value[channel] = OUTLIER
    return value


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Parameter names and shapes without memory."""
    with torch.device("meta"):
        return {name: tuple(p.shape) for name, p in Ex4dTransformer(**config).named_parameters()}


def random_weights(scene: Scene, planted: bool = False) -> Iterator[tuple[str, Tensor]]:
    """The whole denoiser, one float32 tensor at a time, made on the device."""
    for name, shape in shapes_of(scene.config).items():
        yield name, random_tensor(name, shape, scene.device, planted)


def random_adapter(scene: Scene) -> Adapter:
    """A rank-16 adapter whose updates are about 8 % of the weights."""
    with torch.device("meta"):
        model = Ex4dTransformer(**scene.config)
    widths = {name: tuple(p.shape) for name, p in model.named_parameters()}
    lora = {}
    for key in lora_keys(model):
        module, half = key.removesuffix(".weight").rsplit(".", 1)
        out_features, in_features = widths[f"{module}.weight"]
        shape = (16, in_features) if half == "lora_A" else (out_features, 16)
        lora[key] = random_tensor(key, shape, scene.device, False)
    torch.manual_seed(SEED)
    encoder = GeometryEncoder(scene.dim, scene.hidden)
    nn.init.normal_(encoder.latent_patch_embedding.weight, std=0.01)
    config = AdapterConfig(hidden_channels=scene.hidden, dim=scene.dim)
    return Adapter(lora, {k: v.detach() for k, v in encoder.state_dict().items()}, config)


class _Regenerated(nn.Module):
    """Stands for one block of a float32 model too large to hold: its weights are made again for each call."""

    def __init__(self, index: int, block: Ex4dBlock, update: LoraUpdate, planted: bool) -> None:
        super().__init__()
        self.index, self.update, self.planted = index, update, planted
        self._shared = [block]  # in a list, so that it is not registered forty times

    def forward(self, *args: Any) -> Tensor:
        block = self._shared[0]
        for leaf, parameter in block.named_parameters():
            name = f"blocks.{self.index}.{leaf}"
            value = random_tensor(name, tuple(parameter.shape), parameter.device, self.planted)
            parameter.data = self.update.apply(name, value)
        return block(*args)


@torch.no_grad()
def float32_truth(scene: Scene, update: LoraUpdate, planted: bool = False) -> Tensor:
    """The forward in float32 throughout, products included, from the float32 weights plus the exact LoRA update."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    from ex4d.models.wan.files.loading import LoadPolicy, build_transformer

    small = {**scene.config, "num_layers": 1}
    names = shapes_of(small)
    stream = ((name, random_tensor(name, shape, scene.device, planted)) for name, shape in names.items())
    model = build_transformer(small, stream, LoadPolicy(scene.device))
    shared = model.blocks[0]
    count = scene.config["num_layers"]
    model.blocks = nn.ModuleList([_Regenerated(i, shared, update, planted) for i in range(count)])  # type: ignore[arg-type]
    out = forward(model, scene.inputs())
    del model, shared
    collect()
    return out.float()


@torch.no_grad()
def forward(model: nn.Module, inputs: dict[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """One denoiser forward."""
    values = {k: v if dtype is None or k == "timestep" else v.to(dtype) for k, v in inputs.items()}
    geometry = values.pop("geometry", None)
    kwargs = {"geometry": geometry} if isinstance(model, Ex4dTransformer) else None
    return model(**values, return_dict=False, attention_kwargs=kwargs)[0]


def relative_error(value: Tensor, truth: Tensor) -> float:
    """|value - truth| / |truth| in the 2-norm."""
    value, truth = value.double().cpu(), truth.double().cpu()
    return float((value - truth).norm() / truth.norm())


def milliseconds(run: Callable[[], Any], repeats: int, device: torch.device, warmup: int = 1) -> float:
    """Median time of a call: CUDA events, or the clock on a CPU."""
    for _ in range(warmup):
        run()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            stop.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(stop))
        else:
            t = time.perf_counter()
            run()
            times.append(1000 * (time.perf_counter() - t))
    return statistics.median(times)


def collect() -> None:
    """Give freed memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_gib() -> float:
    """Highest reserved GPU memory of this process."""
    return torch.cuda.max_memory_reserved() / GIB if torch.cuda.is_available() else 0.0


def limit_memory(gib: float | None) -> None:
    """Make the allocator fail above this; None lets it have everything. Peaks count from here."""
    if torch.cuda.is_available():
        collect()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(1.0 if gib is None else min(1.0, gib * GIB / total))
        torch.cuda.reset_peak_memory_stats()


def machine() -> str:
    """Name for results."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "two-core x86-64 CPU"


def save_json(path: Path, record: dict[str, Any]) -> None:
    """Write a part's result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


class ReleasedProcessor(WanAttnProcessor):
    """Diffusers' attention with the released rotation: complex float64 products of float64 copies, rounded afterwards (METHOD 6.7)."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        if rotary_emb is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        q, k, v = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(hidden_states)), attn.to_v(hidden_states)
        cos, sin = rotary_emb
        turn = torch.complex(cos[..., 0::2].double(), sin[..., 1::2].double())
        q, k, v = (x.unflatten(2, (attn.heads, -1)) for x in (q, k, v))
        q, k = (self._rotated(x, turn).to(v.dtype) for x in (q, k))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))

    @staticmethod
    def _rotated(x: Tensor, turn: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turn).flatten(-2)


class ReleasedBlock(Ex4dBlock):
    """The released code's numerics and cost: eager, bfloat16 weights, unmerged LoRA, float32 residual (METHOD 6.7).

    Autocast casts the input of every matrix on its own; modulation, gates and norms are float32.
    """

    def forward(self, hidden_states, encoder_hidden_states, temb, rotary_emb):
        with torch.autocast(hidden_states.device.type, torch.bfloat16):
            table = self.scale_shift_table + temb.float()
            shift, scale, gate, ff_shift, ff_scale, ff_gate = table.chunk(6, dim=1)
            hidden = self.norm1(hidden_states) * (1 + scale) + shift
            hidden_states = hidden_states + self.attn1(hidden, None, None, rotary_emb).float() * gate
            hidden = self.norm2(hidden_states)
            hidden_states = hidden_states + self.attn2(hidden, encoder_hidden_states, None, None).float()
            hidden = self.norm3(hidden_states) * (1 + ff_scale) + ff_shift
            return hidden_states + self.ffn(hidden).float() * ff_gate
