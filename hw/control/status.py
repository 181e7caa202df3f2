"""What the host sees of a call: start, status, first error, interrupt and cycle counters."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from .. import isa
from ..axi.report import error_layout
from ..regs import Error, Status

COUNTED = ("fetch", "load", "vector", "linear", "attention", "weight_wait")
"""Activities with a cycle counter each; the first five are the units in the order of isa.Unit."""

RESET_CYCLES = 16
"""Cycles that a soft reset holds the units, at least."""


class CallStatus(Component):
    """Turns CONTROL writes into a start or a reset, keeps the first error, counts cycles.

    A start while a call runs, or in an error, is refused: it is reported as START_WHILE_BUSY
    and the call goes on. An error stops the call (`halt`), and only a soft reset clears it. The
    soft reset lasts until the DMA has nothing outstanding, so that no answer of the bus meets a
    unit that never asked.

    Latency: two cycles from a CONTROL write to `start`; a start during a soft reset waits for its
    end. Counters wrap at 2**32 and clear at start.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "control": In(3),
                "irq_enable": In(1),
                "sequencer_busy": In(1),
                "sequencer_done": In(1),
                "sequencer_error": In(error_layout()),
                "dma_error": In(error_layout()),
                "dma_idle": In(1),
                "read_beats": In(3),
                "write_beats": In(3),
                "active": In(len(COUNTED)),
                "start": Out(1),
                "halt": Out(1),
                "reset_units": Out(1),
                "status": Out(32),
                "error_code": Out(32),
                "error_unit": Out(32),
                "error_address": Out(32),
                "cycles": Out(32),
                "read_beat_count": Out(32),
                "write_beat_count": Out(32),
                "unit_state": Out(32),
                "irq": Out(1),
                **{f"cycles_{name}": Out(32) for name in COUNTED},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        start, clear, reset = self.control[0], self.control[1], self.control[2]
        busy = Signal()
        done = Signal()
        failed = Signal()
        m.d.comb += self.status.eq(
            Mux(busy, Status.BUSY, 0) | Mux(done, Status.DONE, 0) | Mux(failed, Status.ERROR, 0)
        )
        m.d.comb += [self.halt.eq(failed), self.irq.eq((done | failed) & self.irq_enable)]

        resetting = Signal(range(RESET_CYCLES + 1))
        m.d.comb += self.reset_units.eq(resetting != 0)
        with m.If((resetting > 1) | ((resetting == 1) & self.dma_idle)):
            m.d.sync += resetting.eq(resetting - 1)

        # A start that comes during a soft reset waits for its end.
        wanted = Signal()
        m.d.sync += self.start.eq(wanted & ~self.reset_units)
        with m.If(~self.reset_units):
            m.d.sync += wanted.eq(0)
        with m.If(start):
            with m.If(busy | failed):
                with m.If(~failed):
                    m.d.sync += [self.error_code.eq(Error.START_WHILE_BUSY), self.error_unit.eq(15)]
            with m.Else():
                m.d.sync += [wanted.eq(1), busy.eq(1), done.eq(0), self.error_code.eq(0)]
        with m.If(clear & ~failed):
            m.d.sync += [done.eq(0), self.error_code.eq(0)]
        with m.If(self.sequencer_done):
            m.d.sync += [busy.eq(0), done.eq(1)]
        # The first error wins, the DMA's over the sequencer's of the same cycle. The DMA's report
        # stays up until the reset has reached it.
        for report in (self.sequencer_error, self.dma_error):
            with m.If(report.valid & ~failed & ~self.reset_units):
                m.d.sync += [
                    failed.eq(1),
                    busy.eq(0),
                    self.error_code.eq(report.code),
                    self.error_unit.eq(report.unit),
                    self.error_address.eq(report.address),
                ]
        with m.If(reset):
            m.d.sync += [
                resetting.eq(RESET_CYCLES),
                wanted.eq(0),
                busy.eq(0),
                done.eq(0),
                failed.eq(0),
                self.error_code.eq(0),
                self.error_unit.eq(0),
                self.error_address.eq(0),
            ]

        m.d.comb += self.unit_state.eq(
            Cat(self.active[: len(isa.Unit)], self.sequencer_busy, self.dma_idle)
        )
        counters = [
            (self.cycles, busy),
            (self.read_beat_count, self.read_beats),
            (self.write_beat_count, self.write_beats),
        ]
        counters += [
            (getattr(self, f"cycles_{n}"), self.active[i] & busy) for i, n in enumerate(COUNTED)
        ]
        for counter, amount in counters:
            with m.If(self.start):
                m.d.sync += counter.eq(0)
            with m.Else():
                m.d.sync += counter.eq(counter + amount)
        return m
