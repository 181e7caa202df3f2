"""Online softmax: running maxima, weights of a block, denominators."""

from __future__ import annotations

from amaranth import C, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature

from .. import numeric
from ..config import KV_BLOCK
from ..fp import Exp2Fraction, delay, register
from .score import ScorePass, entry_layout
from .shape import MAX_BITS, RISE_BITS, WEIGHT_BITS, AttentionShape

_SHIFT_BITS = 5
_P_SHIFT_MAX = 25  # 24 bits are gone
_W_SHIFT_MAX = 23  # on top of W_SHIFT: 48 bits are gone


def _clamp(m: Module, value: Value, high: int) -> Signal:
    """A value that is not negative, at most `high`, as an unsigned signal."""
    o = Signal(range(high + 1))
    m.d.comb += o.eq(Mux(value > high, high, value))
    return o


class WeightPass(Component):
    """Weights of items, in the order of ScorePass, and the state of their rows.

    For an item whose scores are `done`: running maxima take in the block's; then for each row and
    position p and w of numeric.attention_weights; w goes to a memory that all rows are read from
    at once (`weight`, READ_LATENCY cycles after the address), p sums to the row's denominator,
    which is first shifted right by the rise of its maximum. `rise` holds the rise of max_w by row,
    for the outputs. `ready` (a bit a half) is high from the end of an item's pass to the next
    `begin` on that half.

    The first item of a pass of queries (`opens`) waits for `closed`, a strobe: the states of the
    pass before have been used. `state` reads a row's state one cycle after the address, while no
    item is in work. An item takes rows * (last + 2) cycles and LATENCY more. Reset: idle.
    """

    _PRODUCT = 3
    _FRONT = ScorePass.ENTRY_LATENCY + 1
    LATENCY = _FRONT + Exp2Fraction.LATENCY + _PRODUCT + 8

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
                "done": In(2),
                "max_p": In(half_maxima),
                "max_w": In(half_maxima),
                "entry": Out(
                    Signature({"half": Out(1), "row": row, "j": j, "data": In(entry_layout())})
                ),
                "weight": In(
                    Signature(
                        {
                            "half": Out(1),
                            "j": j,
                            "data": In(data.ArrayLayout(WEIGHT_BITS, ar)),
                        }
                    )
                ),
                "ready": Out(2),
                "rise": Out(data.ArrayLayout(data.ArrayLayout(RISE_BITS, ar), 2)),
                "closed": In(1),
                "state": In(Signature({"row": Out(shape.row), "data": In(shape.state())})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, ar = self._shape, self._shape.rows
        half = Signal()
        row = Signal(range(max(ar, 2)))
        j = Signal(range(KV_BLOCK))
        item = self.items[half]
        scored = Signal(2)
        open_pass = Signal()
        maxing, weighing = Signal(), Signal()
        finished = Signal()

        with m.FSM(name="weights"):
            with m.State("WAIT"):
                with m.If(scored.bit_select(half, 1) & ~(item.opens & open_pass)):
                    m.d.sync += scored.bit_select(half, 1).eq(0)
                    with m.If(item.opens):
                        m.d.sync += open_pass.eq(1)
                    m.next = "MAXIMA"
            with m.State("MAXIMA"):
                m.d.comb += maxing.eq(1)
                m.d.sync += row.eq(row + 1)
                with m.If(row == ar - 1):
                    m.d.sync += row.eq(0)
                    m.next = "SETTLE0"
            for n in range(4):  # until the last row's maxima are there
                with m.State(f"SETTLE{n}"):
                    m.next = f"SETTLE{n + 1}" if n < 3 else "WEIGHTS"
            with m.State("WEIGHTS"):
                m.d.comb += weighing.eq(1)
                m.d.sync += j.eq(j + 1)
                with m.If(j == item.last):
                    m.d.sync += [j.eq(0), row.eq(row + 1)]
                    with m.If(row == ar - 1):
                        m.d.sync += row.eq(0)
                        m.next = "DRAIN"
            with m.State("DRAIN"):
                with m.If(finished):
                    m.d.sync += [half.eq(~half), self.ready.bit_select(half, 1).eq(1)]
                    m.next = "WAIT"
        with m.If(self.closed):
            m.d.sync += open_pass.eq(0)
        for h in range(2):
            with m.If(self.done[h]):
                m.d.sync += scored[h].eq(1)
        with m.If(self.begin):
            m.d.sync += self.ready.bit_select(self.begin_half, 1).eq(0)

        # Row states.
        m.submodules.states = states = memory.Memory(shape=s.state(), depth=s.max_rows, init=[])
        state_write, state_read = states.write_port(), states.read_port()
        m.d.comb += [
            state_read.en.eq(1),
            state_read.addr.eq(Mux(maxing, item.group * ar + row, self.state.row)),
            self.state.data.eq(state_read.data),
        ]

        # Maxima: 1 read, 2 compare, 3 rise, 4 shift the denominator.
        new_p = Signal(data.ArrayLayout(signed(MAX_BITS), ar))
        new_w = Signal(data.ArrayLayout(signed(MAX_BITS), ar))
        new_l = Signal(data.ArrayLayout(s.l_bits, ar))
        old = state_read.data
        en1, row1 = delay(m, maxing, 1), register(m, row)
        first = item.first.bit_select(row1, 1)
        block_p, block_w = self.max_p[half][row1], self.max_w[half][row1]
        max_p, max_w = Signal(signed(MAX_BITS)), Signal(signed(MAX_BITS))
        m.d.sync += [
            max_p.eq(Mux(first | (block_p > old.max_p), block_p, old.max_p)),
            max_w.eq(Mux(first | (block_w > old.max_w), block_w, old.max_w)),
        ]
        en2, row2, old2 = delay(m, en1, 1), register(m, row1), register(m, old)
        first2 = register(m, first)
        most = (1 << RISE_BITS) - 1
        rise_p = register(m, _clamp(m, max_p - old2.max_p, most))
        rise_w = register(m, _clamp(m, max_w - old2.max_w, most))
        en3, row3, old3 = delay(m, en2, 1), register(m, row2), register(m, old2)
        first3, max_p3, max_w3 = register(m, first2), register(m, max_p), register(m, max_w)
        with m.If(en3):
            m.d.sync += [
                new_p[row3].eq(max_p3),
                new_w[row3].eq(max_w3),
                new_l[row3].eq(Mux(first3, 0, old3.l >> rise_p)),
                self.rise[half][row3].eq(rise_w),
            ]

        # Weights.
        m.d.comb += [
            self.entry.half.eq(half),
            self.entry.row.eq(row),
            self.entry.j.eq(j),
        ]
        tag = Signal(data.StructLayout({"en": 1, "row": row.shape(), "j": j.shape(), "last": 1}))
        m.d.comb += [
            tag.en.eq(weighing),
            tag.row.eq(row),
            tag.j.eq(j),
            tag.last.eq(j == item.last),
        ]
        tag = delay(m, tag, ScorePass.ENTRY_LATENCY)
        entry = self.entry.data
        whole = Signal(signed(MAX_BITS))
        m.d.comb += whole.eq(entry.score >> numeric.SCORE_FRACTION)
        row_p = delay(m, new_p[row], ScorePass.ENTRY_LATENCY, reset_less=True)
        row_w = delay(m, new_w[row], ScorePass.ENTRY_LATENCY, reset_less=True)
        fall_p = register(m, row_p - whole)
        fall_w = register(m, row_w - whole - entry.exponent)
        tag = delay(m, tag, 1)
        seen = register(m, entry.seen)
        mantissa = register(m, Cat(entry.mantissa, entry.exponent.any()))
        mantissa = Mux(mantissa[23], mantissa, 0)
        m.submodules.exp2 = exp2 = Exp2Fraction()
        m.d.comb += exp2.i.eq(register(m, entry.score[: numeric.SCORE_FRACTION]))

        down_p = register(m, Mux(seen, _clamp(m, fall_p, _P_SHIFT_MAX), _P_SHIFT_MAX))
        down_w = register(m, Mux(seen, _clamp(m, fall_w, _W_SHIFT_MAX), _W_SHIFT_MAX))
        wait = Exp2Fraction.LATENCY - 1 + self._PRODUCT
        down_p = delay(m, down_p, wait, reset_less=True)
        down_w = delay(m, down_w, wait, reset_less=True)
        e = exp2.o
        mantissa = delay(m, register(m, mantissa), Exp2Fraction.LATENCY - 1, reset_less=True)
        factors = register(m, e), register(m, mantissa)
        product = delay(m, factors[0] * factors[1], self._PRODUCT - 1, reset_less=True)
        e = delay(m, e, self._PRODUCT, reset_less=True)
        tag = delay(m, tag, Exp2Fraction.LATENCY + self._PRODUCT)

        # Round half up: shift with one bit more, then add that bit.
        wide_p = register(m, Cat(C(0, 1), e) >> down_p)
        wide_w = register(m, product[numeric.W_SHIFT - 1 :] >> down_w)
        p = register(m, (wide_p >> 1) + wide_p[0])
        w = register(m, (wide_w >> 1) + wide_w[0])
        tag = delay(m, tag, 2)

        begins = Signal(init=1)
        total = Signal(s.l_bits, reset_less=True)
        sum_l = Signal(s.l_bits)
        m.d.comb += sum_l.eq(Mux(begins, new_l[tag.row], total) + p)
        active = item.active.bit_select(tag.row, 1)
        with m.If(tag.en):
            m.d.sync += [total.eq(sum_l), begins.eq(tag.last)]
        write = Signal(s.state())
        m.d.comb += [
            write.max_p.eq(new_p[tag.row]),
            write.max_w.eq(new_w[tag.row]),
            write.l.eq(sum_l),
            finished.eq(tag.en & tag.last & (tag.row == ar - 1)),
        ]
        m.d.sync += [
            state_write.en.eq(tag.en & tag.last & active),
            state_write.addr.eq(item.group * ar + tag.row),
            state_write.data.eq(write),
        ]

        # The weights' memory: a bank a row, because all rows are read together.
        at = register(m, Cat(self.weight.j, self.weight.half))
        for a in range(ar):
            m.submodules[f"bank{a}"] = bank = memory.Memory(
                shape=unsigned(WEIGHT_BITS), depth=2 * KV_BLOCK, init=[]
            )
            port, read = bank.write_port(), bank.read_port()
            m.d.comb += [
                port.addr.eq(Cat(tag.j, half)),
                port.data.eq(w),
                port.en.eq(tag.en & (tag.row == a)),
                read.addr.eq(at),
                read.en.eq(1),
                self.weight.data[a].eq(register(m, read.data)),
            ]
        return m
