"""Remainder of a division, pipelined."""

from __future__ import annotations

import numpy as np
from amaranth import Cat, Module, Mux, Shape, Signal
from amaranth.lib.wiring import Component, In, Out

from ..fp import register


def reference(value: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    return value % divisor


class Modulo(Component):
    """`o` = value % divisor, unsigned; `divisor` is not zero and held by the user.

    Feed-forward: a result every cycle, `latency` cycles (a parameter) after `value`. No reset.
    """

    def __init__(self, value_bits: int, divisor_bits: int, latency: int) -> None:
        self._latency = latency
        super().__init__(
            {"value": In(value_bits), "divisor": In(divisor_bits), "o": Out(divisor_bits)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits, wide = len(self.value), len(self.divisor)
        steps = -(-bits // self._latency)  # bits of the value a stage
        rest, remainder = Cat(self.value), Signal(wide, name="zero")
        at = bits
        for stage in range(self._latency):
            for step in range(min(steps, at)):
                at -= 1
                current = Cat(rest[at], remainder)
                difference = Signal(Shape(wide + 2, signed=True), name=f"try{stage}_{step}")
                m.d.comb += difference.eq(current - self.divisor)
                remainder = Mux(difference < 0, current[:wide], difference[:wide])
            remainder = register(m, remainder)
            rest = register(m, rest)
        m.d.comb += self.o.eq(remainder)
        return m
