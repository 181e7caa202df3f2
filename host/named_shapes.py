"""Shapes of published ternary models, to be filled with random weights.

Dimensions are those of each model's published config.json.
"""

from __future__ import annotations

from terntable.hw.errors import UserError

from .model import ModelSpec

_BITNET = {"attn_sub_norm": True, "ffn_sub_norm": True, "tied": True}

NAMED_SHAPES = {
    spec.name: spec
    for spec in (
        # 1bitLLM/bitnet_b1_58-large and -3B
        ModelSpec(
            name="bitnet-0.73b", layers=24, hidden=1536, ffn=4096, heads=16, kv_heads=16,
            head_dim=96, vocab=32002, context=2048, rope_theta=1e4, eps=1e-5, activation="silu",
            **_BITNET,
        ),
        ModelSpec(
            name="bitnet-3b", layers=26, hidden=3200, ffn=8640, heads=32, kv_heads=32,
            head_dim=100, vocab=32002, context=2048, rope_theta=1e4, eps=1e-5, activation="silu",
            **_BITNET,
        ),
        # microsoft/bitnet-b1.58-2B-4T
        ModelSpec(
            name="bitnet-2b-4t", layers=30, hidden=2560, ffn=6912, heads=20, kv_heads=5,
            head_dim=128, vocab=128256, context=4096, rope_theta=5e5, eps=1e-5,
            activation="relu2", **_BITNET,
        ),
        # HF1BitLLM/Llama3-8B-1.58-100B-tokens
        ModelSpec(
            name="llama3-8b-1.58", layers=32, hidden=4096, ffn=14336, heads=32, kv_heads=8,
            head_dim=128, vocab=128256, context=8192, rope_theta=5e5, eps=1e-5, activation="silu",
            tied=False,
        ),
    )
}  # fmt: skip


def named_shape(name: str) -> ModelSpec:
    """The shape called `name`. Raises UserError that lists the known ones."""
    if name not in NAMED_SHAPES:
        raise UserError(f"unknown shape {name!r}: choose from {', '.join(NAMED_SHAPES)}")
    return NAMED_SHAPES[name]
