"""The multiplier with an adder behind it: integers, its twin and the DSP48E2."""

from __future__ import annotations

import itertools
import random

import pytest
from amaranth.sim import Simulator

from terntable.hw.primitives.mac import (
    A_BITS,
    B_BITS,
    LATENCY,
    SUM_BITS,
    THIRD_LATENCY,
    DspMac,
    Mac,
)

from .forms import DSP48E2, check_forms

FORMS = [
    {"held": held, "late": late, "cascade": cascade, "third": third}
    for held, late, cascade, third in itertools.product(
        (False, True), (False, True), (False, True), ("none", "c", "p")
    )
]


def wrapped(value: int) -> int:
    half = 1 << SUM_BITS - 1
    return (value + half) % (2 * half) - half


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_sums(form) -> None:
    rng = random.Random(1)
    dut = Mac(**form)
    cycles = 200
    a = [rng.randrange(-(1 << A_BITS - 1), 1 << A_BITS - 1) for _ in range(cycles)]
    b = [rng.choice((-(1 << B_BITS - 1), rng.randrange(1 << B_BITS - 1))) for _ in range(cycles)]
    c, cascade = ([rng.randrange(1 << SUM_BITS - 1) for _ in range(cycles)] for _ in "cc")
    take, move, third = ([rng.randrange(2) for _ in range(cycles)] for _ in "tmu")

    # The factor that is met by b of a cycle.
    factors, waiting, factor = [], 0, 0
    for n in range(cycles):
        factor = waiting if move[n] else factor
        waiting = a[n] if take[n] else waiting
        factors.append(factor if form["held"] else a[n])

    async def testbench(ctx):
        total = 0
        for n in range(cycles):
            for port, values in (
                (dut.a, a), (dut.b, b), (dut.c, c), (dut.cascade, cascade), (dut.take, take),
                (dut.move, move), (dut.use_third, third),
            ):  # fmt: skip
                ctx.set(port, values[n])
            at = n - LATENCY
            if at >= 1:
                expected = factors[at] * b[at - form["late"]]
                expected += cascade[n - 1] if form["cascade"] else 0
                if third[n - THIRD_LATENCY]:
                    expected += {"none": 0, "c": c[n - THIRD_LATENCY], "p": total}[form["third"]]
                if at == 1 and form["third"] == "p":
                    expected = ctx.get(dut.sum)  # what it held before is anything
                total = wrapped(expected)
                assert ctx.get(dut.sum) == ctx.get(dut.cascade_out) == total, n
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(4e-9)
    sim.add_testbench(testbench)
    sim.run()


@pytest.mark.parametrize(
    "form",
    [
        {"held": True, "late": True, "third": "c"},
        {"cascade": False, "third": "p"},
        {"held": True, "cascade": False},
        {"late": True, "third": "p"},
    ],
    ids=str,
)
def test_primitive_equals_twin(form) -> None:
    check_forms(Mac(**form), DspMac(**form), [DSP48E2])
