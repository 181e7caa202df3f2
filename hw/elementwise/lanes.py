"""The elementwise lanes of NORM_QUANT and KV_QUANT: measuring and quantising words of a row."""

from __future__ import annotations

import numpy as np
from amaranth import C, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from .. import numeric
from ..config import AcceleratorConfig
from ..fp import Mul, ToInt, delay, register
from ..interfaces import ROW_READ_LATENCY
from ..numeric import F32, I64
from .passes import measure_layout, quantise_layout, ring_bits, tag_layout
from .scalar import ONE, measured_layout

CODE_MAX = 32767


def codes_layout(config: AcceleratorConfig) -> data.StructLayout:
    """Codes of one word, on their way to a memory."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "last": unsigned(1),  # of the pass
            "tag": tag_layout(config),
            "codes": data.ArrayLayout(signed(16), config.lanes),
        }
    )


def reference_measure(x: F32, gain: F32 | None, largest: F32) -> tuple[F32, numeric.U64]:
    """(absmax of x * gain, aligned sum of squares of x) over the last axis."""
    z = x if gain is None else numeric.mul(x, gain)
    return np.abs(z).max(axis=-1), numeric.square_sum(x, largest)


def reference_quantise(x: F32, gain: F32 | None, scale: F32) -> I64:
    """Codes round(fl(fl(x * gain) * scale)); no more than `CODE_MAX` where scale <= limit/absmax,
    for which the clamps of `numeric` never act."""
    z = x if gain is None else numeric.mul(x, gain)
    return numeric.to_int(numeric.mul(z, scale[..., None]), 0, -CODE_MAX, CODE_MAX)


class Lanes(Component):
    """`lanes` elements a cycle through z = fl(x * gain), a ring that keeps z, and fl(z * scale).

    Measured is the maximum of |z| over a segment, and the sum of squares of x, each significand
    aligned (truncated) to the exponent of its row's maximum: an exact 64-bit integer. Codes are
    round(fl(z * scale)), signed 16-bit.

    `measure` describes the word that is read from the row memory in the same cycle; `x` and `gain`
    are the read data ROW_READ_LATENCY cycles later. Without `use_gain` the gain is 1. `quantise`
    reads words of z by their address, their number modulo the depth of the ring since reset; a word
    can be read `z_latency` cycles after its `measure`.

    Latency: `measured` comes `measure_latency` cycles after a segment's last word, `codes`
    `quantise_latency` cycles after `quantise`. Throughput: a word a cycle each. No back-pressure.
    Reset drops the words inside.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        super().__init__(
            {
                "measure": In(measure_layout()),
                "x": In(32 * config.lanes),
                "gain": In(32 * config.lanes),
                "use_gain": In(1),
                "measured": Out(1),
                "result": Out(measured_layout()),
                "quantise": In(quantise_layout(config)),
                "codes": Out(codes_layout(config)),
            }
        )

    @property
    def z_latency(self) -> int:
        return ROW_READ_LATENCY + 1 + Mul.LATENCY + 1

    @property
    def measure_latency(self) -> int:
        return ROW_READ_LATENCY + 1 + max(Mul.LATENCY, _SQUARE_LATENCY) + self._levels + 1

    @property
    def quantise_latency(self) -> int:
        return _RING_LATENCY + Mul.LATENCY + ToInt.LATENCY

    @property
    def _levels(self) -> int:
        return exact_log2(self._config.lanes)

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        to_x = ROW_READ_LATENCY + 1
        to_ends = max(Mul.LATENCY, _SQUARE_LATENCY)
        ring_address = ring_bits(c)
        m.submodules.ring = ring = Memory(
            shape=unsigned(32 * c.lanes), depth=1 << ring_address, init=[]
        )
        write = ring.write_port()
        read = ring.read_port(transparent_for=())

        valid = delay(m, self.measure.valid, to_x)
        exponent = delay(m, self.measure.exponent, to_x, reset_less=True)
        kept = delay(m, valid, Mul.LATENCY)
        m.d.sync += write.addr.eq(write.addr + kept)
        m.d.comb += [
            write.en.eq(kept),
            read.en.eq(self.quantise.valid),
            read.addr.eq(self.quantise.address),
        ]
        output = register(m, read.data)
        scale = delay(m, self.quantise.scale, _RING_LATENCY, reset_less=True)

        products: list[Value] = []
        magnitudes: list[Value] = []
        squares: list[Value] = []
        for lane in range(c.lanes):
            bits = slice(32 * lane, 32 * lane + 32)
            x = register(m, self.x[bits])
            m.submodules[f"gain{lane}"] = z = Mul()
            m.submodules[f"scale{lane}"] = scaled = Mul()
            m.submodules[f"round{lane}"] = code = ToInt(16, 0, -CODE_MAX, CODE_MAX)
            m.d.comb += [
                z.a.eq(x),
                z.b.eq(register(m, Mux(self.use_gain, self.gain[bits], ONE))),
                scaled.a.eq(output[bits]),
                scaled.b.eq(scale),
                code.i.eq(scaled.o),
                self.codes.codes[lane].eq(code.o),
            ]
            products.append(z.o)
            magnitudes.append(delay(m, z.o[:31], to_ends - Mul.LATENCY, reset_less=True))
            square = _square(m, x, exponent)
            squares.append(delay(m, square, to_ends - _SQUARE_LATENCY, reset_less=True))
        m.d.comb += write.data.eq(Cat(products))

        while len(magnitudes) > 1:
            pairs = list(zip(magnitudes[::2], magnitudes[1::2], strict=True))
            magnitudes = [register(m, Mux(a > b, a, b)) for a, b in pairs]
            sums = zip(squares[::2], squares[1::2], strict=True)
            squares = [register(m, a + b) for a, b in sums]

        to_end = to_ends + self._levels
        enable = delay(m, valid, to_end)
        word = delay(m, self.measure, to_x + to_end, reset_less=True)
        result = self.result
        m.d.sync += self.measured.eq(enable & word.last)
        with m.If(enable):
            before = Mux(word.first, 0, result.absmax)
            m.d.sync += [
                result.absmax.eq(Mux(magnitudes[0] > before, magnitudes[0], before)),
                result.total.eq(Mux(word.first, 0, result.total) + squares[0]),
                result.exponent.eq(word.exponent),
                result.query.eq(word.query),
            ]
        latency = self.quantise_latency
        m.d.comb += [
            self.codes.valid.eq(delay(m, self.quantise.valid, latency)),
            self.codes.last.eq(delay(m, self.quantise.last, latency, reset_less=True)),
            self.codes.tag.eq(delay(m, self.quantise.tag, latency, reset_less=True)),
        ]
        return m


_RING_LATENCY = 2
_SQUARE_LATENCY = 5


def _square(m: Module, x: Value, exponent: Value) -> Value:
    """Square of the significand of `x`, shifted right by the distance to `exponent`."""
    mantissa = register(m, Cat(x[:23], C(1, 1)) & x[23:31].any().replicate(24))
    distance = Signal(8, name="distance")
    m.d.comb += distance.eq(exponent - x[23:31])
    coarse = register(m, Mux(distance[5:].any(), 3, distance[3:5]))  # 24: nothing is left
    fine = register(m, distance[:3])
    by_bytes = register(m, mantissa >> (coarse << 3))
    aligned = register(m, by_bytes >> register(m, fine))
    return delay(m, aligned * aligned, 2, reset_less=True)  # the multiplier's own two registers
