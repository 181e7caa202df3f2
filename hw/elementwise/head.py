"""The LM head's end of the pipeline: digit planes to logits, logits to DRAM, argmax."""

from __future__ import annotations

import numpy as np
from amaranth import Cat, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, fifo, stream
from amaranth.lib.wiring import Component, In, Out

from .. import numeric
from ..config import AcceleratorConfig
from ..fp import FromInt, Mul, delay
from ..interfaces import WriteChannelSignature

PIECE_BEATS = 16
"""Most beats of a write descriptor: they are in the buffer before it is issued."""
_DEPTH = 2 * PIECE_BEATS
_MARGIN = 8  # words that logits on their way may still need


def reference(
    high: np.ndarray, low: np.ndarray | None, factor: np.float32, scales: numeric.F32, planes: int
) -> tuple[numeric.F32, int]:
    """Logits [n] and their argmax, from the sums [planes * n] of the one or two digits."""
    total = np.asarray(high, np.int64)
    if low is not None:
        total = 256 * total + np.asarray(low, np.int64)
    weights = 3 ** np.arange(planes - 1, -1, -1)
    entries = total.reshape(-1, planes) @ weights
    logits = numeric.mul(numeric.from_int(entries), numeric.mul(factor, scales))
    return logits, int(np.argmax(logits))


def _ordered(bits: Value) -> Value:
    """A key that orders binary32 words as unsigned integers."""
    return Cat(bits[:31] ^ bits[31].replicate(31), ~bits[31])


