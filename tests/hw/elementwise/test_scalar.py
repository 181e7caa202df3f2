"""The arithmetic of rows and heads, against NumPy, with its latency."""

from __future__ import annotations

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw import numeric
from terntable.hw.elementwise import head_scales, scalar
from terntable.hw.elementwise.head_scales import HeadScales
from terntable.hw.elementwise.scalar import Scalar, bits
from terntable.hw.isa import KvFormat

from ..monitor import watch as stream_watch

F32 = np.float32


def some_rows(count: int, seed: int) -> tuple[numeric.F32, numeric.I64, numeric.U64]:
    """(absmax, exponent, total) as the lanes measure them in rows of 2 to 4096 elements."""
    rng = np.random.default_rng(seed)
    exponent = rng.integers(1, 255, count)
    n = 2 ** rng.integers(1, 13, count)
    # The largest square is at least 2**46 and there are at most n of it.
    total = (2.0**46 * (1 + rng.random(count) * 3 * n)).astype(np.uint64)
    absmax = np.ldexp(1 + rng.random(count), np.clip(exponent - 127, -125, 126)).astype(F32)
    zero = rng.random(count) < 0.1
    exponent[zero], total[zero], absmax[zero] = 0, 0, 0
    absmax[rng.random(count) < 0.2] *= F32(1e-7)
    return numeric.finish(absmax), exponent, total


def extreme_rows() -> tuple[numeric.F32, numeric.I64, numeric.U64]:
    """Rows of 96 elements whose largest one, and product with the gain, are at the limits."""
    sizes = [0, np.nextafter(F32(2.0**-126), F32(1)), 2e-38, 1e-30, 9e-6, 1e30, numeric.LARGEST]
    largest, absmax = map(np.ravel, np.meshgrid(np.float32(sizes), np.float32(sizes)))
    exponent = numeric.exponent(largest)
    total = np.where(exponent > 0, 96 * ((1 << 24) - 1) ** 2, 0).astype(np.uint64)
    return absmax, exponent, total


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [(False, 1e-5), (True, 1e-5), (True, 0), (True, 1e30)])
def test_rows(norm: bool, head: bool, eps: float) -> None:
    some, extreme = some_rows(20, 1), extreme_rows()
    absmax, exponent, total = map(np.concatenate, zip(some, extreme, strict=True))
    inv_n, eps = F32(1 / 96), F32(eps)
    scales, factors = scalar.reference(absmax, exponent, total, norm, inv_n, eps, head)
    dut = Scalar()

    async def tb(ctx):
        p = dut.parameters
        ctx.set(p, {"head": head, "norm": norm, "inv_n": bits(inv_n), "eps": bits(eps)})
        for i in range(len(absmax)):
            ctx.set(
                dut.i.payload,
                {"absmax": bits(absmax[i]), "exponent": int(exponent[i]), "total": int(total[i])},
            )
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
            cycles = 0
            scaled_at = ready_at = None
            while ready_at is None or scaled_at is None:
                cycles += 1
                if ctx.get(dut.scaled):
                    scaled_at = cycles
                    assert ctx.get(dut.scale) == bits(scales[i]), i
                if ctx.get(dut.factor_valid):
                    assert ctx.get(dut.factor) == bits(factors[i]), i
                if ctx.get(dut.i.ready):
                    ready_at = cycles
                await ctx.tick()
            assert (scaled_at, ready_at) == Scalar.latency(norm)
            assert ctx.get(dut.factor) == bits(factors[i]), i

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    stream_watch(sim, dut)
    sim.add_testbench(tb)
    sim.run()


@pytest.mark.parametrize(
    ("dividers", "kv"), [(1, KvFormat.INT16), (3, KvFormat.INT8), (4, KvFormat.INT4)]
)
def test_heads(dividers: int, kv: KvFormat) -> None:
    absmax, _, _ = some_rows(60, 2)
    absmax[:4] = [0, numeric.KV_FLOOR, numeric.LARGEST, F32(2.0**-110)]
    rng = random.Random(3)
    query = [rng.getrandbits(1) for _ in absmax]
    score_scale = F32(numeric.LOG2E / np.sqrt(np.float32(64)))
    post = np.where(query, score_scale, F32(1)).astype(F32)
    formats = [KvFormat.INT16 if q else kv for q in query]
    each = [head_scales.reference(a, f, p) for a, f, p in zip(absmax, formats, post, strict=True)]
    scales, factors = zip(*each, strict=True)
    dut = HeadScales(dividers)
    got, taken = [], []

    async def source(ctx):
        ctx.set(dut.score_scale, bits(score_scale))
        ctx.set(dut.format, kv)
        for i in range(len(absmax)):
            ctx.set(dut.i.payload, {"absmax": bits(absmax[i]), "query": query[i]})
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
            if i > 30:  # back to back before
                await ctx.tick().repeat(rng.randrange(1, 20))

    async def watch(ctx):
        cycle = 0
        ticks = ctx.tick().sample(dut.scaled, dut.scale, dut.factor, dut.i.valid & dut.i.ready)
        async for _, _, scaled, scale, factor, take in ticks:
            cycle += 1
            if take:
                taken.append(cycle)
            if scaled:
                got.append((cycle, scale, factor))
            if len(got) == len(absmax):
                break

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    stream_watch(sim, dut)
    sim.add_testbench(source)
    sim.add_testbench(watch)
    sim.run()
    assert [g[1:] for g in got] == [
        (bits(s), bits(f)) for s, f in zip(scales, factors, strict=True)
    ]
    assert {g[0] - t for g, t in zip(got, taken, strict=True)} == {HeadScales.LATENCY}
    assert taken[dividers * 5] - taken[0] == 5 * (HeadScales.LATENCY + 1)
