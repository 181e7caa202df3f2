"""Denominators of rows: sums of weights over positions."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from ..fp import delay, register
from .shape import DISTRIBUTED, RISE_BITS, SCALE_BITS, AttentionShape

_TO_SUM = 3
"""Cycles from a row's last weights to the shifted denominator."""


class Denominators(Component):
    """l = (l >> rise_p) + sum of p, for each row; 0 + sum where it is `first_row`.

    Takes weights `attention_pipes` a cycle, from a cycle that `begins` a row to one that `ends` it;
    `rise_p`, `first_row`, `tag` and `scale` belong to the row. LATENCY cycles after the last one
    `done` is high for a cycle, with `l` and the row's `o_tag` and `o_scale`. A row may come again
    LATENCY + 1 cycles after its last weights. No reset: rows start with `first_row`.
    """

    LATENCY = _TO_SUM + 1

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = s = shape
        super().__init__(
            {
                "en": In(1),
                "begins": In(1),
                "ends": In(1),
                "tag": In(s.tag()),
                "rise_p": In(unsigned(RISE_BITS)),
                "first_row": In(1),
                "scale": In(signed(SCALE_BITS)),
                "p": In(data.ArrayLayout(24, s.config.attention_pipes)),
                "done": Out(1),
                "o_tag": Out(s.tag()),
                "o_scale": Out(signed(SCALE_BITS)),
                "l": Out(s.l_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s = self._shape

        # The block's sum.
        levels = exact_log2(s.config.attention_pipes)
        values = list(self.p)
        while len(values) > 1:
            values = [register(m, a + b) for a, b in zip(values[::2], values[1::2], strict=True)]
        begins = delay(m, self.begins, levels, reset_less=True)
        block = Signal(24 + 5, reset_less=True)
        m.d.sync += block.eq(Mux(begins, 0, block) + values[0])
        block = delay(m, block, _TO_SUM - 1 - levels, reset_less=True)

        # 1 read, 2 shift by eights, 3 by ones, 4 add.
        m.submodules.states = states = memory.Memory(
            shape=s.l_bits, depth=s.max_rows, init=[], attrs=DISTRIBUTED
        )
        write, read = states.write_port(), states.read_port(domain="comb")
        row = self.tag.tile * s.rows + self.tag.lane
        old = Signal(s.l_bits, reset_less=True)
        with m.If(self.first_row):
            m.d.sync += old.eq(0)
        with m.Else():
            m.d.sync += old.eq(read.data)
        rise = register(m, self.rise_p)
        coarse = register(m, old >> (rise[3:] << 3))
        shifted = register(m, coarse >> register(m, rise[:3]))
        m.d.sync += self.l.eq(shifted + block)
        m.d.comb += [
            read.addr.eq(row),
            write.addr.eq(delay(m, row, self.LATENCY, reset_less=True)),
            write.data.eq(self.l),
            write.en.eq(self.done),
            self.done.eq(delay(m, self.en & self.ends, self.LATENCY)),
            self.o_tag.eq(delay(m, self.tag, self.LATENCY, reset_less=True)),
            self.o_scale.eq(delay(m, self.scale, self.LATENCY, reset_less=True)),
        ]
        return m
