"""The linear unit: the engine's sums through the epilogue into a row memory."""

from __future__ import annotations

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw import isa
from terntable.hw.elementwise import epilogue
from terntable.hw.linear.unit import LinearUnit

from ..monitor import source, watch
from .linear_cases import Case, Problem, config_with


@pytest.mark.parametrize("first", [0, 10])
def test_plain_rows(first: int) -> None:
    """A command that begins a row clears its statistics, one that goes on with it doesn't."""
    c = config_with()
    case = Case(tokens=3, n=22, k=31, tile_words=4, first_row=first)
    problem = Problem(c, case)
    rng = np.random.default_rng(3)
    factors = rng.random(c.chunk, np.float32) + np.float32(0.5)
    scales = np.array([0.75, -1.5], np.float32)
    words = list(np.frombuffer(problem.command, "<u4"))
    words[6:8] = scales.view(np.uint32)
    command = int.from_bytes(np.array(words, "<u4").tobytes(), "little") | case.tokens << 560
    dut = LinearUnit(c)
    rows = np.zeros((case.tokens, first + case.n), np.uint32)
    clears = []

    async def activations(ctx):
        earlier = 0
        async for _, _, en, row, word in ctx.tick().sample(
            dut.a8_read.en, dut.a8_read.row, dut.a8_read.word
        ):
            ctx.set(dut.a8_read.data, earlier)
            earlier = problem.activations(c, row, word) if en else 0

    async def memory(ctx):
        w = dut.f_write
        async for _, _, en, row, word, value, mask, clear in ctx.tick().sample(
            w.en, w.row, w.word, w.data, w.mask, dut.clear_f
        ):
            if clear:
                assert not rows.any()
                clears.append(1)
            for e in range(c.lanes):
                if en and mask >> e & 1:
                    assert ctx.get(dut.busy)
                    rows[row, word * c.lanes + e] = value >> (32 * e) & 0xFFFFFFFF

    async def testbench(ctx):
        for token, factor in enumerate(factors.view(np.uint32)):
            ctx.set(dut.factor.en, 1)
            ctx.set(dut.factor.token, token)
            ctx.set(dut.factor.data, int(factor))
            await ctx.tick()
        ctx.set(dut.factor.en, 0)
        ctx.set(dut.cmd.payload.as_value(), command)
        ctx.set(dut.cmd.valid, 1)
        await ctx.tick().until(dut.cmd.ready)
        ctx.set(dut.cmd.valid, 0)
        while ctx.get(dut.busy):
            await ctx.tick()
        await ctx.tick().repeat(40)

    sim = Simulator(dut)
    sim.add_clock(4e-9)
    sim.add_testbench(source(dut.weights, problem.weights, random.Random(1), 0.1), background=True)
    sim.add_process(activations)
    watch(sim, dut)
    sim.add_testbench(memory, background=True)
    sim.add_testbench(testbench)
    sim.run()

    sums = np.zeros((case.tokens, case.n), np.int64)
    for token, word, values in problem.beats:
        row = word * c.lanes - first
        sums[token, row : row + c.lanes] = values
    expected = epilogue.reference(
        isa.Mode.PLAIN, sums, factors[: case.tokens], np.tile(scales, (3, 1))
    )
    assert not rows[:, :first].any()
    assert (rows[:, first:] == expected.view(np.uint32)).all()
    assert clears == ([] if first else [1])
