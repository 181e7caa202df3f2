"""How long the vector unit takes: what needs no hardware description."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import AcceleratorConfig

SCALAR_LATENCY = {False: (39, 82), True: (93, 136)}
"""With a norm or without: cycles from taking a measured row to its scale, and to the next row.
`Scalar.latency`, which follows from the arithmetic units that it has."""
HEAD_SCALES_LATENCY = 30
"""`HeadScales.LATENCY`: cycles from taking a measured head to its scale."""


@dataclass(frozen=True)
class RowCycles:
    """Cycles until the first row of a NORM_QUANT is done, and from one row to the next."""

    first: int
    period: int


def dividers(lanes: int) -> int:
    """Dividers that keep up with heads of 64 elements, 4 at most."""
    return min(4, max(1, lanes // 2))


def row_cycles(config: AcceleratorConfig, ew: int, norm: bool, head: bool) -> RowCycles:
    """Of a NORM_QUANT on rows of `ew` words."""
    scaled, free = SCALAR_LATENCY[norm]
    passes = 1 + (config.head_digits if head else 1)
    # Statistics and lanes have a tree each; registers at either end.
    fixed = 2 * (config.lanes.bit_length() - 1) + 2
    first = fixed + max(17 + free + ew, 30 + scaled + passes * ew)
    return RowCycles(first, max(ew, free))


def norm_quant_cycles(
    config: AcceleratorConfig, ew: int, tokens: int, norm: bool, head: bool
) -> int:
    """Cycles that a NORM_QUANT keeps the unit busy."""
    rows = row_cycles(config, ew, norm, head)
    return rows.first + (0 if head else (tokens - 1) * rows.period)


def kv_quant_cycles(
    config: AcceleratorConfig,
    heads_per_kv: int,
    kv_heads: int,
    head_ew: int,
    tokens: int,
    record_bytes: int,
) -> int:
    """Most cycles that a KV_QUANT keeps the unit busy, when the KV channel never stalls."""
    beats = record_bytes // config.bus_bytes
    head = max(head_ew, -(-(HEAD_SCALES_LATENCY + 1) // dividers(config.lanes)))
    token = max((heads_per_kv + 2) * head, beats + 4)
    return kv_heads * tokens * token + 2 * head_ew + 2 * beats + HEAD_SCALES_LATENCY + 50
