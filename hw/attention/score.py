"""From exact dot products to scores in the base-2 logarithm domain, and their block maxima."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature

from .. import numeric
from ..config import KV_BLOCK
from ..fp import FromInt, Mul, ToInt, delay, register
from .shape import DOT_BITS, MAX_BITS, SLOTS, AttentionShape

reference = numeric.score


class ScorePipe(Component):
    """`o` = numeric.score(dot, q_scale, k_scale): 32 bits, 22 of them fraction.

    Feed-forward: a result every cycle, LATENCY cycles after its operands. No reset.
    """

    _FRONT = max(FromInt.LATENCY, Mul.LATENCY)
    LATENCY = _FRONT + Mul.LATENCY + ToInt.LATENCY

    def __init__(self) -> None:
        super().__init__(
            {
                "dot": In(signed(DOT_BITS)),
                "q_scale": In(32),
                "k_scale": In(32),
                "o": Out(signed(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.from_int = from_int = FromInt(DOT_BITS)
        m.submodules.scales = scales = Mul()
        m.submodules.mul = mul = Mul()
        m.submodules.to_int = to_int = ToInt(32, numeric.SCORE_FRACTION, 1 - 2**31, 2**31 - 1)
        m.d.comb += [
            from_int.i.eq(self.dot),
            scales.a.eq(self.q_scale),
            scales.b.eq(self.k_scale),
            mul.a.eq(delay(m, from_int.o, self._FRONT - FromInt.LATENCY, reset_less=True)),
            mul.b.eq(delay(m, scales.o, self._FRONT - Mul.LATENCY, reset_less=True)),
            to_int.i.eq(mul.o),
            self.o.eq(to_int.o),
        ]
        return m


def entry_layout() -> data.StructLayout:
    """A score with what the weights need of V's scale; `seen` is low for a masked position."""
    return data.StructLayout(
        {
            "score": signed(32),
            "exponent": unsigned(8),
            "mantissa": unsigned(23),  # below the leading one
            "seen": unsigned(1),
        }
    )


