"""What each unit's work costs: one formula a unit, from the unit's own contract.

Constants are latencies of the gateware's pipelines, fitted to simulated RTL where no single
contract states them (see docs/cycles.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from terntable.hw.attention.geometry import AttentionGeometry
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import KvFormat

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


def unpack(config: AcceleratorConfig, head_dims: int, kv: KvFormat, record_bytes: int) -> int:
    """A record of K and V on its way from a port to the attention unit: a bus word a cycle, or as
    many cycles as code words are in it."""
    words = config.bus_bits // (AttentionGeometry.of(config).dims * kv.bits)
    codes = -(-2 * head_dims * kv.bits // config.bus_bits)
    return record_bytes // config.bus_bytes + codes * (max(1, words) - 1)
