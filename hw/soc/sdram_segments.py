"""AXI bursts cut into pieces of a row."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from ..axi.bus import address_layout
from .sdram_bus import segment_layout
from .sdram_part import SdramPart


class SegmentCutter(Component):
    """Bursts in, segments out: at most `beats` words, none across a multiple of them.

    An address is a byte; from its lowest bits up it names the column, the bank and the row, so that
    a long burst goes from bank to bank. Latency: two cycles. Throughput: a segment a cycle, and a
    cycle more for each burst. Back-pressure: `i.ready` is low while a burst is cut. Reset: empty.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, part: SdramPart, bus_bits: int, beats: int) -> None:
        self._part, self._bus_bits, self._beats = part, bus_bits, beats
        super().__init__(
            {
                "i": In(stream.Signature(address_layout())),
                "o": Out(stream.Signature(segment_layout(part, beats))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        part = self._part
        offset_bits = exact_log2(self._bus_bits // 8)
        in_segment = exact_log2(self._beats)
        words = self._bus_bits // part.data_bits
        # The address of a bus word, and the words that are left, less one.
        word = Signal(len(self.i.payload.addr) - offset_bits)
        left = Signal(8)
        busy = Signal()

        room = ~word[:in_segment]  # words to the multiple, less one
        last = left <= room
        count = Mux(last, left, room)
        bits = exact_log2(part.columns // words)
        bank = word[bits : bits + part.bank_bits]
        row = word[bits + part.bank_bits :][: part.row_bits]
        beyond = word[bits + part.bank_bits + part.row_bits :]
        m.d.comb += self.i.ready.eq(~busy)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(~busy):
            m.d.sync += [
                word.eq(self.i.payload.addr[offset_bits:]),
                left.eq(self.i.payload.len),
                busy.eq(self.i.valid),
            ]
        with m.Elif(~self.o.valid | self.o.ready):
            m.d.sync += [
                self.o.valid.eq(1),
                self.o.payload.column.eq(word[:bits] << exact_log2(words)),
                self.o.payload.bank.eq(bank),
                self.o.payload.row.eq(row),
                self.o.payload.len.eq(count),
                self.o.payload.last.eq(last),
                self.o.payload.bad.eq(beyond.any()),
                word.eq(Cat(word[:in_segment] & 0, word[in_segment:] + 1)),
                left.eq(left - room - 1),
                busy.eq(~last),
            ]
        return m
