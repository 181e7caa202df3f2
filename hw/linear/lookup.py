"""The table-lookup array: P token lanes by Q weight rows of lanes, with their table builders."""

from __future__ import annotations

from amaranth import C, Cat, Module, Signal, Value
from amaranth.lib.wiring import Component

from ..config import AcceleratorConfig
from ..modules import ModuleLibrary
from . import lane, tables
from .array import OLD_LATENCY, accumulate, array_signature
from .lane import Lane
from .tables import TableBuilder

BUILD_LATENCY = tables.LATENCY + 1
"""Cycles from `digits` to the write of the entry."""
_LANE, _TABLES = "terntable_lane", "terntable_tables"


def latency(config: AcceleratorConfig) -> int:
    """Cycles from an index word to its sums."""
    return 1 + lane.latency(config) + OLD_LATENCY - 1


class LookupArray(Component):
    """Builds the tables of P tokens and looks a word of indices up in them.

    Ports: see array_signature. Entry `address` with `digits` is computed and written in all tables
    BUILD_LATENCY cycles later. A word given BUILD_LATENCY - 1 cycles before an entry's write, or
    earlier, does not see it; from BUILD_LATENCY - 2 on it does.

    With a library, lanes and builders are placed modules; without one they are submodules.
    """

    def __init__(self, config: AcceleratorConfig, library: ModuleLibrary | None = None) -> None:
        self._config = config
        self._library = library
        super().__init__(array_signature(config))

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        library = self._library
        if library is not None:
            library.register(_LANE, Lane(c))
            library.register(_TABLES, TableBuilder(c, c.tables))

        banked = c.table_buffers == 2
        enable: Value = self.build
        address: Value = Cat(self.address, self.build_bank) if banked else self.address
        for stage in range(BUILD_LATENCY):
            enable_next = Signal(name=f"write_en{stage}")
            address_next = Signal(
                c.table_address_bits, name=f"write_address{stage}", reset_less=True
            )
            m.d.sync += [enable_next.eq(enable), address_next.eq(address)]
            enable, address = enable_next, address_next
        index = Signal(c.word_bits, reset_less=True)
        m.d.sync += index.eq(self.index)
        bank: Value = C(0, 0)
        if banked:
            bank = Signal(name="bank", reset_less=True)
            m.d.sync += bank.eq(self.index_bank)

        for p in range(c.tokens):
            builder = TableBuilder(c, c.tables) if library is None else library.place(_TABLES)
            m.submodules[f"tables{p}"] = builder
            activations = Signal.like(self.activations, name=f"activations{p}", reset_less=True)
            with m.If(self.load[p]):
                m.d.sync += activations.eq(self.activations)
            entries = Signal.like(builder.entries, name=f"entries{p}", reset_less=True)
            m.d.sync += entries.eq(builder.entries)
            m.d.comb += [
                builder.activations.eq(activations),
                builder.digits.eq(self.digits),
            ]
            for q in range(c.rows):
                block = Lane(c) if library is None else library.place(_LANE)
                m.submodules[f"lane{p}_{q}"] = block
                place = p * c.rows + q
                total = accumulate(m, block.sum, self.old[place], self.use_old, f"{p}_{q}")
                m.d.comb += [
                    block.write_en.eq(enable),
                    block.write_address.eq(address),
                    block.write_data.eq(entries),
                    self.sums[place].eq(total),
                ]
                m.d.comb += [
                    block.index[t].eq(Cat(index.word_select(q * c.tables + t, c.index_bits), bank))
                    for t in range(c.tables)
                ]
        return m
