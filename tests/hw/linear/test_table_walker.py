"""Tables that accumulators walk through: NumPy, the twin and the DSP48E2s."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw.linear import table_walker, tables
from terntable.hw.linear.table_walker import DspTableWalker, TableWalker
from terntable.hw.linear.walk import walk

from ..primitives.forms import DSP48E2, check_forms
from .linear_cases import config_with


@pytest.mark.parametrize("group", [2, 3])
def test_every_entry_once(group: int) -> None:
    assert sorted(step.entry for step in walk(group)) == list(range(3**group))


@pytest.mark.parametrize("group, count", [(2, 5), (3, 4), (3, 6)])
def test_entries(group: int, count: int) -> None:
    """Two tables one after the other, the second one's activations taken as soon as possible."""
    c = config_with(group=group, tables=count, max_row=240)
    rng = np.random.default_rng(group)
    activations = rng.integers(-128, 128, (2, count, group))
    activations[0, 0] = -128
    dut = TableWalker(c, count)
    steps = walk(group)

    async def testbench(ctx):
        for values in activations:
            first = values[:, 2 if group == 3 else 0]
            for t in range(count):
                ctx.set(dut.a[t], int(first[t]))
                ctx.set(dut.c[t], int(values[t, 1]))
            ctx.set(dut.take, 1)
            await ctx.tick()
            ctx.set(dut.take, 0)
            for t in range(count):
                ctx.set(dut.a[t], int(values[t, 0]))
            got = np.zeros((count, 3**group), int)
            for cycle in range(len(steps) + table_walker.LATENCY):
                ctx.set(dut.again, int(cycle == 0 and group == 3))
                ctx.set(dut.step, steps[cycle].step if cycle < len(steps) else {"keep": 1})
                if cycle >= table_walker.LATENCY:
                    entry = steps[cycle - table_walker.LATENCY].entry
                    got[:, entry] = [ctx.get(dut.entries[t]) for t in range(count)]
                await ctx.tick()
            assert np.array_equal(got, tables.reference(values.reshape(-1), group))

    sim = Simulator(dut)
    sim.add_clock(4e-9)
    sim.add_testbench(testbench)
    sim.run()


def test_primitives_equal_twin() -> None:
    c = config_with(group=3, tables=6, max_row=240)
    check_forms(TableWalker(c, 6), DspTableWalker(c, 6), [DSP48E2])
