"""Normalised outputs: o / sum(p), to the row memory."""

from __future__ import annotations

from amaranth import Module, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, Signature

from .. import numeric
from ..fp import FromInt, Mul, delay, register
from ..interfaces import RowWriteSignature, row_words
from .accumulate import Accumulator
from .shape import SCALE_BITS, AttentionShape
from .sums import SumStage

reference = numeric.attention_output


class OutputUnit(Component):
    """Writes the words of outputs of tiles that end: numeric.attention_output in binary32.

    `word` and `coming` announce a word, Accumulator.LATENCY cycles before `o` is it; whatever does
    not belong to an item that closes is left out. The row's `factor` and `place` are read, in the
    cycle of the address. A word of `lanes` outputs a cycle, written LATENCY cycles after it was
    announced; `finished` is high a cycle later for the last word of any item. Reset: idle.
    """

    LATENCY = Accumulator.LATENCY + FromInt.LATENCY + Mul.LATENCY

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = s = shape
        c = s.config
        at = {"index": Out(s.index), "lane": Out(s.lane)}
        super().__init__(
            {
                "coming": In(1),
                "word": In(SumStage.word_layout(s)),
                "o": In(data.ArrayLayout(signed(s.o_bits), c.lanes)),
                "factor": Out(Signature(at | {"data": In(s.factor())})),
                "place": Out(Signature(at | {"data": In(s.place())})),
                "o_write": Out(
                    RowWriteSignature(c.chunk, row_words(c, c.longest_row), c.lanes, 32)
                ),
                "finished": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, c = self._shape, self._shape.config

        # The row's factor and place, a cycle before they are used.
        to_factor = Accumulator.LATENCY + FromInt.LATENCY - 1
        word = delay(m, self.word, to_factor, reset_less=True)
        m.d.comb += [self.factor.index.eq(word.tag.index), self.factor.lane.eq(word.tag.lane)]
        factor = register(m, self.factor.data)
        for lane in range(c.lanes):
            m.submodules[f"from_int{lane}"] = from_int = FromInt(s.o_bits)
            m.submodules[f"mul{lane}"] = mul = Mul(SCALE_BITS)
            m.d.comb += [
                from_int.i.eq(self.o[lane]),
                mul.a.eq(from_int.o),
                mul.b.eq(factor.inverse),
                mul.k.eq(factor.scale),
                self.o_write.data.word_select(lane, 32).eq(mul.o),
            ]
        word = delay(m, word, Mul.LATENCY, reset_less=True)
        m.d.comb += [self.place.index.eq(word.tag.index), self.place.lane.eq(word.tag.lane)]
        place = register(m, self.place.data)
        en = delay(m, self.coming, self.LATENCY)
        word = register(m, word)
        within = Signal(range(max(s.beats * s.parts, 2)))
        m.d.comb += within.eq(word.beat * s.parts + (word.part if s.parts > 1 else 0))
        m.d.comb += [
            self.o_write.en.eq(en & word.tag.closes & place.active),
            self.o_write.row.eq(place.token),
            self.o_write.word.eq(place.word + within),
            self.o_write.mask.eq((1 << c.lanes) - 1),
        ]
        m.d.sync += self.finished.eq(en & word.ends)
        return m
