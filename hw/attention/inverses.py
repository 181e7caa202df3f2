"""Reciprocals of denominators, for the outputs of tiles that end."""

from __future__ import annotations

from amaranth import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, Signature

from .. import numeric
from ..choose import choose
from ..fp import FromInt, delay, register
from ..fp.parts import BIAS, MANTISSA
from .geometry import ITEMS
from .shape import DISTRIBUTED, SCALE_BITS, AttentionShape

_QUOTIENT_BITS = MANTISSA + 2


def reference(l: numeric.I64) -> numeric.F32:
    """fl(1 / fl(l)), as numeric.attention_output takes it."""
    return numeric.div(numeric.np.float32(1), numeric.from_int(l))


class Inverses(Component):
    """fl(1 / fl(l)) of each row of an item that closes, l > 0, kept with the row's `scale`.

    `denominator` brings the rows in order. Row a takes divider a mod `dividers`, one quotient bit a
    cycle, which must be free: AttentionGeometry.closing_period sees to that. All share a rounding.
    `inverses` counts the items whose rows are all there, modulo 2 * ITEMS, LATENCY cycles after the
    last one's denominator. `factor` gives those of a row in the cycle of the address. Reset: none
    there.
    """

    LATENCY = FromInt.LATENCY + 1 + _QUOTIENT_BITS + 3

    def __init__(self, shape: AttentionShape) -> None:
        self._shape = s = shape
        at = {"index": Out(s.index), "lane": Out(s.lane)}
        of_row = {"l": Out(s.l_bits), "scale": Out(signed(SCALE_BITS))}
        super().__init__(
            {
                "denominator": In(Signature(at | of_row | {"en": Out(1)})),
                "inverses": Out(range(2 * ITEMS)),
                "factor": In(Signature(at | {"data": In(s.factor())})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, given = self._shape, self.denominator
        m.submodules.from_l = from_l = FromInt(s.l_bits, signed=False)
        m.d.comb += from_l.i.eq(given.l)
        tag_layout = data.StructLayout(
            {"lane": s.lane, "index": s.index, "scale": signed(SCALE_BITS)}
        )
        tag = Signal(tag_layout)
        m.d.comb += [
            tag.lane.eq(given.lane),
            tag.index.eq(given.index),
            tag.scale.eq(given.scale),
        ]
        en = delay(m, given.en, FromInt.LATENCY)
        tag = delay(m, tag, FromInt.LATENCY, reset_less=True)

        # 1 / 1.f is in (1/2, 1]: 0.1.. with the quotient's bits, or 1 and a fraction of 0.
        starts = [Cat(tag.lane == a for a in range(d, s.rows, s.dividers)) for d in self._dividers]
        quotients = [
            self._divider(m, d, en & starts[d].any(), from_l.o[: MANTISSA - 1])
            for d in self._dividers
        ]
        exponent = register(m, 2 * BIAS - 1 - from_l.o[MANTISSA - 1 : 31])
        en = delay(m, en, 1 + _QUOTIENT_BITS)
        tag = delay(m, tag, 1 + _QUOTIENT_BITS, reset_less=True)
        exponent = delay(m, exponent[:8], _QUOTIENT_BITS, reset_less=True)

        lanes = [quotients[a % s.dividers] for a in range(s.rows)]
        quotient = register(m, choose(tag.lane, lanes))
        up = quotient[1] & (quotient[0] | quotient[2])
        one = quotient[-1]
        joined = Cat(quotient[2 : MANTISSA + 1], register(m, exponent))
        rounded = register(m, (joined + Mux(one, 1 << MANTISSA - 1, up))[:31])

        m.submodules.entries = entries = memory.Memory(
            shape=s.factor(),
            depth=ITEMS << len(self.factor.lane),
            init=[],
            attrs=DISTRIBUTED,
        )
        write, read = entries.write_port(), entries.read_port(domain="comb")
        tag = delay(m, tag, 2, reset_less=True)
        m.d.comb += [
            write.en.eq(delay(m, en, 2)),
            write.addr.eq(Cat(tag.lane, tag.index)),
            write.data.inverse.eq(rounded),
            write.data.scale.eq(tag.scale),
            read.addr.eq(Cat(self.factor.lane, self.factor.index)),
            self.factor.data.eq(read.data),
        ]
        with m.If(write.en & (tag.lane == s.rows - 1)):
            m.d.sync += self.inverses.eq(self.inverses + 1)
        return m

    @property
    def _dividers(self) -> range:
        return range(self._shape.dividers)

    @staticmethod
    def _divider(m: Module, number: int, start: Value, fraction: Value) -> Value:
        """The quotient 1 / 1.fraction, 1 + _QUOTIENT_BITS cycles after `start`: its bits from 2**0
        down, and whether anything is left (lowest)."""
        divisor = Signal(MANTISSA, name=f"divisor{number}", reset_less=True)
        remainder = Signal(MANTISSA + 1, name=f"remainder{number}", reset_less=True)
        quotient = Signal(_QUOTIENT_BITS, name=f"quotient{number}", reset_less=True)
        difference = (remainder - divisor)[: MANTISSA + 2]
        fits = ~difference[-1]
        m.d.sync += [
            quotient.eq(Cat(fits, quotient)),
            remainder.eq(Mux(fits, difference, remainder)[:MANTISSA] << 1),
        ]
        with m.If(start):
            m.d.sync += [divisor.eq(Cat(fraction, C(1, 1))), remainder.eq(1 << MANTISSA - 1)]
        return Cat(remainder.any(), quotient)
