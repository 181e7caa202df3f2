"""A stream cut in two: nothing combinational between its ends."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out


class Skid(Component):
    """A stream of any shape behind a register slice of two words.

    `o.valid`, `o.payload` and `i.ready` are registers. Latency: one cycle. Throughput: a word a
    cycle. Back-pressure: `i.ready` falls a cycle after `o` stopped, when both words are full.
    Reset: empty.
    """

    LATENCY = 1

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: Any) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        spare = Signal.like(self.i.payload, reset_less=True)
        kept = Signal()
        m.d.comb += self.i.ready.eq(~kept)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid | kept), kept.eq(0)]
            with m.If(kept):
                m.d.sync += self.o.payload.eq(spare)
            with m.Else():
                m.d.sync += self.o.payload.eq(self.i.payload)
        with m.Elif(self.i.valid & self.i.ready):
            m.d.sync += [spare.eq(self.i.payload), kept.eq(1)]
        return m
