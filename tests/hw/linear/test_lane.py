"""Tables and lanes against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw.linear import lane, tables
from terntable.hw.linear.lane import Lane
from terntable.hw.linear.tables import TableBuilder

from .linear_cases import config_with

SHAPES = [
    {},
    {"group": 2, "tables": 3, "rows": 4},
    {"group": 4, "tables": 5},
    {"group": 4, "tables": 1},
]


@pytest.mark.parametrize("changes", SHAPES)
def test_table_builder(changes: dict) -> None:
    c = config_with(**changes)
    rng = np.random.default_rng(1)
    activations = rng.integers(-128, 128, c.tile_inputs)
    activations[: c.group] = -128
    expected = tables.reference(activations, c.group)
    dut = TableBuilder(c, c.tables)

    async def testbench(ctx):
        for i, a in enumerate(activations):
            ctx.set(dut.activations[i], int(a))
        got = []
        for entry in range(3**c.group + tables.LATENCY):
            for j in range(c.group):
                ctx.set(dut.digits[j], entry // 3**j % 3)
            got.append([ctx.get(dut.entries[t]) for t in range(c.tables)])
            await ctx.tick()
        assert np.array_equal(np.array(got[tables.LATENCY :]).T, expected)

    sim = Simulator(dut)
    sim.add_clock(4e-9)
    sim.add_testbench(testbench)
    sim.run()


@pytest.mark.parametrize("changes", SHAPES)
def test_lane(changes: dict) -> None:
    c = config_with(**changes)
    rng = np.random.default_rng(2)
    entries = rng.integers(-128 * c.group, 128 * c.group + 1, (c.tables, 3**c.group))
    entries[:, 0] = -128 * c.group
    index = rng.integers(0, 3**c.group, (50, c.tables))
    index[0] = 0
    expected = lane.reference(entries, index)
    dut = Lane(c)

    async def testbench(ctx):
        ctx.set(dut.write_en, 1)
        for entry in range(3**c.group):
            ctx.set(dut.write_address, entry)
            for t in range(c.tables):
                ctx.set(dut.write_data[t], int(entries[t, entry]))
            await ctx.tick()
        ctx.set(dut.write_en, 0)
        got = []
        for row in [*index, *index[: dut.latency]]:
            for t in range(c.tables):
                ctx.set(dut.index[t], int(row[t]))
            got.append(ctx.get(dut.sum))
            await ctx.tick()
        assert got[dut.latency :] == expected.tolist()

    sim = Simulator(dut)
    sim.add_clock(4e-9)
    sim.add_testbench(testbench)
    sim.run()
