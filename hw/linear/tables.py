"""The table builder of a token lane."""

from __future__ import annotations

import numpy as np
from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from numpy.typing import NDArray

from ..config import AcceleratorConfig

LATENCY = 2
"""Cycles from digits to the entry."""


def reference(activations: NDArray[np.integer], group: int) -> NDArray[np.int64]:
    """Tables [T, 3**G] of the int8 activations [T * G]: entry e of table t is the sum over j of
    (digit j of e, least significant first, minus 1) * activations[t * G + j]."""
    a = np.asarray(activations, np.int64).reshape(-1, group)
    entry = np.arange(3**group)[:, None] // 3 ** np.arange(group) % 3 - 1
    return a @ entry.T


class TableBuilder(Component):
    """Sums of G int8 activations of a number of groups, each times the trit of a digit, one entry a
    cycle.

    digits: 0..2 each, shared by all groups; activations must hold in that cycle and the next.
    entries: signed table_bits, LATENCY cycles after the digits. No reset, no back-pressure.
    """

    def __init__(self, config: AcceleratorConfig, tables: int) -> None:
        self._config = c = config
        self._tables = tables
        super().__init__(
            {
                "activations": In(data.ArrayLayout(signed(8), c.group * tables)),
                "digits": In(data.ArrayLayout(2, c.group)),
                "entries": Out(data.ArrayLayout(signed(c.table_bits), tables)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        digit0 = Signal(2, reset_less=True)
        m.d.sync += digit0.eq(self.digits[0])
        for t in range(self._tables):
            # The slow digits' terms first; the fast one is an add or subtract of one LUT a bit.
            high = Signal(signed(c.table_bits), name=f"high{t}", reset_less=True)
            entry = Signal(signed(c.table_bits), name=f"entry{t}", reset_less=True)
            a = [self.activations[t * c.group + j] for j in range(c.group)]
            m.d.sync += high.eq(sum(_term(a[j], self.digits[j]) for j in range(1, c.group)))
            m.d.sync += entry.eq(high + _term(a[0], digit0))
            m.d.comb += self.entries[t].eq(entry)
        return m


def _term(activation: Value, digit: Value) -> Value:
    """activation * (digit - 1): the inverted activation plus one where the digit is 0."""
    value = Mux(digit == 0, ~activation, Mux(digit == 2, activation, 0)).as_signed()
    return value + (digit == 0)
