"""The arithmetic of KV_QUANT that is done once a head."""

from __future__ import annotations

import numpy as np
from amaranth import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from .. import numeric
from ..fp import Divide, Mul, delay
from ..isa import KvFormat
from ..numeric import F32
from .scalar import ONE, bits, measured_layout


def reference(absmax: F32, kv: KvFormat, score_scale: F32) -> tuple[F32, F32]:
    """(scale, factor): L / a and fl(a * fl(1 / L)) * score_scale, a the floored absmax and L the
    format's largest code."""
    a = np.maximum(absmax, numeric.KV_FLOOR)
    factor = numeric.mul(numeric.mul(a, numeric.INV_CODE_MAX[kv]), score_scale)
    return numeric.div(np.float32(kv.code_max), a), factor


class HeadScales(Component):
    """From the absmax of a head: the scale of its codes and the factor back.

    The steps are those of `numeric.kv_quant`: keys and values are of `format`, a KvFormat that is
    held by the command; query heads are int16, and their factor is multiplied by `score_scale`.

    Latency: `scaled` comes LATENCY cycles after a segment is taken, in order. Throughput: one
    every LATENCY + 1 cycles for each divider. No back-pressure at the output. Reset drops the
    heads in hand.
    """

    LATENCY = 1 + Divide.LATENCY

    def __init__(self, dividers: int) -> None:
        self._dividers = dividers
        super().__init__(
            {
                "format": In(KvFormat),
                "score_scale": In(32),
                "i": In(stream.Signature(measured_layout())),
                "scaled": Out(1),
                "scale": Out(32),
                "factor": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.inverse = inverse = Mul()
        m.submodules.post = post = Mul()

        taken = Signal()
        turn = Signal(range(max(self._dividers, 2)))
        free = Signal(self._dividers, init=-1)
        floor = bits(numeric.KV_FLOOR)
        absmax = self.i.payload.absmax
        start = Signal()
        largest = Signal(32)
        query = Signal()
        to_start = Signal.like(turn)
        kv = Signal(KvFormat)
        m.d.comb += [
            self.i.ready.eq(free.bit_select(turn, 1)),
            taken.eq(self.i.valid & self.i.ready),
            inverse.a.eq(largest),
            inverse.b.eq(_by_format(m, kv, {f: numeric.INV_CODE_MAX[f] for f in KvFormat})),
            post.a.eq(inverse.o),
            post.b.eq(Mux(delay(m, query, Mul.LATENCY, reset_less=True), self.score_scale, ONE)),
        ]
        m.d.sync += [
            start.eq(taken),
            to_start.eq(turn),
            largest.eq(Mux(absmax > floor, Cat(absmax, C(0, 1)), floor)),
            query.eq(self.i.payload.query),
            kv.eq(Mux(self.i.payload.query, KvFormat.INT16, self.format)),
        ]
        with m.If(taken):
            m.d.sync += [
                turn.eq(Mux(turn == self._dividers - 1, 0, turn + 1)),
                free.bit_select(turn, 1).eq(0),
            ]
        limit = _by_format(m, kv, {f: np.float32(f.code_max) for f in KvFormat})
        for i in range(self._dividers):
            m.submodules[f"divide{i}"] = divide = Divide()
            m.d.comb += [
                divide.start.eq(start & (to_start == i)),
                divide.a.eq(limit),
                divide.b.eq(largest),
            ]
            with m.If(divide.done):
                m.d.comb += [self.scaled.eq(1), self.scale.eq(divide.o)]
                m.d.sync += free[i].eq(1)
        factor = delay(m, post.o, Divide.LATENCY - 2 * Mul.LATENCY, reset_less=True)
        m.d.comb += self.factor.eq(factor)
        return m


def _by_format(m: Module, kv: Value, numbers: dict[KvFormat, np.float32]) -> Signal:
    """The binary32 word that belongs to a format."""
    word = Signal(32)
    with m.Switch(kv):
        for number_format, number in numbers.items():
            with m.Case(number_format):
                m.d.comb += word.eq(bits(number))
    return word
