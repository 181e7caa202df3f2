"""How long the attention unit takes."""

from __future__ import annotations

from ..config import KV_BLOCK, AcceleratorConfig
from .geometry import AttentionGeometry

PIPELINES = 110
"""Cycles through the pipelines of a command's first or last item, beside those that depend on the
configuration: the walk to it, score, weight, division, rescaling, output."""


def attention_cycles(
    config: AcceleratorConfig,
    heads_per_kv: int,
    kv_heads: int,
    head_dims: int,
    position: int,
    tokens: int,
) -> tuple[int, int]:
    """Cycles that an ATTENTION keeps the unit busy, were K and V on chip from its start, and the
    positions whose records it reads.

    The three stages work on different items at once: an item costs what the slowest stage takes
    over it. To the sum comes, once, the way of one item through all of them.
    """
    geometry = AttentionGeometry.of(config)
    pass_tokens = min(config.chunk, geometry.max_rows // heads_per_kv)
    cycles = read = 0
    for first in range(0, tokens, pass_tokens):
        count = min(pass_tokens, tokens - first)
        newest = position + first + count - 1
        read += newest + 1
        held = count * heads_per_kv
        for block in range(newest // KV_BLOCK + 1):
            for row in range(0, held, geometry.rows):
                last_row = min(row + geometry.rows, held) - 1
                token = position + first + last_row // heads_per_kv
                seen = min(token - block * KV_BLOCK + 1, KV_BLOCK)
                if seen > 0:
                    cycles += max(geometry.stage_cycles(head_dims, seen))
    stages = geometry.stage_cycles(head_dims, min(position + tokens, KV_BLOCK))
    fill = PIPELINES + 2 * geometry.rows + geometry.dims + geometry.slots_a_row
    fill += geometry.positions + sum(stages) - max(stages)
    return kv_heads * cycles + fill, kv_heads * read
