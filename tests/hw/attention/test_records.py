"""Records from a memory port cut into code words and scales."""

from __future__ import annotations

import random

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib.wiring import Component, connect, flipped
from amaranth.sim import Simulator

from terntable.hw.attention.records import RecordUnpacker
from terntable.hw.attention.shape import AttentionShape
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.isa import KvFormat
from terntable.hw.kv_records import pack_records
from terntable.hw.numeric import sanitise
from terntable.hw.record_places import record_places

from ..monitor import source, watch

POSITIONS = 5


class Bench(Component):
    """The unpacker with the places that its users give it."""

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape
        self.unpacker = RecordUnpacker(shape)
        super().__init__(self.unpacker.signature)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, inner = self.shape, self.unpacker
        m.submodules.unpacker = inner
        connect(m, flipped(self.i), inner.i)
        for name in ("go", "count", "format", "head_beats", "record_beats"):
            m.d.comb += getattr(inner, name).eq(getattr(self, name))
        m.d.comb += [
            inner.places.eq(record_places(m, s.config, self.format, self.head_beats, s.dims)),
            self.done.eq(inner.done),
        ]
        connect(m, inner.code, flipped(self.code))
        connect(m, inner.scale, flipped(self.scale))
        return m


def some_records(
    config: AcceleratorConfig, kv: KvFormat, head_dim: int, dims: int, spare: int
) -> tuple:
    """Records of one port, and what is to come of them in words of `dims` codes."""
    rng = np.random.default_rng([kv, head_dim])
    k, v = (rng.integers(-kv.code_max, kv.code_max + 1, (POSITIONS, head_dim)) for _ in "kv")
    scales = rng.integers(0, 1 << 32, (2, POSITIONS), np.uint32).view(np.float32)
    size = config.record_bytes(head_dim, kv.bits) + spare * config.bus_bytes
    records = pack_records(config, kv, (k, scales[0]), (v, scales[1]), size)
    records[:, -spare * config.bus_bytes or size :] = 0xA5  # padding is nobody's
    codes = {
        (position, which, beat): int.from_bytes(word.astype("<i2").tobytes(), "little")
        for which, all_codes in enumerate((k, v))
        for position, row in enumerate(all_codes)
        for beat, word in enumerate(row.reshape(-1, dims))
    }
    clean = sanitise(scales.view(np.uint32)).view(np.uint32)
    return records, codes, {p: (int(clean[0, p]), int(clean[1, p])) for p in range(POSITIONS)}


@pytest.mark.parametrize("idle", [0.0, 0.4])
@pytest.mark.parametrize("kv", KvFormat)
@pytest.mark.parametrize(
    "bus_bits, attention_dims, head_dim, spare",
    [(32, 4, 12, 0), (32, 16, 32, 1), (256, 4, 20, 0), (128, 8, 40, 2), (128, 32, 96, 0)],
)
def test_codes_and_scales(
    kv: KvFormat, bus_bits: int, attention_dims: int, head_dim: int, spare: int, idle: float
) -> None:
    sizes = dict(ports=4, max_head_dim=96, max_hidden=96, max_row=288)
    given = dict(bus_bits=bus_bits, attention_dims=attention_dims)
    fields = load_config("test").model_dump() | sizes | given
    config = AcceleratorConfig.model_validate(fields)
    shape = AttentionShape.of(config)
    dims = shape.dims
    records, codes, scales = some_records(config, kv, head_dim, dims, spare)
    words = [
        int.from_bytes(word.tobytes(), "little")
        for word in records.reshape(-1, config.bus_bytes)
    ]  # fmt: skip
    dut = Bench(shape)
    got_codes: dict = {}
    got_scales: dict = {}
    cycles = []

    async def control(ctx):
        ctx.set(dut.format, kv)
        ctx.set(dut.head_beats, head_dim // dims)
        ctx.set(dut.record_beats, len(words) // POSITIONS)
        ctx.set(dut.count, POSITIONS)
        await ctx.tick().repeat(3)
        ctx.set(dut.go, 1)
        await ctx.tick().until(dut.done)
        ctx.set(dut.go, 0)
        await ctx.tick()

    async def collect(ctx):
        code, scale = dut.code, dut.scale
        signals = (dut.go, code.en, code.position, code.v, code.beat, code.data)
        signals += (scale.en, scale.position, scale.k, scale.v)
        async for (
            _,
            _,
            go,
            en,
            position,
            v,
            beat,
            word,
            s_en,
            s_position,
            *pair,
        ) in ctx.tick().sample(*signals):
            cycles.append(go)
            if en:
                assert (position, v, beat) not in got_codes
                got_codes[position, v, beat] = word
            if s_en:
                assert s_position not in got_scales
                got_scales[s_position] = tuple(pair)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    watch(sim, dut)
    sim.add_testbench(source(dut.i, words, random.Random(head_dim), idle))
    sim.add_testbench(control)
    sim.add_testbench(collect, background=True)
    sim.run()
    assert got_codes == codes
    assert got_scales == scales
    if not idle:
        # A cycle a bus word, or one for each code word of it; then `done`.
        per_word = max(1, bus_bits // (dims * kv.bits))
        assert sum(cycles) <= len(words) * per_word + 1
        if per_word == 1:
            assert sum(cycles) == len(words) + 1