class Head(Component):
    """Combines the digit planes of each vocabulary entry, scales, finds the argmax and writes the
    logits as binary32, contiguous from `address`.

    `i` has one weight row a beat, in row order: the sum `high` of the only or high digit and `low`
    of the low digit. `planes` rows, of weight .. 27, 9, 3, 1, make an entry: logit =
    fl(fl(sum of planes) * fl(factor * scale)), with one word of `scales` an entry. Of equal logits
    the lowest id is the argmax. The last bus word is padded with zeros, which are not strobed.

    `start` takes `rows` (a positive multiple of `planes`, which is held) and `address` (aligned to
    the bus word); `busy` from the next cycle until all logits are acknowledged; `argmax` and
    `argmax_logit` stay until the next `start`. Throughput one row a cycle. Back-pressure: `i` waits
    for scales and for room in a buffer of logits; a descriptor is issued when its beats
    (PIECE_BEATS, fewer at the end) are in that buffer. Reset drops the command in progress.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config
        beat = data.StructLayout({"high": signed(config.acc_bits), "low": signed(config.acc_bits)})
        super().__init__(
            {
                "start": In(1),
                "rows": In(32),
                "planes": In(3),
                "address": In(32),
                "factor": In(32),
                "busy": Out(1),
                "i": In(stream.Signature(beat)),
                "scales": In(stream.Signature(32)),
                "logits": Out(WriteChannelSignature(config.bus_bits)),
                "argmax": Out(32),
                "argmax_logit": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        room = Signal()

        # Rows in, planes counted.
        rows_left, some = Signal(32), Signal()
        plane = Signal(3)
        final_plane = plane + 1 == self.planes
        allowed = Signal()
        m.d.comb += [
            allowed.eq(room & some),
            self.i.ready.eq(allowed & (~final_plane | self.scales.valid)),
            self.scales.ready.eq(allowed & final_plane & self.i.valid),
        ]
        taken = self.i.valid & self.i.ready
        with m.If(taken):
            m.d.sync += [
                rows_left.eq(rows_left - 1),
                some.eq(rows_left != 1),
                plane.eq(Mux(final_plane, 0, plane + 1)),
            ]

        # Horner's rule over the planes.
        digits = c.head_digits
        value_bits = c.acc_bits + (9 if digits == 2 else 0)
        sum_bits = value_bits + 7
        value = Signal(signed(value_bits), reset_less=True)
        total = Signal(signed(sum_bits), reset_less=True)
        low = self.i.payload.low
        m.d.sync += [
            value.eq((self.i.payload.high << 8) + low if digits == 2 else self.i.payload.high)
        ]
        first = delay(m, plane == 0, 1, reset_less=True)
        with m.If(delay(m, taken, 1)):
            m.d.sync += total.eq(value + Mux(first, 0, total + (total << 1)))

        # Logit.
        m.submodules.to_float = to_float = FromInt(sum_bits)
        m.submodules.scale = scale = Mul()
        m.submodules.scaled = scaled = Mul()
        m.d.comb += [
            to_float.i.eq(total),
            scale.a.eq(self.factor),
            scale.b.eq(self.scales.payload),
            scaled.a.eq(to_float.o),
            scaled.b.eq(delay(m, scale.o, 2 + FromInt.LATENCY - Mul.LATENCY, reset_less=True)),
        ]
        latency = 2 + FromInt.LATENCY + Mul.LATENCY
        valid = delay(m, taken & final_plane, latency)
        final = delay(m, rows_left == 1, latency, reset_less=True)
        logit = scaled.o

        self._elaborate_argmax(m, valid, logit)
        self._elaborate_output(m, valid, final, logit, room)
        with m.If(self.start):
            m.d.sync += [rows_left.eq(self.rows), some.eq(1), plane.eq(0)]
        return m

    def _elaborate_argmax(self, m: Module, valid: Signal, logit: Signal) -> None:
        entry = Signal(32)
        best = Signal(32)
        key = _ordered(logit)
        with m.If(valid):
            m.d.sync += entry.eq(entry + 1)
            with m.If((key > best) | (entry == 0)):
                m.d.sync += [best.eq(key), self.argmax.eq(entry), self.argmax_logit.eq(logit)]
        with m.If(self.start):
            m.d.sync += entry.eq(0)

    def _elaborate_output(
        self, m: Module, valid: Signal, final: Signal, logit: Signal, room: Signal
    ) -> None:
        """Logits into bus words, these through a buffer to the write channel."""
        c = self._config
        lanes = c.bus_bits // 32
        piece = min(PIECE_BEATS, c.burst_beats)
        word = data.StructLayout({"data": data.ArrayLayout(32, lanes), "strobe": lanes})
        m.submodules.buffer = buffer = fifo.SyncFIFOBuffered(
            width=Shape.cast(word).width, depth=_DEPTH
        )
        filling = Signal(word)
        current = Signal(word)
        lane = Signal(range(max(lanes, 2)))
        full = Signal()
        m.d.comb += current.eq(filling)
        with m.Switch(lane):
            for n in range(lanes):
                with m.Case(n):
                    m.d.comb += [current.data[n].eq(logit), current.strobe[n].eq(1)]
        m.d.comb += [full.eq(final | (lane == lanes - 1))]
        with m.If(valid):
            m.d.sync += [
                filling.eq(Mux(full, 0, current.as_value())),
                lane.eq(Mux(full, 0, lane + 1)),
            ]
        m.d.comb += [buffer.w_data.eq(current), buffer.w_en.eq(valid & full)]
        m.d.sync += room.eq(buffer.level <= _DEPTH - _MARGIN)

        # `flush` once the last word is in the buffer.
        flush = Signal()
        with m.If(valid & final):
            m.d.sync += flush.eq(1)

        address = Signal(32)
        beats = Signal(range(piece + 1))
        out = data.View(word, buffer.r_data)
        m.d.comb += [
            self.logits.req.payload.address.eq(address),
            self.logits.req.payload.beats.eq(beats),
            self.logits.data.payload.data.eq(out.data),
            self.logits.data.payload.strobe.eq(Cat(bit.replicate(4) for bit in out.strobe)),
        ]
        with m.FSM():
            with m.State("Gather"):
                with m.If(buffer.level >= piece):
                    m.d.sync += beats.eq(piece)
                    m.next = "Request"
                with m.Elif(flush & (buffer.level != 0)):
                    m.d.sync += beats.eq(buffer.level)
                    m.next = "Request"
                with m.Elif(flush & self.logits.idle):
                    m.d.sync += [flush.eq(0), self.busy.eq(0)]
            with m.State("Request"):
                m.d.comb += self.logits.req.valid.eq(1)
                with m.If(self.logits.req.ready):
                    m.d.sync += address.eq(address + beats * (c.bus_bits // 8))
                    m.next = "Data"
            with m.State("Data"):
                m.d.comb += [
                    self.logits.data.valid.eq(buffer.r_rdy),
                    buffer.r_en.eq(self.logits.data.ready),
                ]
                with m.If(self.logits.data.valid & self.logits.data.ready):
                    m.d.sync += beats.eq(beats - 1)
                    with m.If(beats == 1):
                        m.next = "Gather"
        with m.If(self.start):
            m.d.sync += [address.eq(self.address), self.busy.eq(1)]
