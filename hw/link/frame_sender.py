"""Frames onto the line: flags, stuffing and checksum."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import Component, In, Out

from .protocol import CRC_BYTES, ESCAPE, FLAG, FLIP


def octet_layout() -> data.StructLayout:
    """An octet of a frame; `last` goes with the frame's last one."""
    return data.StructLayout({"octet": unsigned(8), "last": unsigned(1)})


class FrameSender(Component):
    """Puts FLAG, a frame's octets, their CRC-32 and FLAG on the line (see protocol.py).

    Latency: two cycles from a frame's first octet to FLAG. Throughput: an octet every two cycles,
    two more cycles for one that is escaped. Back-pressure: an octet is taken when it is on its
    way, `o.valid` does not wait for `o.ready`. Reset: between frames.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(octet_layout())), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = check = catalog.CRC32_ISO_HDLC(data_width=8).create()
        octet = Signal(8)  # to be sent, stuffed
        rest = Signal(8 * CRC_BYTES)
        left = Signal(range(CRC_BYTES + 1))  # octets of the CRC, while it is sent
        last = Signal()
        free = ~self.o.valid | self.o.ready
        special = (octet == FLAG) | (octet == ESCAPE)

        def go_on() -> None:
            """To what follows an octet that is on its way."""
            with m.If(left != 0):
                m.next = "CRC"
            with m.Elif(last):
                m.next = "CHECK"
            with m.Else():
                m.next = "TAKE"

        def send(value: object) -> None:
            m.d.sync += [self.o.payload.eq(value), self.o.valid.eq(1)]

        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.FSM():
            with m.State("BEGIN"):
                m.d.comb += check.start.eq(1)
                with m.If(self.i.valid & free):
                    send(FLAG)
                    m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += [
                    self.i.ready.eq(1),
                    check.data.eq(self.i.payload.octet),
                    check.valid.eq(self.i.valid),
                ]
                m.d.sync += [octet.eq(self.i.payload.octet), last.eq(self.i.payload.last)]
                with m.If(self.i.valid):
                    m.next = "OCTET"
            with m.State("OCTET"):
                with m.If(free):
                    send(Mux(special, ESCAPE, octet))
                    with m.If(special):
                        m.next = "FLIPPED"
                    with m.Else():
                        go_on()
            with m.State("FLIPPED"):
                with m.If(free):
                    send(octet ^ FLIP)
                    go_on()
            with m.State("CHECK"):
                m.d.sync += [
                    octet.eq(check.crc[:8]),
                    rest.eq(check.crc >> 8),
                    left.eq(CRC_BYTES),
                ]
                m.next = "OCTET"
            with m.State("CRC"):
                m.d.sync += [octet.eq(rest[:8]), rest.eq(rest >> 8), left.eq(left - 1)]
                with m.If(left == 1):
                    m.next = "END"
                with m.Else():
                    m.next = "OCTET"
            with m.State("END"):
                with m.If(free):
                    send(FLAG)
                    m.next = "BEGIN"
        return m
