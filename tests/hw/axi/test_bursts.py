"""Burst splitter and fence against their references."""

import random

import pytest
from amaranth.sim import Simulator

from terntable.hw.axi.bursts import BurstSplitter, burst_layout, reference
from terntable.hw.axi.fence import Fence, access_layout
from terntable.hw.axi.fence import reference as allowed

from ..monitor import sink, source, watch


@pytest.mark.parametrize("shy", [False, True])
@pytest.mark.parametrize(
    "bus_bits, burst_beats", [(32, 16), (128, 64), (128, 256), (64, 3), (32, 1)]
)
def test_bursts(bus_bits, burst_beats, shy):
    rng = random.Random(bus_bits + burst_beats)
    size = bus_bits // 8
    plan = [(rng.randrange(0, 1 << 32, size), rng.randint(0, 3 * burst_beats)) for _ in range(12)]
    plan += [(4096 - size, 2), (4096, burst_beats), (0, 4096 // size)]
    expected = [b for a, n in plan for b in reference(a, n, size, burst_beats)]
    dut = BurstSplitter(bus_bits, burst_beats)
    got: list[int] = []
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    watch(sim, dut)
    words = [{"address": a, "beats": n} for a, n in plan]
    sim.add_testbench(source(dut.req, words, random.Random(1), 0.3))
    sim.add_testbench(sink(dut.o, got, len(expected), random.Random(2), 0.3, shy))
    sim.run()
    views = [burst_layout().from_bits(bits) for bits in got]
    assert [(v.address, v.beats) for v in views] == expected
    for address, beats in expected:
        assert 1 <= beats <= burst_beats
        assert address // 4096 == (address + beats * size - 1) // 4096


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_bursts_over_a_page_are_refused():
    with pytest.raises(ValueError, match="257 beats of 128 bits"):
        BurstSplitter(128, 257)


@pytest.mark.parametrize(("idle", "shy"), [(0.0, False), (0.4, False), (0.4, True)])
def test_fence(idle, shy):
    rng = random.Random(3)
    base, lower, limit = 0xAB_CDEF_F000, 0x1000, 0x9_0000
    edges = [0, lower - 16, lower, limit - 32, limit - 16, limit, 0xFFFF_FFF0, 0x1008, 0x1001]
    plan = [(a, n, n % 3) for a in edges for n in (1, 2, 3, 256)]
    plan += [(rng.randrange(0, limit, 16), rng.randint(1, 256), 2) for _ in range(20)]
    dut = Fence(128, 3)
    got: list[int] = []
    ticks = 0

    async def settings(ctx):
        ctx.set(dut.base, base)
        ctx.set(dut.lower, lower)
        ctx.set(dut.limit, limit)

    async def count(ctx):
        nonlocal ticks
        async for _ in ctx.tick():
            ticks += 1

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(settings)
    sim.add_testbench(count, background=True)
    watch(sim, dut)
    words = [{"address": a, "beats": n, "source": s} for a, n, s in plan]
    sim.add_testbench(source(dut.i, words, random.Random(4), idle))
    sim.add_testbench(sink(dut.o, got, len(plan), random.Random(5), idle, shy))
    sim.run()
    for (address, beats, channel), bits in zip(plan, got, strict=True):
        access = access_layout(3).from_bits(bits)
        assert access.addr == (base + address) % (1 << 40)
        assert (access.address, access.beats, access.source) == (address, beats, channel)
        assert access.ok == allowed(address, beats, 16, lower, limit)
    if not idle:
        assert ticks <= len(plan) + Fence.LATENCY + 1
