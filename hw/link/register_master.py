"""Register accesses, one at a time, on an AXI4-Lite master."""

from __future__ import annotations

from typing import Any

from amaranth import Module, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from ..axi.bus import AXI4LiteSignature, Response


def access_layout() -> data.StructLayout:
    """An access: a byte address, and the word if it is a write."""
    return data.StructLayout({"address": unsigned(32), "write": unsigned(1), "word": unsigned(32)})


def outcome_layout() -> data.StructLayout:
    """The word that was read, and the response (bus.Response)."""
    return data.StructLayout({"word": unsigned(32), "response": unsigned(2)})


class RegisterMaster(Component):
    """Does `i` on the bus and gives its outcome.

    An address that the bus doesn't have is answered DECERR and not asked for. Latency: one cycle
    from `i` to the bus, one from the answer to `o`. Throughput: an access when the outcome of the
    one before is taken. Back-pressure: an outcome waits as long as one likes. Reset: idle; an
    access that is on the bus then must be gone with the same reset.
    """

    i: stream.Interface
    o: stream.Interface
    axil: Any

    def __init__(self) -> None:
        super().__init__(
            {
                "i": In(stream.Signature(access_layout())),
                "o": Out(stream.Signature(outcome_layout())),
                "axil": Out(AXI4LiteSignature()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.axil
        address = self.i.payload.address
        width = len(bus.ar.payload.addr)
        outcome = self.o.payload
        for channel in (bus.ar, bus.aw, bus.w):
            with m.If(channel.ready):
                m.d.sync += channel.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [
                    bus.ar.payload.addr.eq(address),
                    bus.aw.payload.addr.eq(address),
                    bus.w.payload.data.eq(self.i.payload.word),
                    bus.w.payload.strb.eq(0b1111),
                ]
                with m.If(self.i.valid):
                    with m.If(address[width:].any()):
                        m.d.sync += outcome.response.eq(Response.DECERR.value)
                        m.next = "OUTCOME"
                    with m.Elif(self.i.payload.write):
                        m.d.sync += [bus.aw.valid.eq(1), bus.w.valid.eq(1)]
                        m.next = "WRITE"
                    with m.Else():
                        m.d.sync += bus.ar.valid.eq(1)
                        m.next = "READ"
            with m.State("WRITE"):
                m.d.comb += bus.b.ready.eq(1)
                m.d.sync += outcome.response.eq(bus.b.payload.resp)
                with m.If(bus.b.valid):
                    m.next = "OUTCOME"
            with m.State("READ"):
                m.d.comb += bus.r.ready.eq(1)
                m.d.sync += [
                    outcome.word.eq(bus.r.payload.data),
                    outcome.response.eq(bus.r.payload.resp),
                ]
                with m.If(bus.r.valid):
                    m.next = "OUTCOME"
            with m.State("OUTCOME"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m
