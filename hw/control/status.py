"""What the host sees of a call: start, status, first error, interrupt and cycle counters."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from .. import isa
from ..axi.dma import KV, KV_WRITE, LOAD, LOGITS, PROGRAM, WEIGHTS
from ..axi.report import error_layout
from ..fp import delay, register
from ..regs import COMMAND_UNIT, SEQUENCER_UNIT, Error, Status
from .sequencer import INDEX_BITS

COUNTED = ("fetch", "load", "vector", "linear", "attention", "weight_wait")
"""Activities with a cycle counter each; the first five are the units in the order of isa.Unit."""

EXECUTING = {
    WEIGHTS: isa.Unit.FETCH,
    KV: isa.Unit.ATTENTION,
    LOAD: isa.Unit.LOAD,
    KV_WRITE: isa.Unit.VECTOR,
    LOGITS: isa.Unit.LINEAR,
    **{COMMAND_UNIT + unit: unit for unit in isa.Unit},
}
"""The unit whose command an ERROR_UNIT works for."""

COMMAND_SHIFT = exact_log2(isa.COMMAND_BYTES)

RESET_CYCLES = 16
"""Cycles that a soft reset holds the units, at least."""


class CallStatus(Component):
    """Turns CONTROL writes into a start or a reset, keeps the first error, counts cycles.

    A start while a call runs, or in an error, is refused: it is reported as START_WHILE_BUSY
    and the call goes on. An error stops the call (`halt`), and only a soft reset clears it. The
    soft reset lasts until the DMA has nothing outstanding, so that no answer of the bus meets a
    unit that never asked.

    `error_command` is the index of the command that failed: of the one in turn when the sequencer
    refuses it, else of the one that the unit at fault took last. Without an error it is that of
    the command in turn. `error_address` is the offset of the access that failed, that of the
    command where there is none.

    Latency: two cycles from a CONTROL write to `start`, four from a report to `halt`; a start
    during a soft reset waits for its end. Counters wrap at 2**32 and clear at start.

    Ports
    -----
    control, irq_enable, program : from the control port.
    sequencer_error, dma_error, watchdog_error : reports; of one cycle the watchdog's counts before
        the DMA's, and this before the sequencer's.
    index, unit_index : from the sequencer.
    active : what COUNTED counts; read_beats, write_beats, dma_idle : from the DMA.
    start, halt, reset_units : to sequencer and units.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "control": In(3),
                "irq_enable": In(1),
                "sequencer_busy": In(1),
                "sequencer_done": In(1),
                "program": In(32),
                "sequencer_error": In(error_layout()),
                "dma_error": In(error_layout()),
                "watchdog_error": In(error_layout()),
                "index": In(INDEX_BITS),
                "unit_index": In(data.ArrayLayout(unsigned(INDEX_BITS), len(isa.Unit))),
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
                "error_command": Out(32),
                "running": Out(1),
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
        m.d.comb += [
            self.halt.eq(failed),
            self.running.eq(busy),
            self.irq.eq((done | failed) & self.irq_enable),
        ]

        resetting = Signal(range(RESET_CYCLES))  # cycles that are left at least, after this one
        with m.If(resetting != 0):
            m.d.sync += resetting.eq(resetting - 1)
        with m.Elif(self.dma_idle):
            m.d.sync += self.reset_units.eq(0)

        # A start that comes during a soft reset waits for its end.
        wanted = Signal()
        m.d.sync += self.start.eq(wanted & ~self.reset_units)
        with m.If(~self.reset_units):
            m.d.sync += wanted.eq(0)
        with m.If(start):
            with m.If(busy | failed):
                with m.If(~failed):
                    m.d.sync += [
                        self.error_code.eq(Error.START_WHILE_BUSY),
                        self.error_unit.eq(SEQUENCER_UNIT),
                        self.error_address.eq(self.program + (self.index << COMMAND_SHIFT)),
                    ]
            with m.Else():
                m.d.sync += [wanted.eq(1), busy.eq(1), done.eq(0), self.error_code.eq(0)]
        with m.If(clear & ~failed):
            m.d.sync += [done.eq(0), self.error_code.eq(0)]
        with m.If(self.sequencer_done):
            m.d.sync += [busy.eq(0), done.eq(1)]
        self._elaborate_errors(m, busy, failed, wanted, reset)
        with m.If(reset):
            m.d.sync += [
                self.reset_units.eq(1),
                resetting.eq(RESET_CYCLES - 1),
                wanted.eq(0),
                busy.eq(0),
                done.eq(0),
                failed.eq(0),
                self.error_code.eq(0),
                self.error_unit.eq(0),
                self.error_address.eq(0),
            ]

        m.d.sync += self.unit_state.eq(
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

    def _elaborate_errors(
        self, m: Module, busy: Signal, failed: Signal, wanted: Signal, reset: Value
    ) -> None:
        """The first report becomes the call's error."""
        # Reports come from all over the chip: they go through a register, the indices with them.
        reports = []
        for source in (self.sequencer_error, self.dma_error, self.watchdog_error):
            later = Signal(error_layout())
            m.d.sync += later.eq(source)
            # The DMA's report stays up until the reset has reached it. The watchdog's alone counts
            # in a reset: a bus that does not answer holds up the reset and the call that waits for
            # it.
            with m.If(reset | (self.reset_units if source is not self.watchdog_error else 0)):
                m.d.sync += later.valid.eq(0)
            reports.append(later)
        of_sequencer, of_dma, of_watchdog = reports
        index = delay(m, self.index, 2)
        unit_index = [delay(m, each, 2) for each in self.unit_index]

        report = Signal(error_layout())
        m.d.sync += report.valid.eq(0)
        command = Signal(INDEX_BITS)
        with m.If(of_sequencer.valid):
            m.d.sync += report.eq(of_sequencer)
        with m.If(of_dma.valid):
            m.d.sync += report.eq(of_dma)
        with m.If(of_watchdog.valid):
            m.d.sync += report.eq(of_watchdog)
        with m.If(reset):
            m.d.sync += report.valid.eq(0)
        refused = register(m, of_sequencer.valid & ~of_dma.valid & ~of_watchdog.valid)
        m.d.comb += command.eq(index)
        with m.If(~refused):
            with m.Switch(report.unit):
                for unit, executing in EXECUTING.items():
                    with m.Case(unit):
                        m.d.comb += command.eq(unit_index[executing])
                with m.Case(PROGRAM):
                    m.d.comb += command.eq((report.address - self.program) >> COMMAND_SHIFT)
        failed_command = Signal(INDEX_BITS)
        m.d.comb += self.error_command.eq(Mux(failed, failed_command, self.index))
        # And once more, with the command that it belongs to.
        chosen = Signal(error_layout())
        blamed = Signal(INDEX_BITS)
        of_command = Signal()
        m.d.sync += [
            chosen.eq(report),
            blamed.eq(command),
            of_command.eq(~refused & (report.unit >= COMMAND_UNIT)),
        ]
        with m.If(reset):
            m.d.sync += chosen.valid.eq(0)
        with m.If(chosen.valid & ~failed):
            m.d.sync += [
                failed.eq(1),
                busy.eq(0),
                wanted.eq(0),
                failed_command.eq(blamed),
                self.error_code.eq(chosen.code),
                self.error_unit.eq(chosen.unit),
                self.error_address.eq(
                    Mux(of_command, self.program + (blamed << COMMAND_SHIFT), chosen.address)
                ),
            ]
