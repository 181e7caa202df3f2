"""Write channel: descriptors become bursts whose data are already here."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from ..interfaces import WriteChannelSignature
from .bursts import BurstSplitter, burst_layout


class WriteChannel(Component):
    """One requester's side of a write port.

    A burst is offered when all its data lie in the buffer (of `depth` words), so that a slow
    requester never holds the bus. `done` comes in the cycle of a descriptor's last answer, `idle`
    is high when every descriptor that was taken has been answered by the memory.

    Latency: four cycles from a descriptor, or two from a burst's last word, to the offer of the
    burst. Throughput: a word a cycle into the buffer; with a buffer of one burst, half the bus.
    Reset drops everything; the port must fill up the bursts that it has accepted (see WritePort).

    Ports
    -----
    channel : the requester.
    burst : to the port. It must have taken all words of a burst before it is answered.
    word : data to the port, in the order of the bursts; high bits strobe, low bits data.
    answered : strobe, the oldest outstanding burst of this channel is done.
    """

    OUTSTANDING = 16

    channel: Any
    burst: stream.Interface
    word: stream.Interface
    answered: Signal

    def __init__(self, bus_bits: int, burst_beats: int, depth: int) -> None:
        if depth < burst_beats:
            raise ValueError(f"a buffer of {depth} words can't hold a burst of {burst_beats}")
        self._bus_bits = bus_bits
        self._burst_beats = burst_beats
        self._depth = max(depth, 2)
        super().__init__(
            {
                "channel": In(WriteChannelSignature(bus_bits)),
                "burst": Out(stream.Signature(burst_layout())),
                "word": Out(stream.Signature(bus_bits + bus_bits // 8)),
                "answered": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.splitter = splitter = BurstSplitter(self._bus_bits, self._burst_beats)
        m.submodules.buffer = buffer = SyncFIFOBuffered(
            width=self._bus_bits + self._bus_bits // 8, depth=self._depth
        )
        connect(m, flipped(self.channel.req), splitter.req)

        present = Signal(range(self._depth + 1))  # words of bursts that were not offered yet
        outstanding = Signal(range(self.OUTSTANDING + 1))
        # Bursts in progress, the oldest lowest: whether they are the last of a descriptor.
        lasts = Signal(self.OUTSTANDING)
        # As of the cycle before, when the same burst was there; it stays true.
        enough = Signal()
        m.d.sync += enough.eq(
            splitter.o.valid
            & (present >= splitter.o.payload.beats)
            & (outstanding != self.OUTSTANDING)
        )
        m.d.comb += [
            self.burst.payload.eq(splitter.o.payload),
            # `present` only grows and `outstanding` only falls while a burst is offered.
            self.burst.valid.eq(splitter.o.valid & enough),
            splitter.o.ready.eq(self.burst.ready & enough),
            buffer.w_data.eq(self.channel.data.payload),
            buffer.w_en.eq(self.channel.data.valid),
            self.channel.data.ready.eq(buffer.w_rdy),
            self.word.payload.eq(buffer.r_data),
            self.word.valid.eq(buffer.r_rdy),
            buffer.r_en.eq(self.word.ready),
            self.channel.done.eq(self.answered & lasts[0]),
            self.channel.idle.eq(~splitter.busy & (outstanding == 0)),
        ]
        offered = self.burst.valid & self.burst.ready
        stored = self.channel.data.valid & self.channel.data.ready
        # The splitter's next burst comes later than this.
        spent = Signal(9)
        m.d.sync += [
            spent.eq(Mux(offered, self.burst.payload.beats, 0)),
            present.eq(present - spent + stored),
        ]
        m.d.sync += outstanding.eq(outstanding + offered - self.answered)
        with m.If(self.answered):
            m.d.sync += lasts.eq(lasts >> 1)
        with m.If(offered):
            at = outstanding - self.answered
            m.d.sync += lasts.bit_select(at[: exact_log2(self.OUTSTANDING)], 1).eq(splitter.last)
        return m
