"""What each unit's work costs: one formula a unit, from the unit's own contract.

Constants are latencies of the gateware's pipelines, fitted to simulated RTL where no single
contract states them (see docs/cycles.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from terntable.hw.config import KV_BLOCK, AcceleratorConfig

FIRST_COMMAND = 30
"""Cycles from the doorbell, or a jump, to the first command, beside the memory's latency."""
COMMAND = 8
"""Cycles between two commands."""
LINEAR_BEGIN = 5
LINEAR_PIPELINE = 16
"""From the last word of a tile to its sums."""
EPILOGUE = 40
"""From the last sum's beat to idle."""


def log2_ceil(n: int) -> int:
    return (n - 1).bit_length()


def k_tile(config: AcceleratorConfig, words: int, lanes: int) -> int:
    """A K tile of a group of `lanes` tokens: the tables are built, then swept; the next
    activations are read meanwhile."""
    return config.build_cycles + max(words, lanes + 4)


def drain(config: AcceleratorConfig, words: int, lanes: int, head: bool) -> int:
    """The sums of a tile of a group of tokens to the elementwise pipeline."""
    return words * (config.rows if head else lanes * config.rows // config.lanes) + 4


@dataclass(frozen=True)
class RowCost:
    """Cycles until a row is finished, and between two rows."""

    first: int
    period: int


def norm_quant(config: AcceleratorConfig, ew: int, norm: bool, head: bool) -> RowCost:
    """As `hw.elementwise.vector.norm_quant_cycles`, which the unit keeps exactly."""
    scaled, free = (91, 133) if norm else (38, 80)
    passes = 1 + (config.head_digits if head else 1)
    fixed = 2 * log2_ceil(config.lanes)
    first = fixed + max(17 + free + ew, 30 + scaled + passes * ew)
    return RowCost(first, max(ew, free))


def kv_quant(
    config: AcceleratorConfig,
    heads_per_kv: int,
    kv_heads: int,
    head_ew: int,
    tokens: int,
    record_bytes: int,
) -> int:
    """As `hw.elementwise.vector.kv_quant_cycles`: a KV head of a token takes its reads, or the
    beats of its record if these are more."""
    latency = 30
    beats = record_bytes // config.bus_bytes
    dividers = min(4, max(1, config.lanes // 2))
    head = max(head_ew, -(-(latency + 1) // dividers))
    token = max((heads_per_kv + 2) * head, beats + 4)
    return kv_heads * tokens * token + 2 * head_ew + 2 * beats + latency + 50


def attention(
    config: AcceleratorConfig,
    heads_per_kv: int,
    kv_heads: int,
    head_dims: int,
    position: int,
    tokens: int,
) -> tuple[int, int]:
    """Cycles of the items of an ATTENTION, and the positions whose K and V are read."""
    beats = head_dims // config.attention_dims
    rows = config.attention_rows
    longest_beats = config.max_head_dim // config.attention_dims
    most = min(max(config.max_heads, 512 // longest_beats), config.chunk * config.max_heads)
    most = -(-most // rows) * rows
    per_pass = min(config.chunk, most // heads_per_kv)
    period = max(rows, 8)
    cycles = read = 0
    for first in range(0, tokens, per_pass):
        count = min(per_pass, tokens - first)
        newest = position + first + count - 1
        read += newest + 1
        held = count * heads_per_kv
        for block in range(newest // KV_BLOCK + 1):
            for row in range(0, held, rows):
                last_row = min(row + rows, held) - 1
                token = position + first + last_row // heads_per_kv
                seen = min(token - block * KV_BLOCK + 1, KV_BLOCK)
                if seen > 0:
                    products = beats * (seen + max(seen, period)) + 6
                    weights = rows * (seen + 1) + 40
                    cycles += max(products, weights)
        cycles += 10
    return kv_heads * cycles, kv_heads * read
