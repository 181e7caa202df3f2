"""Packed tables: the memory that is described, and the RAM32M16s."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw.primitives.table_memory import (
    Ram32m16TableMemory,
    TableMemory,
    address_tables,
    primitives,
)

from .forms import check_forms, yosys_model


def test_tables() -> None:
    rng = np.random.default_rng(1)
    contents = rng.integers(0, 1 << 11, (3, 32))
    dut = TableMemory(3, 11, 5)

    async def testbench(ctx):
        ctx.set(dut.write_en, 1)
        for entry in range(32):
            for t in range(3):
                ctx.set(dut.data[t], int(contents[t, entry]))
                ctx.set(dut.index[t], entry)
            await ctx.tick()
        ctx.set(dut.write_en, 0)
        for _ in range(50):
            index = rng.integers(0, 32, 3)
            for t in range(3):
                ctx.set(dut.index[t], int(index[t]))
            assert [ctx.get(e) for e in dut.entries] == [
                contents[t, i] for t, i in enumerate(index)
            ]
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(4e-9)
    sim.add_testbench(testbench)
    sim.run()


@pytest.mark.parametrize("tables, width, address_bits", [(8, 40, 5), (3, 11, 5), (1, 11, 4)])
def test_primitives_equal_twin(tables: int, width: int, address_bits: int) -> None:
    shape = (tables, width, address_bits)
    check_forms(TableMemory(*shape), Ram32m16TableMemory(*shape), [yosys_model("RAM32M16")])


def test_columns_are_packed() -> None:
    """Eight tables of forty bits: 160 columns of two bits, eight a primitive, the eighth of each
    read through the index of one table."""
    assert (primitives(8, 40), address_tables(8, 40)) == (20, 1)
    assert (primitives(12, 40), address_tables(12, 40)) == (30, 2)
    assert (primitives(1, 11), address_tables(1, 11)) == (1, 1)
