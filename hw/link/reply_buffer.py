"""The reply to the last request, kept so that it can be sent again."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from .frame_sender import octet_layout
from .protocol import ANSWER, DATA_BYTES


class ReplyBuffer(Component):
    """Holds a reply's data and sends them behind a header.

    `put` (a strobe) appends `octet`, `clear` (a strobe, never with the other) begins anew. `send`
    (a strobe, while not `busy`) starts a frame of `header` and, with `whole`, the data so far;
    without it of the header alone. The data stay for the next time.

    Latency: two cycles from `send` to the first octet. Throughput: an octet every two cycles.
    Back-pressure: `o` waits as long as one likes; `busy` is high until its last octet is taken.
    Reset: no data, idle.
    """

    put: Signal
    octet: Signal
    clear: Signal
    send: Signal
    header: Signal
    whole: Signal
    busy: Signal
    o: stream.Interface

    def __init__(self, depth: int = DATA_BYTES) -> None:
        self._depth = depth
        super().__init__(
            {
                "put": In(1),
                "octet": In(8),
                "clear": In(1),
                "send": In(1),
                "header": In(8 * ANSWER.size),
                "whole": In(1),
                "busy": Out(1),
                "o": Out(stream.Signature(octet_layout())),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=self._depth, init=[])
        write, read = memory.write_port(), memory.read_port()
        filled = Signal(range(self._depth + 1))
        m.d.comb += [write.addr.eq(filled), write.data.eq(self.octet), write.en.eq(self.put)]
        with m.If(self.put):
            m.d.sync += filled.eq(filled + 1)
        with m.If(self.clear):
            m.d.sync += filled.eq(0)

        header = Signal.like(self.header)
        head = Signal(range(ANSWER.size + 1))  # octets of the header that are left
        at = Signal.like(filled)
        count = Signal.like(filled)
        m.d.comb += [
            read.addr.eq(at),
            self.o.payload.octet.eq(Mux(head != 0, header[:8], read.data)),
            self.o.payload.last.eq((head <= 1) & (at + (head == 0) == count)),
        ]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += [
                    header.eq(self.header),
                    head.eq(ANSWER.size),
                    at.eq(0),
                    count.eq(Mux(self.whole, filled, 0)),
                ]
                with m.If(self.send):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += read.en.eq(1)
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += [read.en.eq(0), self.o.valid.eq(1)]
                with m.If(self.o.ready):
                    m.d.sync += header.eq(header >> 8)
                    with m.If(head != 0):
                        m.d.sync += head.eq(head - 1)
                    with m.Else():
                        m.d.sync += at.eq(at + 1)
                    with m.If(self.o.payload.last):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "FETCH"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m
