"""Parameter names between Wan's original layout and diffusers' (METHOD 7.3), one to one in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ex4d.errors import WeightsError

#: Outside the blocks: original prefix -> diffusers prefix.
OUTER = {
    "patch_embedding.": "patch_embedding.",
    "time_embedding.0.": "condition_embedder.time_embedder.linear_1.",
    "time_embedding.2.": "condition_embedder.time_embedder.linear_2.",
    "time_projection.1.": "condition_embedder.time_proj.",
    "text_embedding.0.": "condition_embedder.text_embedder.linear_1.",
    "text_embedding.2.": "condition_embedder.text_embedder.linear_2.",
    "img_emb.proj.0.": "condition_embedder.image_embedder.norm1.",
    "img_emb.proj.1.": "condition_embedder.image_embedder.ff.net.0.proj.",
    "img_emb.proj.3.": "condition_embedder.image_embedder.ff.net.2.",
    "img_emb.proj.4.": "condition_embedder.image_embedder.norm2.",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "head.modulation": "scale_shift_table",
    "head.head.": "proj_out.",
}

_ATTENTION = {
    "q.": "to_q.",
    "k.": "to_k.",
    "v.": "to_v.",
    "o.": "to_out.0.",
    "norm_q.": "norm_q.",
    "norm_k.": "norm_k.",
    "k_img.": "add_k_proj.",
    "v_img.": "add_v_proj.",
    "norm_k_img.": "norm_added_k.",
}

#: Inside a block, after `blocks.N.`.
INNER = {
    **{f"self_attn.{a}": f"attn1.{b}" for a, b in _ATTENTION.items()},
    **{f"cross_attn.{a}": f"attn2.{b}" for a, b in _ATTENTION.items()},
    "norm3.": "norm2.",  # norm1 and norm2 of the original have no parameters, nor have diffusers' norm1 and norm3
    "ffn.0.": "ffn.net.0.proj.",
    "ffn.2.": "ffn.net.2.",
    "modulation": "scale_shift_table",
}

_BLOCK = re.compile(r"^(blocks\.\d+\.)(.*)$")


def _rename(key: str, outer: dict[str, str], inner: dict[str, str]) -> str | None:
    block = _BLOCK.match(key)
    head, rest, table = (block[1], block[2], inner) if block else ("", key, outer)
    for old, new in table.items():
        if rest.startswith(old):
            return head + new + rest[len(old) :]
    return None


def diffusers_key(original: str) -> str | None:
    """Diffusers' name of an original parameter (or LoRA) name; None when the name is not Wan's."""
    return _rename(original, OUTER, INNER)


def original_key(diffusers: str) -> str | None:
    """The original name of a diffusers parameter name; None when the name is not the Wan denoiser's."""
    return _rename(diffusers, {b: a for a, b in OUTER.items()}, {b: a for a, b in INNER.items()})


def check_keys(found: Iterable[str], expected: Iterable[str], source: str, fix: str) -> None:
    """Raise WeightsError naming the first wrong keys unless both sets are equal."""
    found, expected = set(found), set(expected)
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing, first {', '.join(missing[:3])}")
        if extra:
            parts.append(f"{len(extra)} unexpected, first {', '.join(extra[:3])}")
        raise WeightsError(f"{source} has the wrong tensors: {'; '.join(parts)}", f"exactly {len(expected)} keys", fix)
