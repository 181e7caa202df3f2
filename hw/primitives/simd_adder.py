"""Small sums side by side: the adder of a DSP48E2, cut into lanes."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from .dsp48e2 import W_ZERO, X_AB, X_ZERO, Y_ZERO, Z_PCIN, Z_ZERO, dsp48e2

LANES = (4, 2)
"""Lanes that the adder can be cut into, of 48 / lanes bits each."""
LATENCY = 2
"""Cycles from the operands to their sum."""
CASCADE_LATENCY = 1
"""Cycles from `cascade` to the sum."""


class SimdAdder(Component):
    """Sums of 12 or 24 bits in each of 4 or 2 lanes: operands a and c, and a sum before them.

    a, c: signed, LATENCY cycles before the sum. use_c: with c; low takes 0 for it. cascade: the
    `cascade_out` of another adder of as many lanes, and nothing else, CASCADE_LATENCY cycles
    before; 0 where there is none. Sums wrap in their lane. One a cycle, no back-pressure, no
    reset.

    This form describes the behaviour; DspSimdAdder has the same ports and is a DSP48E2.
    """

    def __init__(self, lanes: int, *, a: bool = True, cascade: bool = True) -> None:
        """Without `a` or `cascade` that operand is 0, whatever the port says."""
        if lanes not in LANES:
            raise ValueError(f"lanes is {lanes}: choose from {LANES}")
        self._lanes, self._has_a, self._has_cascade = lanes, a, cascade
        shape = data.ArrayLayout(signed(48 // lanes), lanes)
        super().__init__(
            {
                "a": In(shape),
                "c": In(shape),
                "use_c": In(1),
                "cascade": In(48),
                "sum": Out(shape),
                "cascade_out": Out(48),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = 48 // self._lanes
        for lane in range(self._lanes):
            c = Signal(signed(width), name=f"c{lane}", reset_less=True)
            use_c = Signal(name=f"use_c{lane}", reset_less=True)
            total = Signal(signed(width), name=f"total{lane}", reset_less=True)
            terms: list[Value] = [c & use_c.replicate(width).as_signed()]
            m.d.sync += [c.eq(self.c[lane]), use_c.eq(self.use_c)]
            if self._has_a:
                a = Signal(signed(width), name=f"a{lane}", reset_less=True)
                m.d.sync += a.eq(self.a[lane])
                terms.append(a)
            if self._has_cascade:
                terms.append(self.cascade.word_select(lane, width))
            m.d.sync += total.eq(sum(terms[1:], terms[0]))
            m.d.comb += self.sum[lane].eq(total)
        m.d.comb += self.cascade_out.eq(self.sum.as_value())
        return m


class DspSimdAdder(SimdAdder):
    """The same as one DSP48E2."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ab, use_c = self.a.as_value(), self.use_c
        fixed = W_ZERO | Y_ZERO
        fixed |= (X_AB if self._has_a else X_ZERO) | (Z_PCIN if self._has_cascade else Z_ZERO)
        ports = {
            "A": ab[18:] if self._has_a else 0,
            "B": ab[:18] if self._has_a else 0,
            "C": self.c.as_value(),
            # Y is 0 or C: both bits of its field.
            "OPMODE": Cat(*(use_c if n in (2, 3) else fixed >> n & 1 for n in range(9))),
            "P": self.sum.as_value(),
        }
        if self._has_cascade:
            ports["PCIN"] = self.cascade
        ports["PCOUT"] = self.cascade_out
        m.submodules.dsp = dsp48e2(
            ports,
            USE_SIMD={4: "FOUR12", 2: "TWO24"}[self._lanes], USE_MULT="NONE",
            AREG=1, BREG=1, CREG=1, OPMODEREG=1, PREG=1,
        )  # fmt: skip
        return m
