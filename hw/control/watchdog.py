"""Ends a call in which nothing moves any more, and says who stands still."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from .. import isa
from ..axi.report import error_layout
from ..regs import COMMAND_UNIT, SEQUENCER_UNIT, Error

BLAMED_LAST = (isa.Unit.VECTOR, isa.Unit.ATTENTION, isa.Unit.LINEAR, isa.Unit.LOAD, isa.Unit.FETCH)
"""Of several busy units the first of these is named: those behind it may be waiting for it."""


class Watchdog(Component):
    """Counts the cycles of a call in which nothing moves; after `limit` of them (0: never) it
    reports NO_PROGRESS, until the call has ended or something moves.

    The report names, in this order: the requester and the offset of the burst that the bus has
    not answered; FETCH, while the array waits for its weights; the first busy unit of
    BLAMED_LAST; the sequencer. Only the first of these has an address.

    Latency: the report comes in the cycle after the last of `limit`. Reset begins anew.

    Ports
    -----
    running : a call runs.
    moved : bus, sequencer or a unit has got on in this cycle.
    limit : cycles without `moved`.
    outstanding : a burst that waits for the bus, see Dma; its code does not count.
    busy, weight_wait : of the units.
    error : the report.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "running": In(1),
                "moved": In(1),
                "limit": In(32),
                "outstanding": In(error_layout()),
                "busy": In(len(isa.Unit)),
                "weight_wait": In(1),
                "error": Out(error_layout()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        still = Signal(32)
        with m.If(~self.running | self.moved):
            m.d.sync += still.eq(0)
        with m.Elif(still != self.limit):
            m.d.sync += still.eq(still + 1)

        unit = Signal(8)
        m.d.comb += unit.eq(SEQUENCER_UNIT)
        for blamed in reversed(BLAMED_LAST):
            with m.If(self.busy[blamed]):
                m.d.comb += unit.eq(COMMAND_UNIT + blamed)
        with m.If(self.weight_wait & self.busy[isa.Unit.FETCH]):
            m.d.comb += unit.eq(COMMAND_UNIT + isa.Unit.FETCH)
        with m.If(self.outstanding.valid):
            m.d.comb += unit.eq(self.outstanding.unit)

        m.d.comb += [
            self.error.valid.eq(self.running & (self.limit != 0) & (still == self.limit)),
            self.error.code.eq(Error.NO_PROGRESS),
            self.error.unit.eq(unit),
            self.error.address.eq(self.outstanding.address),
        ]
        return m
