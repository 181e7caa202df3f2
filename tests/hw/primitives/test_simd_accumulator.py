"""The SIMD accumulator: integers, its twin and the DSP48E2."""

from __future__ import annotations

import random

from amaranth.sim import Simulator

from terntable.hw.primitives.simd_accumulator import (
    BITS,
    LANES,
    LATENCY,
    DspSimdAccumulator,
    SimdAccumulator,
    step_layout,
)

from .forms import DSP48E2, check_forms

FIELDS = tuple(name for name, _ in step_layout())


def test_steps() -> None:
    rng = random.Random(1)
    dut = SimdAccumulator()
    span, half = 1 << BITS, 1 << BITS - 1

    async def testbench(ctx):
        a, c, total = [0] * LANES, [0] * LANES, [0] * LANES
        expected: list[list[int]] = []
        for cycle in range(300):
            if len(expected) >= LATENCY:
                assert [ctx.get(v) for v in dut.total] == expected[-LATENCY], cycle
            take_a, take_c = rng.randrange(2), rng.randrange(2)
            step = {name: rng.randrange(2) for name in FIELDS}
            given = [[rng.randrange(-half, half) for _ in range(LANES)] for _ in "ac"]
            for lane in range(LANES):
                ctx.set(dut.a[lane], given[0][lane])
                ctx.set(dut.c[lane], given[1][lane])
            a, c = given[0] if take_a else a, given[1] if take_c else c
            ctx.set(dut.take_a, take_a)
            ctx.set(dut.take_c, take_c)
            ctx.set(dut.step, step)
            for lane in range(LANES):
                change = a[lane] * step["a"] + c[lane] * step["c"] + total[lane] * step["turn"]
                value = total[lane] * step["keep"] + (-change if step["minus"] else change)
                total[lane] = (value + half) % span - half
            expected.append(list(total))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(4e-9)
    sim.add_testbench(testbench)
    sim.run()


def test_primitive_equals_twin() -> None:
    check_forms(SimdAccumulator(), DspSimdAccumulator(), [DSP48E2])
