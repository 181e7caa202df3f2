"""Reciprocals of denominators, for the outputs of tiles that end."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Signal, signed
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In, Out, Signature

from ..fp import Divide, FromInt, delay
from .geometry import ITEMS
from .shape import DISTRIBUTED, SCALE_BITS, AttentionShape

_ONE = 0x3F800000


class Inverses(Component):
    """fl(1 / fl(l)) of each row of an item that closes, kept with the row's `scale`.

    `denominator` brings the rows in order; row a takes divider a mod `dividers`, which must be
    free: AttentionGeometry.closing_period sees to that. `inverses` counts the items whose rows are
    all there, modulo 2 * ITEMS, LATENCY cycles after the last one's denominator. `factor` gives
    those of a row in the cycle of the address. Reset: none there.
    """

    LATENCY = FromInt.LATENCY + Divide.LATENCY + 1

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = s = shape
        at = {"index": Out(s.index), "lane": Out(s.lane)}
        self._entry = s.factor()
        super().__init__(
            {
                "denominator": In(
                    Signature(
                        at | {"en": Out(1), "l": Out(s.l_bits), "scale": Out(signed(SCALE_BITS))}
                    )
                ),
                "inverses": Out(range(2 * ITEMS)),
                "factor": In(Signature(at | {"data": In(self._entry)})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, given = self._shape, self.denominator
        count = s.dividers
        m.submodules.from_l = from_l = FromInt(s.l_bits, signed=False)
        m.d.comb += from_l.i.eq(given.l)
        wait = FromInt.LATENCY
        en = delay(m, given.en, wait)
        scale = delay(m, given.scale, wait, reset_less=True)
        at = delay(m, Cat(given.lane, given.index), wait, reset_less=True)
        lane = at[: len(given.lane)]

        found = Array(Signal(self._entry.size, name=f"found{d}") for d in range(count))
        which = Signal(range(max(count, 2)))
        for d in range(count):
            mine = [a for a in range(s.rows) if a % count == d]
            m.submodules[f"divide{d}"] = divide = Divide()
            m.submodules[f"entries{d}"] = entries = memory.Memory(
                shape=self._entry, depth=1 << len(at), init=[], attrs=DISTRIBUTED
            )
            write, read = entries.write_port(), entries.read_port(domain="comb")
            kept_at = Signal.like(at, name=f"at{d}", reset_less=True)
            kept_scale = Signal.like(scale, name=f"scale{d}", reset_less=True)
            start = en & Cat(lane == a for a in mine).any()
            with m.If(start):
                m.d.sync += [kept_at.eq(at), kept_scale.eq(scale)]
            m.d.comb += [
                divide.start.eq(start),
                divide.a.eq(_ONE),
                divide.b.eq(from_l.o),
                write.en.eq(divide.done),
                write.addr.eq(kept_at),
                write.data.inverse.eq(divide.o),
                write.data.scale.eq(kept_scale),
                read.addr.eq(Cat(self.factor.lane, self.factor.index)),
                found[d].eq(read.data),
            ]
            with m.If(Cat(self.factor.lane == a for a in mine).any()):
                m.d.comb += which.eq(d)
            if s.rows - 1 in mine:
                with m.If(divide.done & (kept_at[: len(lane)] == s.rows - 1)):
                    m.d.sync += self.inverses.eq(self.inverses + 1)
        m.d.comb += self.factor.data.eq(found[which])
        return m
