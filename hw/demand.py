"""What a configuration surely takes of a part: its large memories, known without synthesis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .config import AcceleratorConfig, weight_memory_plan
from .errors import UserError
from .parts import Part

_RAMB36_SHAPES = ((72, 512), (36, 1024), (18, 2048), (9, 4096))
_EBR_SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096))
"""Bits by words of a block RAM with one read and one write port."""
_URAM_SHAPE = (72, 4096)
_LUTS = {"RAM32M16": 8, "TRELLIS_DPR16X4": 6}
"""Of memories that are made of them."""


@dataclass(frozen=True)
class Demand:
    """A number of a part's resource, and what takes it."""

    resource: str
    what: str
    count: int
    remedy: str


def ramb36_count(bits: int, words: int) -> int:
    """Block RAMs of a memory of `words` words of `bits` bits."""
    return min(-(-bits // wide) * -(-words // deep) for wide, deep in _RAMB36_SHAPES)


def ebr_count(bits: int, words: int) -> int:
    """ECP5's block RAMs of a memory of `words` words of `bits` bits."""
    return min(-(-bits // wide) * -(-words // deep) for wide, deep in _EBR_SHAPES)


def uram_count(bits: int, words: int) -> int:
    """UltraRAMs of a memory of `words` words of `bits` bits."""
    wide, deep = _URAM_SHAPE
    return -(-bits // wide) * -(-words // deep)


def demands(config: AcceleratorConfig) -> Iterator[Demand]:
    """The memories whose primitive is certain, rows by their bits. There are more: this is the
    least."""
    c = config
    small = c.family == "ecp5"
    block, block_count = ("ebr", ebr_count) if small else ("bram36", ramb36_count)
    ring = weight_memory_plan(c)
    resource = {"uram": "uram", "bram": block, "lutram": "lutram"}[c.weight_memory]
    yield Demand(
        resource,
        "the weight ring",
        ring.primitives * _LUTS.get(ring.primitive, 1),
        "lower weight_depth",
    )
    sums = c.tokens * c.rows * c.acc_bits
    yield Demand(
        block,
        "the accumulators",
        block_count(sums, 2 * c.tile_rows // c.rows),
        "lower tile_rows",
    )
    elements = c.chunk * (c.max_hidden + c.longest_row)
    if c.rows_in_uram:
        count = -(-32 * elements // math.prod(_URAM_SHAPE))
        yield Demand("uram", "binary32 rows", count, "lower chunk")
    elif small:
        wide, deep = _EBR_SHAPES[0]
        yield Demand(block, "binary32 rows", -(-32 * elements // (wide * deep)), "lower chunk")


def check_fits(config: AcceleratorConfig, part: Part) -> None:
    """Raise UserError when the memories of `config` alone are too many for `part`."""
    needed: dict[str, list[Demand]] = {}
    for demand in demands(config):
        needed.setdefault(demand.resource, []).append(demand)
    for resource, of_it in needed.items():
        total, limit = sum(demand.count for demand in of_it), getattr(part, resource)
        if total > limit:
            most = max(of_it, key=lambda demand: demand.count)
            taken = ", ".join(f"{demand.count} for {demand.what}" for demand in of_it)
            raise UserError(
                f"{config.name} can't fit {part.name}: it needs at least {total} {resource}"
                f" ({taken}), {total - limit} over the part's {limit}: {most.remedy}"
            )
