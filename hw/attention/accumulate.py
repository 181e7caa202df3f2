"""Unnormalised outputs of all rows on chip: rescale and add, a word at a time."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, Value, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature

from ..choose import choose
from ..fp import delay, register
from .shape import BLOCK, RISE_BITS, SUM_BITS, AttentionShape
from .sums import SumStage

_SHIFTS = (4, 2, 0)
"""The rise's two bits that each stage shifts by."""


def _extended(value: Value, bits: int) -> Value:
    return Cat(value, value[-1].replicate(bits - len(value)))


class Accumulator(Component):
    """o = (o >> rise) + sums, for a word of a row; 0 + sums where it is the row's `first` block.

    `word` and `coming` announce the word, SumStage.ANNOUNCED cycles before part `word.part` of
    `sums` is its sums;
    `rise` is asked for one cycle after the announcement. Rescaling is an arithmetic right shift
    (floor); an output has shape.o_bits, which hold the sum over the longest context. LATENCY
    cycles after the announcement `o` is the new word; it is kept, too. A word may come again
    LATENCY cycles after it was announced; one word a cycle. No reset: rows start with `first`.
    """

    LATENCY = SumStage.ANNOUNCED + 1

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = s = shape
        lanes = s.config.lanes
        super().__init__(
            {
                "coming": In(1),
                "word": In(SumStage.word_layout(s)),
                "sums": In(data.ArrayLayout(signed(SUM_BITS), s.dims)),
                "rise": Out(
                    Signature({"index": Out(s.index), "lane": Out(s.lane), "data": In(s.rise())})
                ),
                "o": Out(data.ArrayLayout(signed(s.o_bits), lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, lanes, word = self._shape, self._shape.config.lanes, self.word
        m.submodules.outputs = outputs = memory.Memory(
            shape=lanes * s.o_bits,
            depth=s.max_rows * s.beats * s.parts,
            init=[],
            attrs=BLOCK,
        )
        write, read = outputs.write_port(), outputs.read_port()

        # 1 address, 2 memory, 3 its output register
        row = word.tag.tile * s.rows + word.tag.lane
        part = word.part if s.parts > 1 else 0
        address = register(m, (row * s.beats + word.beat) * s.parts + part)
        m.d.comb += [read.addr.eq(address), read.en.eq(1)]
        before = register(m, read.data)
        tag = delay(m, word.tag, 2, reset_less=True)
        m.d.comb += [self.rise.index.eq(tag.index), self.rise.lane.eq(tag.lane)]
        rise = register(m, self.rise.data)

        # 4 to 6 shift by powers of four, 7 add
        shifts = Signal(RISE_BITS)
        m.d.comb += shifts.eq(rise.rise)
        values = [before.word_select(i, s.o_bits).as_signed() for i in range(lanes)]
        for stage, low in enumerate(_SHIFTS):
            begins = rise.first if stage == 0 else 0
            shifted = [Signal(signed(s.o_bits), reset_less=True) for _ in range(lanes)]
            for value, to in zip(values, shifted, strict=True):
                options = [value >> (n << low) for n in range(4)]
                with m.If(begins):
                    m.d.sync += to.eq(0)
                with m.Else():
                    m.d.sync += to.eq(choose(shifts[low : low + 2], options).as_signed())
            # With a reset: what a shift register of LUTs gives comes late for a multiplexer.
            values, shifts = shifted, delay(m, shifts, 1)
        part = delay(m, word.part, SumStage.ANNOUNCED, reset_less=True)
        for i, value in enumerate(values):
            # As wide as the output: so the choice fits in the adder's LUTs.
            parts = [_extended(self.sums[n * lanes + i], s.o_bits) for n in range(s.parts)]
            m.d.sync += self.o[i].eq(value + choose(part, parts).as_signed())
        to_write = self.LATENCY - 1
        m.d.comb += [
            write.addr.eq(delay(m, address, to_write, reset_less=True)),
            write.data.eq(Cat(*self.o)),
            write.en.eq(delay(m, self.coming, self.LATENCY)),
        ]
        return m
