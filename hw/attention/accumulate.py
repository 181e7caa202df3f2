"""Unnormalised outputs of all rows on chip: rescale and add, a block at a time."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature

from ..fp import delay, register
from .shape import RISE_BITS, SUM_BITS, AttentionShape


class Accumulator(Component):
    """o = (o >> rise) + sums, for each row of a group and one word of its head.

    `add` brings the sums of all rows at once with the item they belong to; rows not `active` are
    left alone, rows in `first` start at zero. Rows are served one a cycle, so that an `add` may
    follow only MIN_PERIOD(rows) cycles after another. Rescaling is an arithmetic right shift
    (floor); an output has shape.o_bits, which hold the sum over the longest context.

    `read` gives a word (lane 0 lowest) READ_LATENCY cycles after its address while nothing is
    added: LATENCY + rows cycles after the last `add`. No reset: contents are undefined until first
    added.
    """

    READ_LATENCY = 3
    LATENCY = 8

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        self.min_period = max(shape.rows, self.LATENCY)
        """Cycles between two `add`: no word is read before it was written back."""
        super().__init__(
            {
                "add": In(
                    Signature(
                        {
                            "en": Out(1),
                            "tag": Out(self.tag_layout(shape)),
                            "sums": Out(self._sums_layout(shape)),
                        }
                    )
                ),
                "read": In(
                    Signature(
                        {
                            "row": Out(shape.row),
                            "beat": Out(shape.beat),
                            "data": In(data.ArrayLayout(signed(shape.o_bits), shape.dims)),
                        }
                    )
                ),
            }
        )

    @staticmethod
    def tag_layout(shape: AttentionShape) -> data.StructLayout:
        return data.StructLayout(
            {
                "group": shape.group,
                "beat": shape.beat,
                "active": unsigned(shape.rows),
                "first": unsigned(shape.rows),
                "rise": data.ArrayLayout(RISE_BITS, shape.rows),
            }
        )

    @staticmethod
    def _sums_layout(shape: AttentionShape) -> data.ArrayLayout:
        return data.ArrayLayout(data.ArrayLayout(signed(SUM_BITS), shape.dims), shape.rows)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, ar = self._shape, self._shape.rows
        held = Signal(self.tag_layout(s), reset_less=True)
        sums = Signal(self._sums_layout(s), reset_less=True)
        row = Signal(range(max(ar, 2)))
        serving = Signal()
        with m.If(serving):
            m.d.sync += row.eq(row + 1)
            with m.If(row == ar - 1):
                m.d.sync += serving.eq(0)
        with m.If(self.add.en):
            m.d.sync += [serving.eq(1), row.eq(0), held.eq(self.add.tag), sums.eq(self.add.sums)]

        m.submodules.outputs = outputs = memory.Memory(
            shape=s.dims * s.o_bits, depth=s.max_rows * s.beats, init=[]
        )
        write, read = outputs.write_port(), outputs.read_port()
        # 1 address, 2 memory, 3 its output register
        out_row = Mux(serving, held.group * ar + row, self.read.row)
        address = register(m, out_row * s.beats + Mux(serving, held.beat, self.read.beat))
        m.d.comb += [read.addr.eq(address), read.en.eq(1)]
        word = register(m, read.data)
        m.d.comb += self.read.data.eq(word)
        en = delay(m, serving & held.active.bit_select(row, 1), 3)
        first = delay(m, held.first.bit_select(row, 1), 3, reset_less=True)
        rise = delay(m, held.rise[row], 3, reset_less=True)
        summand = delay(m, sums[row], 5, reset_less=True)
        address = delay(m, address, 5, reset_less=True)

        # 4 shift by eights, 5 by ones, 6 add
        fine = register(m, rise[:3])
        lanes = []
        for lane in range(s.dims):
            old = word.word_select(lane, s.o_bits).as_signed()
            coarse = register(m, Mux(first, 0, old >> (rise[3:] << 3)))
            shifted = register(m, coarse >> fine)
            lanes.append(register(m, (shifted + summand[lane])[: s.o_bits]))
        m.d.comb += [
            write.addr.eq(address),
            write.data.eq(Cat(lanes)),
            write.en.eq(delay(m, en, 3)),
        ]
        return m
