"""Running maxima of rows: what the online softmax scales its weights to."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from .. import numeric
from ..fp import delay, register
from .shape import DISTRIBUTED, MAX_BITS, RISE_BITS, SCALE_BITS, AttentionShape
from .weights import entry_layout

_LOWEST = -(1 << (MAX_BITS - 1))


def larger(a: Value, b: Value) -> Value:
    """The maximum of two values of one shape."""
    return Mux(a > b, a, b)


class Maxima(Component):
    """Takes in the entries of a row, `attention_pipes` a cycle, from one that `begins` to one that
    `ends` it, and keeps the maxima of floor(score) and floor(score) + exponent of V's scale over
    all blocks of the row. `first` says that a row begins with this block; masked entries count for
    nothing.

    `max_p` and `max_w` hold a row's maxima from `latency` cycles after its last entry until those
    of the next. One cycle later come `risen` for a cycle, and until the next row `o_tag`, `rise_p`
    and `rise_w` (how far they rose, at most 63), `first_row`, and `scale`, the power of two between
    numerator and denominator. A row may come again 3 cycles after its last entry. No reset: rows
    start with `first`.
    """

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = s = shape
        pipes = s.config.attention_pipes
        self.latency = 3 + exact_log2(pipes)
        maximum, rise = signed(MAX_BITS), unsigned(RISE_BITS)
        super().__init__(
            {
                "en": In(1),
                "begins": In(1),
                "ends": In(1),
                "tag": In(s.tag()),
                "first": In(1),
                "entries": In(data.ArrayLayout(entry_layout(), pipes)),
                "max_p": Out(maximum),
                "max_w": Out(maximum),
                "risen": Out(1),
                "o_tag": Out(s.tag()),
                "rise_p": Out(rise),
                "rise_w": Out(rise),
                "first_row": Out(1),
                "scale": Out(signed(SCALE_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s = self._shape

        # The largest of a cycle's entries, then of the row's cycles.
        levels = exact_log2(s.config.attention_pipes)
        wholes: list[Value] = []
        raised: list[Value] = []
        for entry in self.entries:
            whole = entry.score[numeric.SCORE_FRACTION :].as_signed()
            for values, value in ((wholes, whole), (raised, whole + entry.exponent)):
                masked = Signal(signed(MAX_BITS), name="masked", reset_less=True)
                m.d.sync += masked.eq(Mux(entry.seen, value, _LOWEST))
                values.append(masked)
        before = 1 + levels
        en = delay(m, self.en, before)
        begins = delay(m, self.begins, before, reset_less=True)
        blocks = []
        for values in (wholes, raised):
            while len(values) > 1:
                pairs = zip(values[::2], values[1::2], strict=True)
                values = [register(m, larger(a, b)) for a, b in pairs]
            block = Signal(signed(MAX_BITS), name="block", reset_less=True)
            with m.If(en & (begins | (values[0] > block))):
                m.d.sync += block.eq(values[0])
            blocks.append(block)

        # Against those of the blocks before.
        ends = delay(m, self.en & self.ends, before + 1)
        tag = delay(m, self.tag, before + 1, reset_less=True)
        first = delay(m, self.first, before + 1, reset_less=True)
        layout = data.StructLayout({"p": signed(MAX_BITS), "w": signed(MAX_BITS)})
        m.submodules.states = states = memory.Memory(
            shape=layout, depth=s.max_rows, init=[], attrs=DISTRIBUTED
        )
        write, read = states.write_port(), states.read_port(domain="comb")
        row = tag.tile * s.rows + tag.lane
        old = Signal(layout, reset_less=True)
        with m.If(ends):
            m.d.sync += old.eq(read.data)
            for block, maximum, former in (
                (blocks[0], self.max_p, read.data.p),
                (blocks[1], self.max_w, read.data.w),
            ):
                m.d.sync += maximum.eq(Mux(first | (block > former), block, former))
        done = delay(m, ends, 1)
        m.d.comb += [
            read.addr.eq(row),
            write.addr.eq(register(m, row)),
            write.en.eq(done),
            write.data.p.eq(self.max_p),
            write.data.w.eq(self.max_w),
        ]

        most = (1 << RISE_BITS) - 1
        m.d.sync += self.risen.eq(done)
        tag, first = register(m, tag), register(m, first)
        with m.If(done):
            m.d.sync += [
                self.o_tag.eq(tag),
                self.first_row.eq(first),
                self.scale.eq(self.max_w - self.max_p + (3 - 127)),
            ]
            for rise, maximum, former in (
                (self.rise_p, self.max_p, old.p),
                (self.rise_w, self.max_w, old.w),
            ):
                rises = Signal(signed(MAX_BITS + 1), name="rises")
                m.d.comb += rises.eq(maximum - former)
                m.d.sync += rise.eq(Mux(rises[RISE_BITS:].any(), most, rises[:RISE_BITS]))
        return m
