"""The load unit: rows of every kind, sanitised, at any bus width."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw import isa, numeric
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.control.load import LoadUnit

from ..monitor import watch


def config_with(bus_bits: int, lanes: int) -> AcceleratorConfig:
    c = load_config("test").model_dump()
    c |= {"bus_bits": bus_bits, "lanes": lanes, "rows": lanes, "tables": 8, "attention_dims": 8}
    return AcceleratorConfig.model_validate(c)


def words_of(command: bytes) -> list[int]:
    return [int.from_bytes(command[i : i + 4], "little") for i in range(0, 64, 4)]


@pytest.mark.parametrize(("bus_bits", "lanes"), [(32, 2), (64, 2), (128, 4), (256, 2), (128, 8)])
def test_all_destinations(bus_bits: int, lanes: int) -> None:
    c = config_with(bus_bits, lanes)
    rng = random.Random(bus_bits + lanes)
    gen = np.random.default_rng(1)
    memory = gen.integers(0, 2**32, 4096, dtype=np.uint32)
    memory[gen.integers(0, 4096, 600)] &= np.uint32(0x807FFFFF)  # subnormals
    memory[gen.integers(0, 4096, 600)] |= np.uint32(0x7F800000)  # infinities, NaN
    memory[::37] = 0x00800000  # 2**-126
    data = memory.tobytes()
    dut = LoadUnit(c)
    written: dict[tuple, np.ndarray] = {}
    scales: list[int] = []

    async def dram(ctx):
        pending: list[int] = []
        offered = None
        async for _, _, valid, address, beats, taken in ctx.tick().sample(
            dut.load.req.valid,
            dut.load.req.payload.address,
            dut.load.req.payload.beats,
            dut.load.data.ready,
        ):
            if offered is not None and taken:
                offered = None
            if valid and ctx.get(dut.load.req.ready):
                step = c.bus_bytes
                assert address % step == 0
                part = data[address : address + beats * step]
                pending += [
                    int.from_bytes(part[i : i + step], "little") for i in range(0, len(part), step)
                ]
            if offered is None and pending and rng.random() < 0.8:
                offered = pending.pop(0)
            ctx.set(dut.load.data.valid, offered is not None)
            ctx.set(dut.load.data.payload, offered or 0)
            # Ready only after there was a request.
            waiting = valid and not ctx.get(dut.load.req.ready)
            ctx.set(dut.load.req.ready, waiting and rng.random() < 0.5)

    async def sink(ctx):
        ports = {"x": dut.x_write, "rope": dut.rope_write, "gain": dut.gain_write}
        samples = []
        for port in ports.values():
            samples += [port.en, port.row, port.word, port.data]
        async for _, _, *values in ctx.tick().sample(
            *samples, dut.scales.valid, dut.scales.payload
        ):
            for i, name in enumerate(ports):
                en, row, word, value = values[4 * i : 4 * i + 4]
                if en:
                    key = (name, row, word)
                    assert key not in written
                    written[key] = np.frombuffer(value.to_bytes(4 * lanes, "little"), np.uint32)
            if values[-2] and ctx.get(dut.scales.ready):
                scales.append(values[-1])
            waiting = values[-2] and not ctx.get(dut.scales.ready)
            ctx.set(dut.scales.ready, waiting and rng.random() < 0.7)

    async def run(ctx, dest, address, row_bytes, ew, count, position, tokens, done):
        command = isa.encode(
            isa.Op.LOAD, 0, dest=dest, address=address, row_bytes=row_bytes, ew=ew, count=count
        )
        for i, word in enumerate(words_of(command)):
            ctx.set(dut.cmd.payload.words[i], word)
        ctx.set(dut.cmd.payload.position, position)
        ctx.set(dut.cmd.payload.tokens, tokens)
        ctx.set(dut.cmd.payload.done, done)
        ctx.set(dut.cmd.valid, 1)
        await ctx.tick().until(dut.cmd.ready)
        ctx.set(dut.cmd.valid, 0)
        assert ctx.get(dut.busy)
        for _ in range(5000):
            if not ctx.get(dut.busy):
                return
            await ctx.tick()
        raise AssertionError("load does not end")

    def expected(first: int, n: int) -> np.ndarray:
        return numeric.sanitise(memory[first : first + n]).view(np.uint32)

    async def bench(ctx):
        ew = 5
        n = ew * lanes
        await run(ctx, isa.Dest.RESIDUAL, 64, 256, ew, 0, 9, 3, 2)
        for t in range(3):
            want = expected((64 + (2 + t) * 256) // 4, n)
            got = np.concatenate([written[("x", t, w)] for w in range(ew)])
            np.testing.assert_array_equal(got, want)
        assert len(written) == 3 * ew
        written.clear()
        words = c.max_head_dim // lanes
        await run(ctx, isa.Dest.ROPE, 128, 128, words, 0, 3, 2, 0)
        for t in range(2):
            want = expected((128 + (3 + t) * 128) // 4, words * lanes)
            got = np.concatenate([written[("rope", t, w)] for w in range(words)])
            np.testing.assert_array_equal(got, want)
        written.clear()
        await run(ctx, isa.Dest.GAIN, 512, 0, ew, 0, 3, 2, 0)
        got = np.concatenate([written[("gain", 0, w)] for w in range(ew)])
        np.testing.assert_array_equal(got, expected(128, n))
        assert len(written) == ew
        written.clear()
        await run(ctx, isa.Dest.SCALE, 1024, 0, 0, 13, 3, 2, 0)
        np.testing.assert_array_equal(scales, expected(256, 13))
        assert not written

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    watch(sim, dut)
    sim.add_testbench(dram, background=True)
    sim.add_testbench(sink, background=True)
    sim.add_testbench(bench)
    sim.run()
