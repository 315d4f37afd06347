"""The sizes of the released Wan models."""

from __future__ import annotations

from typing import Any

#: Wan2.1-I2V-14B-480P, for plans made before any file is there.
CONFIG_14B: dict[str, Any] = {
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "in_channels": 36,
    "text_dim": 4096,
    "ffn_dim": 13824,
    "num_layers": 40,
    "image_dim": 1280,
}
