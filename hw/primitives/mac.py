"""A multiplier, and an adder of up to three operands behind it: a DSP48E2."""

from __future__ import annotations

from typing import Literal

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from ..fp.delay import delay
from .dsp48e2 import W_C, W_P, XY_PRODUCT, Z_PCIN, Z_ZERO, dsp48e2

A_BITS, B_BITS, SUM_BITS = 27, 18, 48
LATENCY = 3
"""Cycles from the factors to the sum."""
THIRD_LATENCY = 2
"""Cycles from `c` and `use_third` to the sum."""
CASCADE_LATENCY = 1
"""Cycles from `cascade` to the sum."""

Third = Literal["none", "c", "p"]


class Mac(Component):
    """sum = a * b + cascade + third, signed, modulo 2**48.

    a, b: LATENCY cycles before the sum. With `held`, `a` goes through two registers: it is taken
    in a cycle in which `take` is high, to wait, and multiplies the values of `b` from that of
    the cycle of `move` on. cascade: the `cascade_out` of another Mac, and nothing else,
    CASCADE_LATENCY cycles before; the chain that it makes adds products of neighbours, each given
    one cycle after the one before. third: `c`, or the sum of the cycle before, where `use_third` is
    high, and 0 otherwise, THIRD_LATENCY cycles before.

    One sum a cycle, no back-pressure, no reset. This form describes the behaviour; DspMac has the
    same ports and is a DSP48E2.
    """

    def __init__(
        self,
        *,
        held: bool = False,
        late: bool = False,
        cascade: bool = True,
        third: Third = "none",
    ) -> None:
        """Without `held`, `cascade` or a `third` those ports are ignored. With `late`, `b` comes
        one cycle earlier."""
        self._held, self._late, self._has_cascade, self._third = held, late, cascade, third
        super().__init__(
            {
                "a": In(signed(A_BITS)),
                "take": In(1),
                "move": In(1),
                "b": In(signed(B_BITS)),
                "c": In(signed(SUM_BITS)),
                "use_third": In(1),
                "cascade": In(signed(SUM_BITS)),
                "sum": Out(signed(SUM_BITS)),
                "cascade_out": Out(signed(SUM_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a = Signal.like(self.a, name="a_factor", reset_less=True)
        b = Signal.like(self.b, name="b_factor", reset_less=True)
        product = Signal(signed(A_BITS + B_BITS), reset_less=True)
        total = Signal(signed(SUM_BITS), reset_less=True)
        m.d.sync += [
            b.eq(delay(m, self.b, int(self._late), reset_less=True)),
            product.eq(a * b),
        ]
        if self._held:
            waiting = Signal.like(a, name="a_waiting", reset_less=True)
            with m.If(self.take):
                m.d.sync += waiting.eq(self.a)
            with m.If(self.move):
                m.d.sync += a.eq(waiting)
        else:
            m.d.sync += a.eq(self.a)

        terms: Value = product
        if self._has_cascade:
            terms = terms + self.cascade
        if self._third != "none":
            use_third = Signal(name="third_used", reset_less=True)
            m.d.sync += use_third.eq(self.use_third)
            third = total
            if self._third == "c":
                third = Signal.like(self.c, name="c_operand", reset_less=True)
                m.d.sync += third.eq(self.c)
            terms = terms + Mux(use_third, third, 0)
        m.d.sync += total.eq(terms)
        m.d.comb += [self.sum.eq(total), self.cascade_out.eq(total)]
        return m


class DspMac(Mac):
    """The same as one DSP48E2."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fixed = XY_PRODUCT | (Z_PCIN if self._has_cascade else Z_ZERO)
        third = {"none": 0, "c": W_C, "p": W_P}[self._third]
        bits = [self.use_third if third >> n & 1 else Value.cast(fixed >> n & 1) for n in range(9)]
        ports: dict[str, Value | int] = {
            "A": self.a,
            "B": self.b,
            "OPMODE": Cat(*bits),
            "P": self.sum,
            "PCOUT": self.cascade_out,
        }
        if self._held:
            ports |= {"CEA1": self.take, "CEA2": self.move}
        if self._has_cascade:
            ports["PCIN"] = self.cascade
        if self._third == "c":
            ports["C"] = self.c
        m.submodules.dsp = dsp48e2(
            ports,
            AREG=2 if self._held else 1, BREG=2 if self._late else 1,
            CREG=1, MREG=1, OPMODEREG=1, PREG=1,
        )  # fmt: skip
        return m
