"""The serial receiver and transmitter, at rates that do not divide the clock."""

from __future__ import annotations

import random

import pytest
from amaranth import Module
from amaranth.lib.wiring import Component, Out
from amaranth.sim import Simulator

from terntable.hw.link.uart import BITS, UartReceiver, UartTransmitter, phase_step, rate_error

from ..monitor import source

RATES = [(50_000_000, 3_000_000), (100_000_000, 12_500_000), (25_000_000, 3_000_000),
         (50_000_000, 921_600)]  # fmt: skip
"""Clock and baud: 16.7, 8, 8.3 and 54.3 cycles a bit."""

OCTETS = [0x00, 0xFF, 0x55, 0xAA, 0x7E, 0x7D, *random.Random(1).randbytes(20)]


def line(octets: list[int], cycles_per_bit: float, idle: float = 0.0) -> list[int]:
    """The level of a line in each cycle; `idle` bits of pause behind each octet."""
    edges: list[tuple[float, int]] = []
    at = 3.0
    for octet in octets:
        for bit in (0, *(octet >> n & 1 for n in range(8)), 1):
            edges.append((at, bit))
            at += cycles_per_bit
        at += idle * cycles_per_bit
    levels, now = [], 1
    for cycle in range(int(at) + 20):
        while edges and edges[0][0] <= cycle:
            now = edges.pop(0)[1]
        levels.append(now)
    return levels


def receive(levels: list[int], clock_hz: int, baud: int) -> list[int]:
    dut = UartReceiver(clock_hz, baud)
    got: list[int] = []

    async def drive(ctx):
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(10)
        for level in levels:
            ctx.set(dut.rx, level)
            _, _, valid, octet = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid:
                got.append(octet)

    sim = Simulator(dut)
    sim.add_clock(1 / clock_hz)
    sim.add_testbench(drive)
    sim.run()
    return got


@pytest.mark.parametrize(("clock_hz", "baud"), RATES)
@pytest.mark.parametrize("off", [-0.03, 0.0, 0.03])
def test_octets_from_a_clock_that_differs(clock_hz: int, baud: int, off: float) -> None:
    """Without a pause between the octets, from a far end that is three percent fast or slow."""
    if abs(off) and clock_hz / baud < 10:
        off /= 2  # what the docstring's formula leaves
    levels = line(OCTETS, clock_hz / baud / (1 + off))
    assert receive(levels, clock_hz, baud) == OCTETS


def test_short_pulses_are_noise() -> None:
    rng = random.Random(2)
    levels = line(OCTETS, 50 / 3, idle=1.5)
    at = 0
    while at < len(levels):
        levels[at] ^= 1
        at += rng.randrange(5, 30)
    # Pulses next to an edge shift it; those within a bit or between octets do nothing.
    calm = line(OCTETS, 50 / 3, idle=1.5)
    for n in range(3, len(calm) - 3):
        if len({*calm[n - 3 : n + 4]}) > 1:
            levels[n] = calm[n]
    assert levels != calm
    assert receive(levels, 50_000_000, 3_000_000) == OCTETS


def test_an_octet_without_a_stop_bit_is_dropped() -> None:
    good, bits = line([0x31], 50 / 3, idle=2), 50 / 3
    broken = line([0x00], bits)
    stop = round(3 + 9 * bits)
    broken = broken[:stop] + [0] * round(30 * bits) + [1] * round(2 * bits)
    assert receive(good + broken + good, 50_000_000, 3_000_000) == [0x31, 0x31]


class Loop(Component):
    """A transmitter and a receiver on one line."""

    def __init__(self, clock_hz: int, baud: int) -> None:
        self.transmitter = UartTransmitter(clock_hz, baud)
        self.receiver = UartReceiver(clock_hz, baud)
        super().__init__({"line": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.transmitter = self.transmitter
        m.submodules.receiver = self.receiver
        m.d.comb += [self.line.eq(self.transmitter.tx), self.receiver.rx.eq(self.line)]
        return m


@pytest.mark.parametrize(("clock_hz", "baud"), RATES)
def test_what_is_sent_is_received(clock_hz: int, baud: int) -> None:
    """With edges within a cycle of the rate's, and no gap that the rate does not want."""
    dut = Loop(clock_hz, baud)
    got: list[int] = []
    came: list[int] = []
    octet = BITS * clock_hz / baud

    async def take(ctx):
        for cycle in range(round((len(OCTETS) + 2) * octet)):
            _, _, valid, payload = await ctx.tick().sample(
                dut.receiver.o.valid, dut.receiver.o.payload
            )
            if valid:
                got.append(payload)
                came.append(cycle)

    async def send(ctx):
        await ctx.tick().repeat(8)  # the receiver has to see the line high
        await source(dut.transmitter.i, OCTETS, random.Random(3))(ctx)

    sim = Simulator(dut)
    sim.add_clock(1 / clock_hz)
    sim.add_testbench(send, background=True)
    sim.add_testbench(take)
    sim.run()
    assert got == OCTETS
    assert abs(came[-1] - came[0] - (len(OCTETS) - 1) * octet) < 2 * len(OCTETS)


def test_rates() -> None:
    assert abs(rate_error(50_000_000, 3_000_000)) < 1e-6
    assert abs(rate_error(250_000_000, 115_200)) < 1e-4
    for baud in (0, -1, 7_000_000):
        with pytest.raises(ValueError, match=f"{baud} baud at 50000000 Hz"):
            phase_step(50_000_000, baud)
