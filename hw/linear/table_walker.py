"""The table builder of a part with SIMD adders: accumulators that walk through the entries."""

from __future__ import annotations

from amaranth import Module, Mux, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ..config import AcceleratorConfig
from ..primitives.simd_accumulator import (
    LANES,
    DspSimdAccumulator,
    SimdAccumulator,
    step_layout,
)
from .walk import TAKE

LATENCY = 2
"""Cycles from a step to its entries."""


class TableWalker(Component):
    """Entries of a number of tables of one token, one a cycle, in the order of walk.walk.

    a, c: int8 activations, an operand of each table. take: takes both; the total becomes `a` two
    cycles later if there is a third activation, which is to be given as `a` first; again: takes the
    other one, as `a`, in the next cycle. step: of the walk, not within two cycles after `take`.
    entries: signed table_bits, LATENCY cycles after the step. No reset, no back-pressure.

    This form describes the behaviour; DspTableWalker has the same ports and a DSP48E2 for every
    four tables.
    """

    _accumulator = SimdAccumulator

    def __init__(self, config: AcceleratorConfig, tables: int) -> None:
        self._config = c = config
        self._tables = tables
        super().__init__(
            {
                "a": In(data.ArrayLayout(signed(8), tables)),
                "c": In(data.ArrayLayout(signed(8), tables)),
                "take": In(1),
                "again": In(1),
                "step": In(step_layout()),
                "entries": Out(data.ArrayLayout(signed(c.table_bits), tables)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = self.step
        if self._config.group > 2:
            first = step_layout().const(TAKE)
            step = data.View(step_layout(), Mux(self.take, first.as_value(), self.step.as_value()))
        for number in range(0, self._tables, LANES):
            accumulator = self._accumulator()
            m.submodules[f"accumulator{number // LANES}"] = accumulator
            m.d.comb += [
                accumulator.take_a.eq(self.take | self.again),
                accumulator.take_c.eq(self.take),
                accumulator.step.eq(step),
            ]
            for lane, t in enumerate(range(number, min(number + LANES, self._tables))):
                m.d.comb += [
                    accumulator.a[lane].eq(self.a[t]),
                    accumulator.c[lane].eq(self.c[t]),
                    self.entries[t].eq(accumulator.total[lane]),
                ]
        return m


class DspTableWalker(TableWalker):
    """The same of DSP48E2s."""

    _accumulator = DspSimdAccumulator
