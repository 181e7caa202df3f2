"""A configuration for a model that no named one takes."""

from __future__ import annotations

from terntable.hw.config import KV_BLOCK, AcceleratorConfig, load_config

from .image import align
from .model import ModelSpec

BASE = "tiny"
"""The named configuration whose array and ports a derived one has."""


def derive_config(spec: ModelSpec) -> AcceleratorConfig:
    """The base configuration with maxima (and weight ring) raised to take `spec`.

    For devices without gateware. The context is the model's, up to the largest that a
    configuration can name.
    """
    base = load_config(BASE)
    pad = base.attention_dims
    head = align(spec.head_dim, pad)
    row = max(align(spec.ffn, pad), (spec.heads + 2 * spec.kv_heads) * head)
    hidden = align(spec.hidden, pad)
    words = 2 * base.k_tiles(max(row, hidden))
    return AcceleratorConfig.model_validate(
        base.model_dump()
        | {
            "name": f"{BASE}-derived",
            "max_hidden": max(base.max_hidden, hidden),
            "max_row": max(base.max_row, row),
            "max_head_dim": max(base.max_head_dim, head),
            "max_heads": max(base.max_heads, spec.heads),
            "max_context": max(base.max_context, min(align(spec.context, KV_BLOCK), 65536)),
            "weight_depth": max(base.weight_depth, words),
        }
    )
