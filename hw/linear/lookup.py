"""The table-lookup array: P token lanes by Q weight rows of lanes, with their table builders."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib.wiring import Component

from ..config import AcceleratorConfig
from ..modules import ModuleLibrary
from . import lane, tables
from .array import array_signature
from .lane import Lane
from .tables import TableBuilder

BUILD_LATENCY = tables.LATENCY + 1
"""Cycles from `digits` to the write of the entry."""


def latency(config: AcceleratorConfig) -> int:
    """Cycles from an index word to its sums."""
    return 1 + lane.latency(config)


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
        if self._library is not None:
            self._library.register("terntable_lane", Lane(c))
            self._library.register("terntable_tables", TableBuilder(c))

        enable, address = self.build, self.address
        for stage in range(BUILD_LATENCY):
            enable_next = Signal(name=f"write_en{stage}")
            address_next = Signal(c.index_bits, name=f"write_address{stage}", reset_less=True)
            m.d.sync += [enable_next.eq(enable), address_next.eq(address)]
            enable, address = enable_next, address_next
        index = Signal(c.word_bits, reset_less=True)
        m.d.sync += index.eq(self.index)

        row_bits = c.tables * c.index_bits
        for p in range(c.tokens):
            builder = self._place("terntable_tables", TableBuilder)
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
                block = self._place("terntable_lane", Lane)
                m.submodules[f"lane{p}_{q}"] = block
                m.d.comb += [
                    block.write_en.eq(enable),
                    block.write_address.eq(address),
                    block.write_data.eq(entries),
                    block.index.eq(index.word_select(q, row_bits)),
                    self.sums[p * c.rows + q].eq(block.sum),
                ]
        return m

    def _place(self, name: str, block: type) -> Component:
        if self._library is None:
            return block(self._config)
        return self._library.place(name)
