"""Serial receiver and transmitter: eight data bits, no parity, one stop bit, any rate."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from .protocol import BITS

PHASE_BITS = 24
"""Fraction of a bit that a cycle counts in."""

LEAST_CYCLES = 8
"""Cycles of a bit, at least: edges are seen to within one of them."""


def phase_step(clock_hz: int, baud: int) -> int:
    """What a cycle adds to the phase, of which 2**PHASE_BITS is a bit.

    Raises ValueError for a rate that the clock is too slow for, or that is none.
    """
    if not 0 < baud * LEAST_CYCLES <= clock_hz:
        raise ValueError(
            f"{baud} baud at {clock_hz} Hz: a bit takes at least {LEAST_CYCLES} cycles,"
            f" {clock_hz // LEAST_CYCLES} baud"
        )
    return round((baud << PHASE_BITS) / clock_hz)


def rate_error(clock_hz: int, baud: int) -> float:
    """Relative error of the rate that the phase's step gives: 1e-3 is a tenth of a percent."""
    return phase_step(clock_hz, baud) * clock_hz / (baud << PHASE_BITS) - 1


class UartReceiver(Component):
    """Octets from a serial line, least significant bit first.

    A phase accumulator counts fractions of a bit, so the rate need not divide the clock: bits are
    sampled in their middle, to within two cycles. The line goes through two registers and a
    majority of three cycles, which takes shorter pulses for noise. The far end's rate may differ
    by (0.5 - 2 / N) / 9.5, where a bit takes N cycles: 3.9 % at 3 Mbaud and 50 MHz (N = 16.7).

    Latency: `o` is valid in the middle of the stop bit, four cycles late. An octet without a stop
    bit is dropped, and the line has to be high before the next one begins. Back-pressure: none,
    the line can't wait. Reset: the line counts as low until it has been high.
    """

    rx: Signal
    o: stream.Interface

    def __init__(self, clock_hz: int, baud: int) -> None:
        self._step = phase_step(clock_hz, baud)
        super().__init__({"rx": In(1), "o": Out(stream.Signature(8, always_ready=True))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        samples = Signal(5)  # the newest lowest; the first two may be metastable
        level = Signal()
        a, b, c = samples[2], samples[3], samples[4]
        m.d.sync += [
            samples.eq(Cat(self.rx, samples)),
            level.eq((a & b) | (b & c) | (a & c)),
        ]

        phase = Signal(PHASE_BITS + 1)
        tick = phase[-1]  # the middle of a bit
        bits = Signal(range(BITS))
        m.d.sync += phase.eq(phase[:-1] + self._step)
        m.d.sync += self.o.valid.eq(0)
        with m.FSM(init="BREAK"):
            with m.State("BREAK"):
                with m.If(level):
                    m.next = "IDLE"
            with m.State("IDLE"):
                m.d.sync += [phase.eq(1 << (PHASE_BITS - 1)), bits.eq(0)]
                with m.If(~level):
                    m.next = "START"
            with m.State("START"):
                with m.If(tick):
                    with m.If(level):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "DATA"
            with m.State("DATA"):
                with m.If(tick):
                    m.d.sync += [
                        self.o.payload.eq(Cat(self.o.payload[1:], level)),
                        bits.eq(bits + 1),
                    ]
                    with m.If(bits == 7):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(tick):
                    m.d.sync += self.o.valid.eq(level)
                    with m.If(level):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "BREAK"
        return m


class UartTransmitter(Component):
    """Octets to a serial line, least significant bit first; the line is high between them.

    Every edge is within a cycle of where the rate wants it. Throughput: an octet in BITS bits,
    rounded up to a cycle. Latency: one cycle from `i` to the start bit. Back-pressure: one octet
    at a time. Reset: the line is high.
    """

    i: stream.Interface
    tx: Signal

    def __init__(self, clock_hz: int, baud: int) -> None:
        self._step = phase_step(clock_hz, baud)
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        phase = Signal(PHASE_BITS + 1)
        left = Signal(range(BITS + 1))  # bits that are not over
        word = Signal(BITS - 1)
        m.d.comb += self.i.ready.eq(left == 0)
        with m.If(left != 0):
            m.d.sync += phase.eq(phase[:-1] + self._step)
            with m.If(phase[-1]):
                m.d.sync += [Cat(self.tx, word).eq(Cat(word, 1)), left.eq(left - 1)]
        with m.Elif(self.i.valid):
            m.d.sync += [
                self.tx.eq(0),
                word.eq(Cat(self.i.payload, 1)),
                left.eq(BITS),
                phase.eq(self._step),
            ]
        return m
