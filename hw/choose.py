"""Multiplexers as trees, which synthesis packs: four inputs of a bit in a LUT of six."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Mux, Value
from amaranth.hdl import ValueLike


def choose(index: Value, values: Sequence[ValueLike]) -> Value:
    """`values[index]`; for an index beyond them any of them. There must be a value.

    A `Switch` means the same, but is mapped as an AND with each decoded case, which takes twice the
    LUTs.
    """
    level = [Value.cast(value) for value in values]
    for bit in range((len(level) - 1).bit_length()):
        pairs = [level[n : n + 2] for n in range(0, len(level), 2)]
        level = [Mux(index[bit], *reversed(pair)) if pair[1:] else pair[0] for pair in pairs]
    return level[0]
