"""Row memories: addresses, lanes, priorities, statistics."""

from __future__ import annotations

import random

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from terntable.hw.elementwise.rows import RowMemory, reference, times


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 12, 48, 63, 96, 131, 384, 512, 863])
def test_times_a_constant(factor: int) -> None:
    value, product = Signal(5), Signal(16)
    m = Module()
    m.d.comb += product.eq(times(value, factor))

    async def tb(ctx):
        for n in range(32):
            ctx.set(value, n)
            assert ctx.get(product) == n * factor

    sim = Simulator(m)
    sim.add_testbench(tb)
    sim.run()


@pytest.mark.parametrize(("rows", "words", "lanes"), [(4, 7, 2), (1, 12, 4), (5, 8, 8), (3, 1, 1)])
def test_random_traffic(rows: int, words: int, lanes: int) -> None:
    dut = RowMemory(rows, words, lanes, 32, readers=2, writers=2, stats=True)
    rng = random.Random(rows * words)
    content = np.zeros((rows, words, lanes), np.uint32)
    largest = np.zeros(rows, np.uint32)
    latency = dut.stats_latency

    async def tb(ctx):
        due: list[tuple[int, int] | None] = [None, None]
        history = [largest.copy()] * (latency + 1)
        held = None
        for _ in range(600):
            clear = rng.random() < 0.02
            ctx.set(dut.clear, clear)
            if clear:
                largest[:] = 0
            writes, reads = [], []
            for port in (dut.write0, dut.write1):
                en = rng.random() < 0.5
                at = rng.randrange(rows), rng.randrange(words)
                mask = rng.getrandbits(lanes)
                word = [
                    int(np.float32(rng.gauss(0, 1) * 2.0 ** rng.randint(-20, 20)).view(np.uint32))
                    for _ in range(lanes)
                ]
                ctx.set(port.en, en)
                ctx.set(port.row, at[0])
                ctx.set(port.word, at[1])
                ctx.set(port.mask, mask)
                ctx.set(port.data, sum(v << (32 * i) for i, v in enumerate(word)))
                if en:
                    writes.append((at, mask, word))
            for port in (dut.read0, dut.read1):
                en = rng.random() < 0.5
                at = rng.randrange(rows), rng.randrange(words)
                if writes and at == writes[0][0]:
                    en = False  # undefined
                ctx.set(port.en, en)
                ctx.set(port.row, at[0])
                ctx.set(port.word, at[1])
                if en:
                    reads.append(at)
            due.append(tuple(content[reads[0]]) if reads else None)
            if writes:
                (row, word), mask, values = writes[0]
                for i in range(lanes):
                    if mask >> i & 1:
                        content[row, word, i] = values[i]
                        largest[row] = max(
                            largest[row], reference(np.uint32([values[i]]).view(np.float32))
                        )
            history.append(largest.copy())
            await ctx.tick()
            row = rng.randrange(rows)
            ctx.set(dut.max_row, row)
            assert ctx.get(dut.max) == history[-latency][row]
            if due[-2] is not None:
                held = due[-2]
            if held is not None:
                want = sum(int(v) << (32 * i) for i, v in enumerate(held))
                assert ctx.get(dut.read0.data) == want
                assert ctx.get(dut.read1.data) == want

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(tb)
    sim.run()


def test_a_whole_word_without_lanes() -> None:
    dut = RowMemory(2, 3, 1, 96, ram_style="block")

    async def tb(ctx):
        ctx.set(dut.write0.en, 1)
        ctx.set(dut.write0.mask, 1)
        ctx.set(dut.write0.row, 1)
        ctx.set(dut.write0.word, 2)
        ctx.set(dut.write0.data, 1 << 95 | 5)
        await ctx.tick()
        ctx.set(dut.write0.en, 0)
        ctx.set(dut.read0.en, 1)
        ctx.set(dut.read0.row, 1)
        ctx.set(dut.read0.word, 2)
        await ctx.tick().repeat(2)
        assert ctx.get(dut.read0.data) == 1 << 95 | 5

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(tb)
    sim.run()


def test_statistics_need_binary32() -> None:
    with pytest.raises(ValueError, match="lane_bits is 8"):
        RowMemory(2, 2, 2, 8, stats=True)
