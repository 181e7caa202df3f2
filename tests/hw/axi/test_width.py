"""Width converter."""

import random

import pytest
from amaranth.sim import Simulator

from terntable.hw.axi.width import WidthConverter, reference

from ..monitor import sink, source, watch


@pytest.mark.parametrize("shy", [False, True])
@pytest.mark.parametrize("idle", [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.4, 0.4)])
@pytest.mark.parametrize("i_bits, o_bits", [(8, 32), (32, 8), (8, 8), (12, 36), (36, 12), (64, 32)])
def test_words_keep_their_order(i_bits, o_bits, idle, shy):
    rng = random.Random(i_bits * 100 + o_bits)
    words = [rng.getrandbits(i_bits) for _ in range(61)]
    expected = reference(words, i_bits, o_bits)
    dut = WidthConverter(i_bits, o_bits)
    got: list[int] = []
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    watch(sim, dut)
    sim.add_testbench(source(dut.i, words, random.Random(1), idle[0]))
    sim.add_testbench(sink(dut.o, got, len(expected), random.Random(2), idle[1], shy))
    sim.run()
    assert got == expected


@pytest.mark.parametrize("i_bits, o_bits", [(8, 32), (32, 8), (8, 8)])
def test_full_throughput(i_bits, o_bits):
    dut = WidthConverter(i_bits, o_bits)
    cycles = []

    async def tb(ctx):
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.o.ready, 1)
        async for _, _, taken, given in ctx.tick().sample(dut.i.ready, dut.o.valid):
            cycles.append((taken, given))
            if len(cycles) == 48:
                break

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(tb)
    sim.run()
    ratio = max(i_bits, o_bits) // min(i_bits, o_bits)
    slow = 48 // ratio
    taken, given = (sum(c[n] for c in cycles) for n in (0, 1))
    assert taken >= (48 if i_bits <= o_bits else slow)
    assert given >= (47 if o_bits <= i_bits else slow - 1)


@pytest.mark.parametrize("i_bits, o_bits", [(8, 32), (32, 8)])
def test_clear_drops_the_rest(i_bits, o_bits):
    dut = WidthConverter(i_bits, o_bits)
    got: list[int] = []

    async def tb(ctx):
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload, 0x55)
        await ctx.tick()
        ctx.set(dut.clear, 1)
        assert not ctx.get(dut.i.ready)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        assert not ctx.get(dut.o.valid)
        for word in (0x11, 0x22, 0x33, 0x44):
            ctx.set(dut.i.payload, word)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)

    count = 1 if i_bits < o_bits else 16
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(tb)
    watch(sim, dut, clear=dut.clear)

    async def take(ctx):
        await ctx.tick().repeat(3)
        await sink(dut.o, got, count, random.Random(0))(ctx)

    sim.add_testbench(take)
    sim.run_until(1e-3)
    assert got == reference([0x11, 0x22, 0x33, 0x44], i_bits, o_bits)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_odd_ratio_is_refused():
    with pytest.raises(ValueError, match="32 bits to 24 bits"):
        WidthConverter(32, 24)
