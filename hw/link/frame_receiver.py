"""From octets to frames whose checksum holds, buffered."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import crc, stream
from amaranth.lib.crc import catalog
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from .protocol import (
    BUFFER_BYTES,
    BUFFER_FRAMES,
    CRC_BYTES,
    DATA_BYTES,
    ESCAPE,
    FLAG,
    FLIP,
    REQUEST,
)

MOST_OCTETS = REQUEST.size + DATA_BYTES
"""Octets of the longest frame, without its CRC."""


class FrameReceiver(Component):
    """Takes frames off the line and keeps those that are whole (see protocol.py).

    A frame is written to the buffer as it comes, and belongs to it when its CRC-32 has proved
    right; otherwise the next one is written over it. A frame that is shorter than a request's
    header, longer than MOST_OCTETS, broken off, or for which the buffer has no room, is dropped
    as one with a wrong CRC is. Whatever comes before a FLAG spoils nothing after it.

    Latency: four cycles from the FLAG at a frame's end to its first octet. Throughput: an octet a
    cycle in, one every two cycles out. Back-pressure: none on the line's side; a frame waits in
    the buffer as long as one likes. Reset: the buffer is empty, everything up to a FLAG is
    dropped.

    Ports
    -----
    i : octets of the line.
    o : octets of the oldest frame, without its CRC. length : of that frame, while it is offered;
        steady until its last octet is taken.
    """

    i: stream.Interface
    o: stream.Interface
    length: Signal

    def __init__(
        self, buffer_bytes: int = BUFFER_BYTES, buffer_frames: int = BUFFER_FRAMES
    ) -> None:
        self._address_bits = exact_log2(buffer_bytes)
        self._frames = buffer_frames
        super().__init__(
            {
                "i": In(stream.Signature(8, always_ready=True)),
                "o": Out(stream.Signature(8)),
                "length": Out(range(MOST_OCTETS + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = check = catalog.CRC32_ISO_HDLC(data_width=8).create()
        m.submodules.memory = memory = Memory(shape=8, depth=BUFFER_BYTES, init=[])
        m.submodules.lengths = lengths = SyncFIFO(width=len(self.length), depth=BUFFER_FRAMES)
        position = exact_log2(BUFFER_BYTES) + 1  # one bit more tells full from empty
        write, begin, read = Signal(position), Signal(position), Signal(position)
        self._elaborate_line(m, check, memory, lengths, write, begin, read)
        self._elaborate_output(m, memory, lengths, read)
        return m

    def _elaborate_line(
        self,
        m: Module,
        check: crc.Processor,
        memory: Memory,
        lengths: SyncFIFO,
        write: Signal,
        begin: Signal,
        read: Signal,
    ) -> None:
        """Octets into the buffer from `begin` on, which moves when they are a whole frame."""
        count = Signal(range(MOST_OCTETS + CRC_BYTES + 1))
        good = Signal()  # nothing is wrong with the frame so far
        escaped = Signal()
        octet = Signal(8)
        flag = self.i.valid & (self.i.payload == FLAG)
        escape = self.i.valid & (self.i.payload == ESCAPE) & ~flag
        used = Signal.like(write)
        full = used[-1]
        long = count == MOST_OCTETS + CRC_BYTES

        port = memory.write_port()
        take = Signal()
        m.d.comb += [
            used.eq(write - read),
            octet.eq(self.i.payload ^ (escaped << exact_log2(FLIP))),
            take.eq(self.i.valid & ~flag & ~escape & good & ~full & ~long),
            port.addr.eq(write[:-1]),
            port.data.eq(octet),
            port.en.eq(take),
            check.data.eq(octet),
            check.valid.eq(take),
            check.start.eq(flag),
        ]
        with m.If(self.i.valid):
            m.d.sync += escaped.eq(escape)
        with m.If(take):
            m.d.sync += [write.eq(write + 1), count.eq(count + 1)]
        with m.Elif(self.i.valid & ~flag & ~escape):
            m.d.sync += good.eq(0)

        whole = Signal()
        m.d.comb += [
            whole.eq(
                flag
                & good
                & ~escaped
                & (count >= REQUEST.size + CRC_BYTES)
                & check.match_detected
                & lengths.w_rdy
            ),
            lengths.w_data.eq(count - CRC_BYTES),
            lengths.w_en.eq(whole),
        ]
        with m.If(flag):
            m.d.sync += [good.eq(1), count.eq(0), write.eq(begin)]
            with m.If(whole):
                m.d.sync += [begin.eq(write - CRC_BYTES), write.eq(write - CRC_BYTES)]

    def _elaborate_output(self, m: Module, memory: Memory, lengths: SyncFIFO, read: Signal) -> None:
        port = memory.read_port()
        left = Signal.like(self.length)  # octets of the frame that are not out yet
        m.d.comb += [port.addr.eq(read[:-1]), self.o.payload.eq(port.data)]
        with m.FSM():
            with m.State("NEXT"):
                m.d.comb += lengths.r_en.eq(lengths.r_rdy)
                m.d.sync += [self.length.eq(lengths.r_data), left.eq(lengths.r_data)]
                with m.If(lengths.r_rdy):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += port.en.eq(1)
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += [self.o.valid.eq(1), port.en.eq(0)]
                with m.If(self.o.ready):
                    m.d.sync += [read.eq(read + 1), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "NEXT"
                    with m.Else():
                        m.next = "FETCH"
