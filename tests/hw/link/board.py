"""The link's gateware in Amaranth's simulator, with registers and memory behind it, as a port that
the host's code talks to. Time passes while the host reads, and nothing depends on the machine's."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from amaranth.sim import Simulator

from terntable.host.link.port import Port
from terntable.hw.link.host_link import LinkCore

from .slaves import Memory, Registers

CLOCK_HZ = 1_000_000
OCTET_CYCLES = 2
BASE = 0x4000_0000
BUS_BITS = 32
BEATS = 16

Damage = Callable[[bytes], bytes]
"""What a line makes of octets."""


class Faults:
    """A line that drops, repeats and damages octets, each with probability `rate`."""

    def __init__(self, seed: int, rate: float) -> None:
        self._rng = random.Random(seed)
        self._rate = rate

    def __call__(self, octets: bytes) -> bytes:
        out = bytearray()
        for octet in octets:
            what = self._rng.choice((b"", [octet, octet], [octet ^ 1 << self._rng.randrange(8)]))
            out += bytes(what) if self._rng.random() < self._rate else bytes([octet])
        return bytes(out)


class SimulatedBoard(Port):
    """`stall` is how likely each channel of the buses stands still in a cycle; the line is what
    `to_board` and `to_host` make of it."""

    name = "simulated"
    baud = 10 * CLOCK_HZ // OCTET_CYCLES

    def __init__(
        self,
        *,
        size: int = 8192,
        seed: int = 0,
        stall: float = 0.2,
        to_board: Damage = bytes,
        to_host: Damage = bytes,
    ) -> None:
        self.dut = LinkCore(CLOCK_HZ, BUS_BITS, BEATS, BASE, size)
        self.registers = Registers(self.dut.axil, seed, stall)
        self.memory = Memory(self.dut.m_axi, BASE, size, BEATS, seed, stall)
        self.irq = False
        self.to_board, self.to_host = to_board, to_host
        self._sent: deque[int] = deque()
        self._came = bytearray()
        self._now = 0.0
        self._simulator = Simulator(self.dut)
        self._simulator.add_clock(1 / CLOCK_HZ)
        self._simulator.add_testbench(self._line, background=True)
        self.registers.attach(self._simulator)
        self.memory.attach(self._simulator)

    def write(self, data: bytes) -> None:
        self._sent += self.to_board(data)

    def read(self, timeout: float) -> bytes:
        until = self._now + timeout
        while not self._came and self._now < until:
            self.run(16)
        came, self._came = self.to_host(bytes(self._came)), bytearray()
        return came

    def run(self, cycles: int) -> None:
        """Let time pass."""
        self._now += cycles / CLOCK_HZ
        self._simulator.run_until(self._now)

    def exchange(self, octets: bytes, answers: int) -> list[bytes]:
        """Send octets, and take as many frames: what stands between flags."""
        self.write(octets)
        got = b""
        while len(frames := [f for f in got.split(b"\x7e")[:-1] if f]) < answers:
            came = self.read(0.02)
            assert came, f"{len(frames)} answers of {answers}"
            got += came
        return frames

    def clock(self) -> float:
        return self._now

    def close(self) -> None:
        pass

    async def _line(self, ctx: Any) -> None:
        """An octet each way every OCTET_CYCLES."""
        line_in, line_out = self.dut.i, self.dut.o
        ctx.set(line_out.ready, 1)
        while True:
            ctx.set(self.dut.irq, self.irq)
            ctx.set(line_in.valid, bool(self._sent))
            ctx.set(line_in.payload, self._sent.popleft() if self._sent else 0)
            for _ in range(OCTET_CYCLES):
                _, _, valid, payload = await ctx.tick().sample(line_out.valid, line_out.payload)
                ctx.set(line_in.valid, 0)
                if valid:
                    self._came.append(payload)
