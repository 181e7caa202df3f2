"""The arithmetic of NORM_QUANT that is done once a row."""

from __future__ import annotations

import numpy as np
from amaranth import C, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from .. import numeric
from ..fp import Add, Divide, FromInt, Mul, Scale2, Sqrt
from ..numeric import F32, I64, U64


def bits(x: np.float32) -> int:
    """The binary32 word of a constant."""
    return int(np.float32(x).view(np.uint32))


ONE = bits(np.float32(1))


def parameters_layout() -> data.StructLayout:
    """What the arithmetic takes from the command."""
    return data.StructLayout(
        {
            "head": unsigned(1),  # two digits
            "norm": unsigned(1),
            "inv_n": unsigned(32),
            "eps": unsigned(32),
        }
    )


def measured_layout() -> data.StructLayout:
    """What the lanes measure in a segment."""
    return data.StructLayout(
        {
            "absmax": unsigned(31),  # of what is quantised, binary32 without its sign
            "exponent": unsigned(8),  # biased, of the row's largest element
            "total": unsigned(64),  # of squares, in units of 2**(2 * (exponent - 150))
            "query": unsigned(1),
        }
    )


def reference(
    absmax: F32,
    exponent: I64,
    total: U64,
    norm: bool,
    inv_n: np.float32,
    eps: np.float32,
    head: bool,
) -> tuple[F32, F32]:
    """(scale, factor) of measured rows; `numeric.norm_quant` has the same steps on whole rows."""
    limit, inverse = (numeric.HEAD_CODE_MAX, numeric.INV_HEAD) if head else (127, numeric.INV_127)
    rms = np.ones(absmax.shape, np.float32)
    if norm:
        mean = numeric.scale2(numeric.from_int(total), 2 * (exponent - 150))
        rms = numeric.sqrt(numeric.add(numeric.mul(mean, inv_n), eps))
    a = np.maximum(absmax, numeric.mul(numeric.ABSMAX_FLOOR, rms))
    factor = numeric.mul(numeric.mul(a, numeric.div(np.float32(1), rms)), inverse)
    return numeric.div(np.float32(limit), a), factor


class Scalar(Component):
    """From what was measured in a row: the scale of its codes and the factor back from sums.

    The steps and their order are those of `numeric.norm_quant`. `parameters` are held by the
    command. `scale` (limit / a) comes with the strobe `scaled`, later `factor` with the strobe
    `factor_valid`.

    Latency from taking a row to `scaled`, and until the next one can be taken: `latency(norm)`.
    Throughput: one row at a time, on one each of multiplier, adder, divider and root. No
    back-pressure at the outputs. Reset drops the row in hand.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "parameters": In(parameters_layout()),
                "i": In(stream.Signature(measured_layout())),
                "scaled": Out(1),
                "scale": Out(32),
                "factor_valid": Out(1),
                "factor": Out(32),
            }
        )

    @staticmethod
    def latency(norm: bool) -> tuple[int, int]:
        """Cycles from taking a row to `scaled`, and to taking the next one."""
        scale = (Mul.LATENCY + 1) + 1 + (Divide.LATENCY + 2) + 1
        if norm:
            pipelines = (FromInt, Scale2, Mul, Add)
            scale += sum(p.LATENCY + 1 for p in pipelines) + Sqrt.LATENCY + 1
        return scale, scale + Divide.LATENCY + 2 + 2 * (Mul.LATENCY + 1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.mul = mul = Mul()
        m.submodules.add = add = Add()
        m.submodules.divide = divide = Divide()
        m.submodules.sqrt = sqrt = Sqrt()
        m.submodules.from_int = from_int = FromInt(64, signed=False)
        m.submodules.scale2 = scale2 = Scale2()
        p = self.parameters

        row = Signal(measured_layout())
        value = Signal(32)  # of the chain of steps
        rms = Signal(32)
        largest = Signal(32)  # a: the floored maximum that is divided by
        limit, inverse = Signal(32), Signal(32)
        m.d.comb += [
            limit.eq(Mux(p.head, bits(np.float32(numeric.HEAD_CODE_MAX)), bits(np.float32(127)))),
            inverse.eq(Mux(p.head, bits(numeric.INV_HEAD), bits(numeric.INV_127))),
        ]
        k = Signal(signed(11))
        m.d.comb += [
            k.eq((row.exponent - 150) << 1),
            from_int.i.eq(row.total),
            scale2.x.eq(value),
            scale2.k.eq(k),
            add.a.eq(value),
            add.b.eq(p.eps),
            sqrt.a.eq(value),
        ]

        left = Signal(range(16))

        def pipeline(unit: type[Component], output: Value, to: Signal, then: str) -> None:
            """The rest of a state that holds a pipeline's operands until its result is there."""
            m.d.sync += left.eq(left + 1)
            with m.If(left == unit.LATENCY):
                m.d.sync += [to.eq(output), left.eq(0)]
                m.next = then

        def product(state: str, a: Value, b: Value, to: Signal, then: str) -> None:
            with m.State(state):
                m.d.comb += [mul.a.eq(a), mul.b.eq(b)]
                pipeline(Mul, mul.o, to, then)

        def start_divide(state: str, a: Value, b: Value, then: str) -> None:
            with m.State(state):
                m.d.sync += [divide.start.eq(1), divide.a.eq(a), divide.b.eq(b)]
                m.next = then

        m.d.sync += [self.scaled.eq(0), self.factor_valid.eq(0), divide.start.eq(0)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [row.eq(self.i.payload), rms.eq(ONE)]
                with m.If(self.i.valid):
                    m.next = "FLOOR"
                    with m.If(p.norm):
                        m.next = "FROM_INT"
            # Root mean square.
            with m.State("FROM_INT"):
                pipeline(FromInt, from_int.o, value, "SCALE2")
            with m.State("SCALE2"):
                pipeline(Scale2, scale2.o, value, "MEAN")
            product("MEAN", value, p.inv_n, value, "ADD")
            with m.State("ADD"):
                pipeline(Add, add.o, value, "ROOT")
            with m.State("ROOT"):
                m.d.comb += sqrt.start.eq(1)
                m.next = "WAIT_ROOT"
            with m.State("WAIT_ROOT"):
                m.d.sync += rms.eq(sqrt.o)
                with m.If(sqrt.done):
                    m.next = "FLOOR"
            # Scale and factor of a row.
            product("FLOOR", C(bits(numeric.ABSMAX_FLOOR), 32), rms, value, "MAX")
            with m.State("MAX"):
                m.d.sync += largest.eq(Mux(row.absmax > value[:31], row.absmax, value))
                m.next = "SCALE"
            start_divide("SCALE", limit, largest, "WAIT_SCALE")
            with m.State("WAIT_SCALE"):
                with m.If(divide.done):
                    m.d.sync += [self.scale.eq(divide.o), self.scaled.eq(1)]
                    m.next = "INVERT"
            start_divide("INVERT", C(ONE, 32), rms, "WAIT_INVERT")
            with m.State("WAIT_INVERT"):
                m.d.sync += value.eq(divide.o)
                with m.If(divide.done):
                    m.next = "QUOTIENT"
            product("QUOTIENT", largest, value, value, "FACTOR")
            with m.State("FACTOR"):
                m.d.comb += [mul.a.eq(value), mul.b.eq(inverse)]
                m.d.sync += self.factor_valid.eq(left == Mul.LATENCY)
                pipeline(Mul, mul.o, self.factor, "IDLE")
        return m
