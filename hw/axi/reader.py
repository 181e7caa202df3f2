"""Read channel: descriptors become bursts that its buffer can hold."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..interfaces import ReadChannelSignature
from .bursts import BurstSplitter, burst_layout


class ReadChannel(Component):
    """One requester's side of a read port: bursts out, their data buffered.

    A burst is offered only when the buffer of `depth` words has room for it on top of all bursts
    under way, so data never wait on the bus. The next descriptor may be taken while data of earlier
    ones are outstanding.

    Latency: five cycles from a descriptor to the offer of its first burst, two from `fill` to the
    channel's data. Throughput: a word a cycle. Reset drops everything; the port must drop the data
    that are still outstanding then (see ReadPort).

    Ports
    -----
    channel : the requester.
    burst : to the port.
    fill : data from the port, always taken.
    """

    channel: Any
    burst: stream.Interface
    fill: stream.Interface

    def __init__(self, bus_bits: int, burst_beats: int, depth: int) -> None:
        if depth < burst_beats:
            raise ValueError(f"a buffer of {depth} words can't hold a burst of {burst_beats}")
        self._bus_bits = bus_bits
        self._burst_beats = burst_beats
        # Below four words the buffer can't take a word in every cycle until it is full.
        self._depth = max(depth, 4)
        super().__init__(
            {
                "channel": In(ReadChannelSignature(bus_bits)),
                "burst": Out(stream.Signature(burst_layout())),
                "fill": In(stream.Signature(bus_bits, always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.splitter = splitter = BurstSplitter(self._bus_bits, self._burst_beats)
        m.submodules.buffer = buffer = SyncFIFOBuffered(width=self._bus_bits, depth=self._depth)
        connect(m, flipped(self.channel.req), splitter.req)

        room = Signal(range(self._depth + 1), init=self._depth)
        # As of the cycle before, when the same burst was there; it stays true.
        enough = Signal()
        m.d.sync += enough.eq(splitter.o.valid & (room >= splitter.o.payload.beats))
        m.d.comb += [
            self.burst.payload.eq(splitter.o.payload),
            # Room only grows while a burst is offered, so the offer stands.
            self.burst.valid.eq(splitter.o.valid & enough),
            splitter.o.ready.eq(self.burst.ready & enough),
            buffer.w_data.eq(self.fill.payload),
            buffer.w_en.eq(self.fill.valid),
            self.channel.data.payload.eq(buffer.r_data),
            self.channel.data.valid.eq(buffer.r_rdy),
            buffer.r_en.eq(self.channel.data.ready),
        ]
        asked = self.burst.valid & self.burst.ready
        freed = Signal()  # a cycle late, which only delays
        m.d.sync += freed.eq(self.channel.data.valid & self.channel.data.ready)
        # The splitter's next burst comes later than this.
        spent = Signal(9)
        m.d.sync += [
            spent.eq(Mux(asked, self.burst.payload.beats, 0)),
            room.eq(room - spent + freed),
        ]
        return m
