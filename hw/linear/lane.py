"""A lane: T tables, one weight row, one token."""

from __future__ import annotations

import numpy as np
from amaranth import Module, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from numpy.typing import NDArray

from ..config import AcceleratorConfig
from .array import adder_tree, sum_bits, tree_depth

TABLE_ATTRS = {"ram_style": "distributed"}


def reference(tables: NDArray[np.integer], index: NDArray[np.integer]) -> NDArray[np.int64]:
    """Sum over T of tables [T, 3**G] at index [..., T]."""
    t = np.arange(tables.shape[0])
    return np.asarray(tables, np.int64)[t, index].sum(axis=-1)


class Lane(Component):
    """Looks T indices up in T tables and adds the entries.

    write_en, write_address, write_data: entry `write_address` of all tables at once (signed
    table_bits each); visible to look-ups from the next cycle. index: T indices, read in the cycle
    they are given; with two buffers of tables the buffer's number is the highest bit of both
    addresses. sum: signed, exact, LATENCY cycles later; one sum a cycle, no back-pressure.
    An index of 3**G or above reads an undefined entry. Nothing is reset: the tables hold what was
    written last.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = c = config
        self.latency = latency(c)
        super().__init__(
            {
                "write_en": In(1),
                "write_address": In(c.table_address_bits),
                "write_data": In(data.ArrayLayout(signed(c.table_bits), c.tables)),
                "index": In(data.ArrayLayout(unsigned(c.table_address_bits), c.tables)),
                "sum": Out(signed(sum_bits(c))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        entries: list[Value] = []
        for t in range(c.tables):
            memory = Memory(
                shape=unsigned(c.table_bits),
                depth=1 << c.table_address_bits,
                init=[],
                attrs=TABLE_ATTRS,
            )
            m.submodules[f"table{t}"] = memory
            write = memory.write_port()
            read = memory.read_port(domain="comb")
            entry = Signal(signed(c.table_bits), name=f"entry{t}", reset_less=True)
            m.d.comb += [
                write.en.eq(self.write_en),
                write.addr.eq(self.write_address),
                write.data.eq(self.write_data[t]),
                read.addr.eq(self.index[t]),
            ]
            m.d.sync += entry.eq(read.data)
            entries.append(entry)
        m.d.comb += self.sum.eq(adder_tree(m, entries, "sum"))
        return m


def latency(config: AcceleratorConfig) -> int:
    """Cycles from indices to their sum."""
    return 1 + tree_depth(config.tables)