class ScorePass(Component):
    """Scores of items (see AttentionShape.item), each in one of two halves, 0 first, alternating.

    `begin` announces the item in half `begin_half`; its dot products then arrive as `dot`, one
    position a cycle at most, positions in order, all rows at once. They wait in a memory and go
    one a cycle through one ScorePipe. `done` (a bit a half, one cycle) says that all scores of an
    item can be read through `entry`, ENTRY_LATENCY cycles after the address, and that `max_p` and
    `max_w` hold each row's largest floor(score) and floor(score) + exponent of V's scale over the
    positions that the row sees. Both stay until the next `begin` on that half.

    An item takes (last + 1) * rows cycles, begun while its dot products still arrive, and
    LATENCY more. Reset: nothing announced.
    """

    _READ = 3
    LATENCY = _READ + ScorePipe.LATENCY + 3
    ENTRY_LATENCY = 2

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = shape
        ar = shape.rows
        half_maxima = data.ArrayLayout(data.ArrayLayout(signed(MAX_BITS), ar), 2)
        j = Out(range(KV_BLOCK))
        row = Out(range(max(ar, 2)))
        super().__init__(
            {
                "items": In(data.ArrayLayout(shape.item(), 2)),
                "begin": In(1),
                "begin_half": In(1),
                "dot": In(
                    Signature(
                        {
                            "en": Out(1),
                            "half": Out(1),
                            "j": j,
                            "data": Out(data.ArrayLayout(signed(DOT_BITS), ar)),
                        }
                    )
                ),
                "scale": Out(
                    Signature({"slot": Out(range(SLOTS)), "j": j, "k": In(32), "v": In(32)})
                ),
                "done": Out(2),
                "max_p": Out(half_maxima),
                "max_w": Out(half_maxima),
                "entry": In(
                    Signature({"half": Out(1), "row": row, "j": j, "data": In(entry_layout())})
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ar = self._shape.rows

        m.submodules.dots = dots = memory.Memory(shape=ar * DOT_BITS, depth=2 * KV_BLOCK, init=[])
        write, read = dots.write_port(), dots.read_port()
        m.d.comb += [
            write.addr.eq(Cat(self.dot.j, self.dot.half)),
            write.data.eq(self.dot.data),
            write.en.eq(self.dot.en),
        ]

        # One score a cycle, rows innermost.
        pending = Signal(2)
        written = Signal(data.ArrayLayout(range(KV_BLOCK + 1), 2))
        half = Signal()
        row = Signal(range(max(ar, 2)))
        j = Signal(range(KV_BLOCK))
        item = self.items[half]
        step = pending.bit_select(half, 1) & (written[half] > j)
        last = (row == ar - 1) & (j == item.last)
        with m.If(step):
            m.d.sync += row.eq(row + 1)
            with m.If(row == ar - 1):
                m.d.sync += [row.eq(0), j.eq(j + 1)]
            with m.If(last):
                m.d.sync += [j.eq(0), half.eq(~half), pending.bit_select(half, 1).eq(0)]
        with m.If(self.dot.en):
            m.d.sync += written[self.dot.half].eq(written[self.dot.half] + 1)
        with m.If(self.begin):
            m.d.sync += [
                pending.bit_select(self.begin_half, 1).eq(1),
                written[self.begin_half].eq(0),
            ]

        tag = Signal(
            data.StructLayout(
                {
                    "en": 1,
                    "last": 1,
                    "half": 1,
                    "row": row.shape(),
                    "j": j.shape(),
                    "seen": 1,
                }
            )
        )
        q_scale = Signal(32)
        m.d.comb += [
            tag.en.eq(step),
            tag.last.eq(last),
            tag.half.eq(half),
            tag.row.eq(row),
            tag.j.eq(j),
            tag.seen.eq(item.active.bit_select(row, 1) & (item.limit[row] >= j)),
            q_scale.eq(item.scale[row]),
            self.scale.slot.eq(item.slot),
            self.scale.j.eq(j),
            read.addr.eq(register(m, Cat(j, half))),
            read.en.eq(1),
        ]
        tag = delay(m, tag, self._READ)
        dot_row = delay(m, row, 2, reset_less=True)
        m.submodules.pipe = pipe = ScorePipe()
        m.d.comb += [
            pipe.dot.eq(register(m, read.data.word_select(dot_row, DOT_BITS))),
            pipe.q_scale.eq(delay(m, q_scale, self._READ, reset_less=True)),
            pipe.k_scale.eq(self.scale.k),
        ]
        v_scale = delay(m, self.scale.v, ScorePipe.LATENCY, reset_less=True)
        tag = delay(m, tag, ScorePipe.LATENCY)

        # Entries of the weights' pass.
        row_bits = len(row)
        m.submodules.entries = entries = memory.Memory(
            shape=entry_layout(), depth=2 * KV_BLOCK << row_bits, init=[]
        )
        write, read = entries.write_port(), entries.read_port()
        m.d.comb += [
            write.addr.eq(Cat(tag.j, tag.row, tag.half)),
            write.en.eq(tag.en),
            write.data.score.eq(pipe.o),
            write.data.exponent.eq(v_scale[23:31]),
            write.data.mantissa.eq(v_scale[:23]),
            write.data.seen.eq(tag.seen),
            read.addr.eq(Cat(self.entry.j, self.entry.row, self.entry.half)),
            read.en.eq(1),
            self.entry.data.eq(register(m, read.data)),
        ]

        # Block maxima.
        whole = Signal(signed(MAX_BITS), reset_less=True)
        raised = Signal(signed(MAX_BITS), reset_less=True)
        m.d.sync += [
            whole.eq(pipe.o >> numeric.SCORE_FRACTION),
            raised.eq((pipe.o >> numeric.SCORE_FRACTION) + v_scale[23:31]),
        ]
        tag = delay(m, tag, 1)
        lowest = -(1 << (MAX_BITS - 1))
        for h in range(2):
            for a in range(ar):
                here = tag.en & tag.seen & (tag.half == h) & (tag.row == a)
                with m.If(here & (whole > self.max_p[h][a])):
                    m.d.sync += self.max_p[h][a].eq(whole)
                with m.If(here & (raised > self.max_w[h][a])):
                    m.d.sync += self.max_w[h][a].eq(raised)
            with m.If(self.begin & (self.begin_half == h)):
                m.d.sync += [self.max_p[h][a].eq(lowest) for a in range(ar)]
                m.d.sync += [self.max_w[h][a].eq(lowest) for a in range(ar)]
        m.d.sync += self.done.eq(Mux(tag.en & tag.last, Mux(tag.half, 2, 1), 0))
        return m
