"""Codes into packed words."""

from __future__ import annotations

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw.elementwise.code_packer import CodePacker
from terntable.hw.isa import KvFormat
from terntable.hw.kv_records import pack_codes


@pytest.mark.parametrize("lanes, word_bits", [(2, 32), (2, 256), (8, 128)])
@pytest.mark.parametrize("kv", KvFormat)
def test_records_of_any_length(kv: KvFormat, lanes: int, word_bits: int) -> None:
    rng = np.random.default_rng(lanes + word_bits)
    idle = random.Random(word_bits)
    lengths = [1, 2, 3, 5, 8, 16, 17, 1, 64]  # words of codes
    records = [rng.integers(-kv.code_max, kv.code_max + 1, n * lanes) for n in lengths]
    expected = []
    for codes in records:
        data = pack_codes(codes, kv).tobytes()
        size = word_bits // 8
        words = [data[at : at + size].ljust(size, b"\0") for at in range(0, len(data), size)]
        numbers = [int.from_bytes(word, "little") for word in words]
        expected += [(n, at == len(words) - 1) for at, n in enumerate(numbers)]
    dut = CodePacker(lanes, word_bits)
    got = []

    async def drive(ctx):
        ctx.set(dut.format, kv)
        for number, codes in enumerate(records):
            for at in range(0, len(codes), lanes):
                while number > 4 and idle.random() < 0.4:  # back to back before
                    ctx.set(dut.valid, 0)
                    await ctx.tick()
                word = codes[at : at + lanes].astype("<i2").tobytes()
                ctx.set(dut.codes, int.from_bytes(word, "little"))
                ctx.set(dut.valid, 1)
                ctx.set(dut.last, at + lanes == len(codes))
                await ctx.tick()
        ctx.set(dut.valid, 0)
        await ctx.tick().repeat(CodePacker.LATENCY)

    async def watch(ctx):
        async for _, _, valid, word, last in ctx.tick().sample(dut.o_valid, dut.o, dut.o_last):
            if valid:
                got.append((word, bool(last)))

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(drive)
    sim.add_testbench(watch, background=True)
    sim.run()
    assert got == expected


def test_a_width_that_codes_do_not_fill() -> None:
    with pytest.raises(ValueError, match="word_bits is 48: make it a multiple of 32"):
        CodePacker(2, 48)
