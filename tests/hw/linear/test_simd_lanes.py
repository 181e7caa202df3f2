"""Four token lanes of a row: NumPy, the twin, and the RAM32M16s and DSP48E2s."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw.config import AcceleratorConfig
from terntable.hw.linear import lane
from terntable.hw.linear.array import OLD_LATENCY
from terntable.hw.linear.simd_lanes import DspLanes, SimdLanes, write_addresses
from terntable.hw.linear.skew import TOKENS, available, skew

from ..primitives.forms import DSP48E2, check_forms, yosys_model
from .linear_cases import config_with

SHAPES = [
    {"tables": 32},
    {"tables": 10, "group": 2},  # six entries a chain
    {"tables": 14},  # the last chain is shorter
    {"tables": 2},
]


def shape(changes: dict) -> AcceleratorConfig:
    return config_with(tokens=4, part="xck26", weight_depth=4096, **changes)


@pytest.mark.parametrize("changes", SHAPES)
def test_sums(changes: dict) -> None:
    """Tables of extremes and random entries, then an index word a cycle."""
    c = shape(changes)
    s, rng = skew(c), np.random.default_rng(3)
    most, entries = 128 * c.group, 3**c.group
    tables = rng.integers(-most, most + 1, (TOKENS, c.tables, entries))
    tables[:, :, 0], tables[:, :, 1] = -most, most
    index = rng.integers(0, entries, (40, c.tables))
    index[0], index[1] = 0, 1
    old = rng.integers(-(1 << 22), 1 << 22, (40, TOKENS))
    use_old = rng.integers(0, 2, 40)
    expected = np.stack([lane.reference(t, index) for t in tables], 1) + old * use_old[:, None]
    addressing = write_addresses(c)
    dut = SimdLanes(c)

    async def testbench(ctx):
        got = []
        words = range(entries, entries + len(index))  # cycles of the words, at delay 0
        for cycle in range(words.stop + s.latency):
            enables = 0
            for t, delay in enumerate(s.delay):
                at = cycle - delay
                if 0 <= at < entries:
                    enables |= 1 << delay
                    for token in range(TOKENS):
                        ctx.set(dut.write_data[t][token], int(tables[token, t, at]))
                    ctx.set(dut.index[t], at if addressing[t] else int(rng.integers(entries)))
                elif at in words:
                    ctx.set(dut.index[t], int(index[at - entries, t]))
            ctx.set(dut.write_en, enables)
            at = cycle - (s.latency - OLD_LATENCY)
            if at in words:
                for token in range(TOKENS):
                    ctx.set(dut.old[token], int(old[at - entries, token]))
                ctx.set(dut.use_old, int(use_old[at - entries]))
            if cycle - s.latency in words:
                got.append([ctx.get(total) for total in dut.sums])
            await ctx.tick()
        assert np.array_equal(got, expected)

    sim = Simulator(dut)
    sim.add_clock(4e-9)
    sim.add_testbench(testbench)
    sim.run()


@pytest.mark.parametrize("changes", [*SHAPES, {"tables": 10, "table_buffers": 2}])
def test_primitives_equal_twin(changes: dict) -> None:
    c = shape(changes)
    most = 128 * c.group
    entries = 3**c.group if c.table_buffers == 1 else 1 << c.table_address_bits
    check_forms(
        SimdLanes(c),
        DspLanes(c),
        [yosys_model("RAM32M16"), DSP48E2],
        fields={
            "write_data": (c.table_bits, -most, most),
            "index": (c.table_address_bits, 0, entries - 1),
        },
    )


def test_adders() -> None:
    """Four lookups a chain: 16 narrow adders and 10 wide ones for 32 tables."""
    s = skew(shape({"tables": 32}))
    assert (s.adders, max(s.delay), s.latency) == (26, 4, 9)
    assert [len(chain) for chain in skew(shape({"tables": 10, "group": 2})).chains] == [6, 4]


def test_where_there_are_adders() -> None:
    assert available(shape({}))
    assert not available(config_with(tokens=4))
    assert not available(config_with(tokens=2, part="xck26"))
    assert not available(shape({"group": 4})), "81 entries do not fit a RAM32M16"
