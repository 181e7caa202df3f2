"""The elementwise pipeline of one pair of lanes: dequantisation, RoPE, residual and GLU."""

from __future__ import annotations

import numpy as np
from amaranth import C, Module, Mux, signed
from amaranth.lib.wiring import Component, In, Out

from .. import numeric
from ..fp import Add, FromInt, Mul, Sigmoid, delay
from ..numeric import F32


def dequantise(acc: np.ndarray, factor: F32, scale: F32) -> F32:
    """fl(fl(acc) * fl(factor * scale))."""
    return numeric.mul(numeric.from_int(acc), numeric.mul(factor, scale))


def rotate(even: F32, odd: F32, cosine: F32, sine: F32) -> tuple[F32, F32]:
    """RoPE of adjacent elements."""
    return (
        numeric.sub(numeric.mul(even, cosine), numeric.mul(odd, sine)),
        numeric.add(numeric.mul(odd, cosine), numeric.mul(even, sine)),
    )


def gated(gate: F32, up: F32, silu: bool) -> F32:
    """act(gate) * up, with SiLU or the squared ReLU."""
    if silu:
        return numeric.mul(numeric.silu(gate), up)
    relu = np.maximum(gate, np.float32(0))
    return numeric.mul(numeric.mul(relu, relu), up)


SCALE_LATENCY = Mul.LATENCY
"""Cycles from the operands of the two scale products to the products."""


class LanePair(Component):
    """An even and an odd lane from accumulators to results.

    y = fl(fl(acc) * scale), the even lane with `scale_even`, the odd lane with `scale_odd`
    (fl(factor * weight scale), binary32). Then, by controls that stay for a whole command:

    neither : (even, odd) = RoPE of y with `cosine` and `sine`; 1 and 0 leave y as it is.
    residual : (even, odd) = x + y; cosine is 1.
    glu : gated = act(y_even) * y_odd, act SiLU with `silu`, else the squared ReLU.

    Feed-forward, a pair every cycle, no reset. Cycles after the one that has `acc`: `scale_*` are
    taken at SCALE_AT, `cosine` and `sine` at ROTATION_AT, `x_even` and `x_odd` at X_AT; `even` and
    `odd` come at LINEAR_AT, `gated` at GLU_AT. Multipliers are shared: one command has one mode.
    """

    SCALE_AT = FromInt.LATENCY
    ROTATION_AT = SCALE_AT + Mul.LATENCY
    X_AT = ROTATION_AT + Mul.LATENCY
    LINEAR_AT = X_AT + Add.LATENCY
    GLU_AT = ROTATION_AT + Sigmoid.LATENCY + 2 * Mul.LATENCY

    def __init__(self, acc_bits: int) -> None:
        self._acc_bits = acc_bits
        words = ("scale_even", "scale_odd", "cosine", "sine", "x_even", "x_odd")
        super().__init__(
            {
                "acc_even": In(signed(acc_bits)),
                "acc_odd": In(signed(acc_bits)),
                **{name: In(32) for name in words},
                "residual": In(1),
                "glu": In(1),
                "silu": In(1),
                "even": Out(32),
                "odd": Out(32),
                "gated": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        y = []
        for name, acc, scale in (
            ("even", self.acc_even, self.scale_even),
            ("odd", self.acc_odd, self.scale_odd),
        ):
            m.submodules[f"{name}_float"] = to_float = FromInt(self._acc_bits)
            m.submodules[f"{name}_scaled"] = scaled = Mul()
            m.d.comb += [to_float.i.eq(acc), scaled.a.eq(to_float.o), scaled.b.eq(scale)]
            y.append(scaled.o)
        even, odd = y

        m.submodules.sigmoid = sigmoid = Sigmoid()
        m.d.comb += sigmoid.i.eq(even)
        gate = delay(m, even, Sigmoid.LATENCY, reset_less=True)
        up = delay(m, odd, Sigmoid.LATENCY + Mul.LATENCY, reset_less=True)
        relu = Mux(gate[31], C(0, 32), gate)

        m.submodules.even_cosine = even_cosine = Mul()  # or the activation
        m.submodules.odd_sine = odd_sine = Mul()  # or activation * up
        m.submodules.odd_cosine = odd_cosine = Mul()
        m.submodules.even_sine = even_sine = Mul()
        m.d.comb += [
            even_cosine.a.eq(Mux(self.glu, Mux(self.silu, gate, relu), even)),
            even_cosine.b.eq(Mux(self.glu, Mux(self.silu, sigmoid.o, relu), self.cosine)),
            odd_sine.a.eq(Mux(self.glu, even_cosine.o, odd)),
            odd_sine.b.eq(Mux(self.glu, up, self.sine)),
            odd_cosine.a.eq(odd),
            odd_cosine.b.eq(self.cosine),
            even_sine.a.eq(even),
            even_sine.b.eq(self.sine),
        ]

        m.submodules.even_sum = even_sum = Add()
        m.submodules.odd_sum = odd_sum = Add()
        m.d.comb += [
            even_sum.a.eq(even_cosine.o),
            even_sum.b.eq(Mux(self.residual, self.x_even, odd_sine.o)),
            even_sum.subtract.eq(~self.residual),
            odd_sum.a.eq(odd_cosine.o),
            odd_sum.b.eq(Mux(self.residual, self.x_odd, even_sine.o)),
            self.even.eq(even_sum.o),
            self.odd.eq(odd_sum.o),
            self.gated.eq(odd_sine.o),
        ]
        return m
