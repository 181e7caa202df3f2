"""Unpacking and the fetch unit, for words larger and smaller than a beat."""

from __future__ import annotations

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw import isa
from terntable.hw.config import AcceleratorConfig
from terntable.hw.linear import trits, unpack
from terntable.hw.linear.fetch import FetchUnit, join_ports
from terntable.hw.linear.unpack import Unpack

from ..monitor import sink, source, watch
from .linear_cases import config_with

SHAPES = [
    {},  # 12 trits a word, 40 a beat
    {"ports": 1},  # 20 a beat
    {"group": 2, "tables": 3, "rows": 4, "ports": 4},  # 24 of 80
    {"group": 4, "tables": 3, "rows": 6, "tile_rows": 48, "bus_bits": 64},  # 72 of 80
    {"tables": 16, "rows": 4, "ports": 1},  # 192 of 20
    {"tables": 6, "rows": 4, "bus_bits": 64, "ports": 1},  # 72 of 40
    {"tables": 10, "rows": 2, "group": 2},  # a word is a beat
    {"tables": 5, "rows": 2, "group": 4, "ports": 1},  # two beats
    {"group": 2, "tables": 1, "rows": 2, "tokens": 1},  # 4 of 40
]


def weights(c: AcceleratorConfig, words: int, seed: int) -> np.ndarray:
    """Bytes of whole beats with `words` words of random digits."""
    digits = np.random.default_rng(seed).integers(0, 3, words * c.word_trits)
    code = trits.encode_bytes(digits)
    return np.concatenate([code, np.zeros(-code.size % c.beat_bytes, np.uint8)])


def beats_of(code: np.ndarray, size: int) -> list[int]:
    return [int.from_bytes(part.tobytes(), "little") for part in code.reshape(-1, size)]


@pytest.mark.parametrize("changes", SHAPES)
def test_unpack(changes: dict) -> None:
    c = config_with(**changes)
    words = 3 * c.beat_bytes * trits.TRITS_PER_BYTE // c.word_trits + 13
    code = weights(c, words, 1)
    expected = unpack.reference(code, words, c)
    for idle, stall in [(0.0, 0.0), (0.4, 0.4)]:
        rng = random.Random(1)
        dut = Unpack(c)
        got: list[int] = []
        cycles = [0]

        async def count(ctx, cycles=cycles):
            async for _ in ctx.tick():
                cycles[0] += 1

        sim = Simulator(dut)
        sim.add_clock(4e-9)
        beats = beats_of(code, c.beat_bytes)
        sim.add_testbench(source(dut.i, beats, rng, idle), background=True)
        watch(sim, dut)
        sim.add_process(count)
        sim.add_testbench(sink(dut.o, got, words, rng, stall, shy=stall > 0))
        sim.run()
        assert got == expected
        if not stall:  # a beat in or a word out in every cycle
            assert cycles[0] <= max(len(beats), words) + Unpack.LATENCY + 2


@pytest.mark.parametrize("changes", [{}, {"ports": 4, "bus_bits": 64}, {"ports": 1}])
def test_fetch(changes: dict) -> None:
    """Several commands; the ports deliver at their own pace; padding beats are dropped."""
    c = config_with(**changes)
    rng = random.Random(5)
    dut = FetchUnit(c)
    jobs = []
    expected: list[int] = []
    for number, words in enumerate([1, 23, 40]):
        code = weights(c, words, number)
        padding = np.zeros(c.beat_bytes * number, np.uint8)
        code = np.concatenate([code, padding])
        address, stride = 4096 * number, 65536
        jobs.append((address, stride, code))
        expected += unpack.reference(code, words, c)
        parts = list(code.reshape(-1, c.ports, c.bus_bytes).swapaxes(0, 1))
        assert (join_ports(parts, c) == code).all()
        jobs[-1] += (parts, words)
    requests: list[list[tuple[int, int]]] = [[] for _ in range(c.ports)]

    def port(p: int):
        channel = getattr(dut, f"port{p}")

        async def testbench(ctx):
            local = random.Random(p)
            while True:
                # Not ready before there is a request, and not always then.
                await ctx.tick().until(channel.req.valid)
                while local.random() < 0.4:
                    await ctx.tick()
                ctx.set(channel.req.ready, 1)
                _, _, request = await ctx.tick().sample(channel.req.payload)
                ctx.set(channel.req.ready, 0)
                requests[p].append((request.address, request.beats))
                number = len(requests[p]) - 1
                part = jobs[number][3][p]
                await ctx.tick().repeat(1 + local.randrange(5))
                await source(channel.data, beats_of(part, c.bus_bytes), local, 0.3)(ctx)

        return testbench

    async def commands(ctx):
        for address, stride, code, _, words in jobs:
            command = isa.encode(
                isa.Op.FETCH,
                address=address,
                port_stride=stride,
                beats=code.size // c.beat_bytes,
                words=words,
            )
            ctx.set(dut.cmd.payload.as_value(), int.from_bytes(command, "little"))
            ctx.set(dut.cmd.valid, 1)
            await ctx.tick().until(dut.cmd.ready)
            ctx.set(dut.cmd.valid, 0)
            while ctx.get(dut.busy):
                await ctx.tick()
        await ctx.tick().repeat(20)

    got: list[int] = []
    sim = Simulator(dut)
    sim.add_clock(4e-9)
    for p in range(c.ports):
        sim.add_testbench(port(p), background=True)
    sim.add_testbench(sink(dut.o, got, len(expected) + 1, rng, 0.3, shy=True), background=True)
    watch(sim, dut)
    sim.add_testbench(commands)
    sim.run()
    assert got == expected
    for p in range(c.ports):
        assert requests[p] == [
            (address + p * stride, code.size // c.beat_bytes)
            for address, stride, code, _, _ in jobs
        ]
