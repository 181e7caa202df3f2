"""When each table's entry enters the adders of four token lanes: a systolic tree in DSPs.

An adder of 4 lanes of 12 bits takes two entries of each token a cycle, and the sum of the adder
before it: a chain of them adds as many entries as 12 bits hold. Adders of 2 lanes of 24 bits, in a
chain of their own, take the chains' sums two by two, and the accumulator last. Every adder takes a
cycle, so an operand must come one cycle after that of the adder before: its table's index is
delayed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import AcceleratorConfig
from ..primitives.dsp48e2 import FAMILIES
from ..primitives.simd_adder import LATENCY
from ..primitives.table_memory import ADDRESS_BITS
from . import walk
from .array import OLD_LATENCY

TOKENS = 4
"""Token lanes side by side: lanes of the narrow adders."""
_NARROW = 48 // TOKENS
"""Bits of a lane of them."""


def available(config: AcceleratorConfig) -> bool:
    """The configuration's part has the adders, its token lanes fill them, and its tables can be
    walked through and fit the part's memories."""
    device = config.device
    return (
        device is not None
        and device.family in FAMILIES
        and config.tokens % TOKENS == 0
        and config.group in walk.GROUPS
        and config.index_bits <= ADDRESS_BITS
    )


@dataclass(frozen=True)
class Skew:
    """chains: the tables of each chain, in the order in which they enter, two at a time. delay: of
    each table, in cycles after those of delay 0. latency: cycles from the indices of delay 0 at
    the memories to the sums."""

    chains: tuple[tuple[int, ...], ...]
    delay: tuple[int, ...]
    latency: int

    @property
    def slices(self) -> list[list[int]]:
        """Tables by delay."""
        return [
            [t for t, delay in enumerate(self.delay) if delay == d]
            for d in range(max(self.delay) + 1)
        ]

    @property
    def adders(self) -> int:
        """DSPs of four token lanes and a weight row."""
        narrow = sum(-(-len(chain) // 2) for chain in self.chains)
        return narrow + TOKENS // 2 * (len(self.chains) // 2 + 1)


def skew(config: AcceleratorConfig) -> Skew:
    """The schedule of a configuration: the most entries a chain that 12 bits hold, by twos."""
    most = ((1 << _NARROW - 1) - 1) // (128 * config.group)
    size = max(1, most // 2 * 2)
    tables = range(config.tables)
    chains = tuple(tuple(tables[i : i + size]) for i in range(0, config.tables, size))
    longest = -(-len(chains[0]) // 2)
    delay = [0] * config.tables
    for number, chain in enumerate(chains):
        # A shorter chain starts later.
        start = number // 2 + longest - -(-len(chain) // 2)
        for place, table in enumerate(chain):
            delay[table] = start + place // 2
    # The last wide adder takes the accumulator, and a sum if their number is odd.
    latency = LATENCY + (longest - 1) + len(chains) // 2 + OLD_LATENCY
    return Skew(chains, tuple(delay), latency)
