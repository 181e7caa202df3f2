"""The watchdog: when it reports, and whom."""

from __future__ import annotations

import pytest
from amaranth.sim import Simulator

from terntable.hw import isa
from terntable.hw.control.watchdog import Watchdog
from terntable.hw.regs import COMMAND_UNIT, ERROR_UNITS, Error

F, L, V, M, A = (1 << unit for unit in isa.Unit)  # M multiplies: LINEAR


def run(bench) -> None:
    dut = Watchdog()

    async def process(ctx):
        await bench(ctx, dut)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(process)
    sim.run()


@pytest.mark.parametrize("limit", [1, 2, 37])
def test_it_counts_cycles_without_progress(limit: int) -> None:
    async def bench(ctx, dut):
        ctx.set(dut.limit, limit)
        await ctx.tick().repeat(3 * limit)
        assert not ctx.get(dut.error.valid)  # no call runs
        ctx.set(dut.running, 1)
        for _ in range(4):
            for _ in range(limit - 1):
                await ctx.tick()
                assert not ctx.get(dut.error.valid)
            ctx.set(dut.moved, 1)
            await ctx.tick()
            ctx.set(dut.moved, 0)
        for _ in range(limit):
            assert not ctx.get(dut.error.valid)
            await ctx.tick()
        assert ctx.get(dut.error.valid)
        assert ctx.get(dut.error.code) == Error.NO_PROGRESS
        ctx.set(dut.running, 0)
        assert not ctx.get(dut.error.valid)
        await ctx.tick()
        ctx.set(dut.running, 1)
        for _ in range(limit):
            assert not ctx.get(dut.error.valid)
            await ctx.tick()
        assert ctx.get(dut.error.valid)

    run(bench)


def test_zero_is_never() -> None:
    async def bench(ctx, dut):
        ctx.set(dut.running, 1)
        for _ in range(100):
            assert not ctx.get(dut.error.valid)
            await ctx.tick()

    run(bench)


@pytest.mark.parametrize(
    ("busy", "weight_wait", "blamed"),
    [
        (0, 0, "sequencer"),
        (F, 0, "FETCH"),
        (L, 0, "LOAD"),
        (F | V, 0, "VECTOR"),  # the ring is full, the array waits for activations
        (F | A | L, 0, "ATTENTION"),
        (F | M | L, 0, "LINEAR"),  # scales wait for the head
        (M, 1, "LINEAR"),  # no FETCH will bring what it waits for
        (F | M, 1, "FETCH"),
        (F | M | L, 1, "FETCH"),
    ],
)
def test_who_is_blamed(busy: int, weight_wait: int, blamed: str) -> None:
    async def bench(ctx, dut):
        ctx.set(dut.limit, 3)
        ctx.set(dut.running, 1)
        ctx.set(dut.busy, busy)
        ctx.set(dut.weight_wait, weight_wait)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.error.valid)
        assert ERROR_UNITS[ctx.get(dut.error.unit)] == blamed
        # The bus before all others.
        ctx.set(dut.outstanding, {"valid": 1, "code": 0, "unit": 4, "address": 0xABC0})
        assert ERROR_UNITS[ctx.get(dut.error.unit)] == "KV write"
        assert ctx.get(dut.error.address) == 0xABC0

    run(bench)
    assert COMMAND_UNIT > 5
