"""Small accumulators side by side that step by one of two operands: a DSP48E2, cut into lanes."""

from __future__ import annotations

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from .dsp48e2 import dsp48e2

LANES = 4
BITS = 48 // LANES
LATENCY = 2
"""Cycles from a step to the total."""


def step_layout() -> data.StructLayout:
    """total := (keep ? total : 0) + or, with minus, - ((a ? a : 0) + (c ? c : 0) + (turn ? total :
    0))."""
    return data.StructLayout({"a": 1, "c": 1, "keep": 1, "turn": 1, "minus": 1})


class SimdAccumulator(Component):
    """Totals of LANES lanes of BITS bits, and two operands a lane.

    a, c: signed; taken in a cycle of take_a or take_c, and added by steps from that cycle on.
    step: see step_layout; total holds what it made LATENCY cycles later, until the next step's.
    Totals wrap in their lane. No back-pressure, no reset.

    This form describes the behaviour; DspSimdAccumulator has the same ports and is a DSP48E2.
    """

    def __init__(self) -> None:
        shape = data.ArrayLayout(signed(BITS), LANES)
        super().__init__(
            {
                "a": In(shape),
                "c": In(shape),
                "take_a": In(1),
                "take_c": In(1),
                "step": In(step_layout()),
                "total": Out(shape),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = Signal.like(self.step, name="step_now", reset_less=True)
        m.d.sync += step.eq(self.step)
        for lane in range(LANES):
            a = Signal(signed(BITS), name=f"a{lane}", reset_less=True)
            c = Signal(signed(BITS), name=f"c{lane}", reset_less=True)
            total = Signal(signed(BITS), name=f"total{lane}", reset_less=True)
            with m.If(self.take_a):
                m.d.sync += a.eq(self.a[lane])
            with m.If(self.take_c):
                m.d.sync += c.eq(self.c[lane])
            change = Mux(step.a, a, 0) + Mux(step.c, c, 0) + Mux(step.turn, total, 0)
            kept = Mux(step.keep, total, 0)
            m.d.sync += total.eq(Mux(step.minus, kept - change, kept + change))
            m.d.comb += self.total[lane].eq(total)
        return m


class DspSimdAccumulator(SimdAccumulator):
    """The same as one DSP48E2."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a, step = self.a.as_value(), self.step
        m.submodules.dsp = dsp48e2(
            {
                "A": a[18:],
                "B": a[:18],
                "C": self.c.as_value(),
                "CEA2": self.take_a,
                "CEB2": self.take_a,
                "CEC": self.take_c,
                # Multiplexers X: A:B, Y: C, Z: P, W: P; each 0 otherwise.
                "OPMODE": Cat(
                    step.a, step.a, step.c, step.c, C(0, 1), step.keep, C(0, 1), step.turn, C(0, 1)
                ),
                "ALUMODE": Cat(step.minus, step.minus, C(0, 2)),
                "P": self.total.as_value(),
            },
            USE_SIMD="FOUR12", USE_MULT="NONE",
            AREG=1, BREG=1, CREG=1, OPMODEREG=1, ALUMODEREG=1, PREG=1,
        )  # fmt: skip
        return m
