"""What the array, the drain and the ports' unpackers cost; vector and attention units state their
own (`hw/elementwise/cycles.py`, `hw/attention/cycles.py`).

Constants are latencies of the gateware's pipelines, fitted to simulated RTL where no single
contract states them (see docs/cycles.md).
"""

from __future__ import annotations

from terntable.hw.attention.geometry import AttentionGeometry
from terntable.hw.config import AcceleratorConfig
from terntable.hw.isa import KvFormat

FIRST_COMMAND = 30
"""Cycles from the doorbell, or a jump, to the first command, beside the memory's latency."""
COMMAND = 8
"""Cycles between two commands."""
_LINEAR_BEGIN = 5
LINEAR_PIPELINE = 16
"""From the last word of a tile to its sums."""
EPILOGUE = 40
"""From the last sum's beat to idle."""


def k_tile(config: AcceleratorConfig, words: int, lanes: int) -> int:
    """A K tile of a group of `lanes` tokens: the tables are built, then swept; the next
    activations are read meanwhile. With two buffers the next tables are built meanwhile too."""
    if config.table_buffers == 2:
        return max(config.gap_cycles + words, config.build_cycles + lanes + 4)
    return config.build_cycles + max(words, lanes + 4)


def linear_begin(config: AcceleratorConfig, lanes: int) -> int:
    """From a command to its first K tile: activations, and tables if no sweep hides them."""
    ahead = config.build_cycles + config.gap_cycles if config.table_buffers == 2 else 0
    return _LINEAR_BEGIN + lanes + ahead


def drain(config: AcceleratorConfig, words: int, lanes: int, head: bool) -> int:
    """The sums of a tile of a group of tokens to the elementwise pipeline."""
    return words * (config.rows if head else lanes * config.rows // config.lanes) + 4


def unpack(config: AcceleratorConfig, head_dims: int, kv: KvFormat, record_bytes: int) -> int:
    """A record of K and V on its way from a port to the attention unit: a bus word a cycle, or as
    many cycles as code words are in it."""
    words = config.bus_bits // (AttentionGeometry.of(config).dims * kv.bits)
    codes = -(-2 * head_dims * kv.bits // config.bus_bits)
    return record_bytes // config.bus_bytes + codes * (max(1, words) - 1)
