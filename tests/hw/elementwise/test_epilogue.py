"""The elementwise pipeline against its reference, all modes, commands back to back."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from terntable.hw import isa, numeric
from terntable.hw.config import load_config
from terntable.hw.elementwise import head
from terntable.hw.elementwise.epilogue import Epilogue, reference
from terntable.hw.isa import PLANES, Mode

from ..monitor import watch


def words(values):
    """binary32 values [..., lanes] as integers, lane 0 lowest."""
    bits = np.ascontiguousarray(values, np.float32).view("<u4")
    return int.from_bytes(bits.tobytes(), "little")


class Bench:
    """Row memories, scales and the memory behind the logits, around an Epilogue."""

    def __init__(self, config, seed):
        self.c = config
        self.rng = np.random.default_rng(seed)
        self.dut = Epilogue(config)
        self.x = np.zeros((config.chunk, config.max_hidden), np.float32)
        self.f = np.zeros((config.chunk, config.max_row), np.float32)
        self.rope = np.zeros((config.chunk, config.max_head_dim), np.float32)
        self.reads = {"x": [None, None], "rope": [None, None]}
        self.scales = []
        self.stall = 0.0
        self.dram = {}
        self.descriptor = None  # address and beats left of the descriptor in progress
        self.offered = {"req": None, "data": None}
        self.unanswered = 0  # descriptors, with the cycles when the finished ones will be
        self.answers = []
        self.scale_offered = False
        self.memory_off = 0  # the memory takes nothing before this cycle
        self.cycle = 0

    def run(self, scenario):
        async def testbench(ctx):
            self.ctx = ctx
            await scenario(self)

        sim = Simulator(self.dut)
        sim.add_clock(1e-8)
        watch(sim, self.dut)
        sim.add_testbench(testbench)
        sim.run()

    def chance(self):
        return self.rng.random() >= self.stall

    def memory_ready(self):
        return self.cycle >= self.memory_off and self.chance()

    async def step(self):
        """One cycle of all that surrounds the pipeline. Returns whether a beat was taken."""
        ctx, dut, lanes = self.ctx, self.dut, self.c.lanes
        for name, memory in (("x", self.x), ("rope", self.rope)):
            port, pending = getattr(dut, f"{name}_read"), self.reads[name]
            at = pending.pop(0)
            if at is not None:
                row, word = at
                ctx.set(port.data, words(memory[row, word * lanes : (word + 1) * lanes]))
            else:
                ctx.set(port.data, int(self.rng.integers(2**31)))
            pending.append((ctx.get(port.row), ctx.get(port.word)) if ctx.get(port.en) else None)
        for name, memory in (("x", self.x), ("f", self.f)):
            port = getattr(dut, f"{name}_write")
            if ctx.get(port.en):
                raw = ctx.get(port.data).to_bytes(4 * lanes, "little")
                values, mask = np.frombuffer(raw, "<f4"), ctx.get(port.mask)
                row, word = ctx.get(port.row), ctx.get(port.word)
                for lane in range(lanes):
                    if mask >> lane & 1:
                        memory[row, word * lanes + lane] = values[lane]
        self.memory()
        if self.scales and self.scale_offered:
            ctx.set(dut.scales.valid, 1)
            ctx.set(dut.scales.payload, self.scales[0])
        else:
            ctx.set(dut.scales.valid, 0)
        if ctx.get(dut.scales.valid) and ctx.get(dut.scales.ready):
            self.scales.pop(0)
            self.scale_offered = self.chance()
        else:
            self.scale_offered = self.scale_offered or self.chance()
        taken = ctx.get(dut.i.valid & dut.i.ready)
        await ctx.tick()
        self.cycle += 1
        return taken

    def memory(self):
        """The write channel: one descriptor at a time, random readiness."""
        ctx, port, c = self.ctx, self.dut.logits, self.c
        for name in ("req", "data"):
            stream = getattr(port, name)
            valid = ctx.get(stream.valid)
            payload = tuple(int(ctx.get(stream.payload[k])) for k, _ in stream.payload.shape())
            # With stalls the memory is ready only for what it has seen.
            seen = not self.stall or self.offered[name] is not None
            ready = seen and self.memory_ready() and (name == "req") == (self.descriptor is None)
            ctx.set(stream.ready, int(ready))
            self.offered[name] = payload if valid and not ready else None
            if not valid or not ready:
                continue
            if name == "req":
                self.descriptor = list(payload)
                self.unanswered += 1
                assert 1 <= payload[1] <= head.PIECE_BEATS
            else:
                address, left = self.descriptor
                word = payload[0].to_bytes(c.bus_bytes, "little")
                for i in range(c.bus_bytes):
                    if payload[1] >> i & 1:
                        self.dram[address + i] = word[i]
                self.descriptor = [address + c.bus_bytes, left - 1] if left > 1 else None
                if left == 1:
                    self.answers.append(self.cycle + 9)
        if self.answers and self.answers[0] == self.cycle:
            self.answers.pop(0)
            self.unanswered -= 1
        ctx.set(port.idle, int(not self.unanswered))

    async def factors(self, values):
        for token, value in enumerate(values):
            self.ctx.set(self.dut.factor.en, 1)
            self.ctx.set(self.dut.factor.token, token)
            self.ctx.set(self.dut.factor.data, words(value))
            await self.step()
        self.ctx.set(self.dut.factor.en, 0)

    async def start(self, **fields):
        full = {f.name: 0 for f in isa.FIELDS[isa.Op.LINEAR]} | fields
        packed = np.frombuffer(isa.encode(isa.Op.LINEAR, **full), "<u4")
        for n, word in enumerate(packed):
            self.ctx.set(self.dut.command.words[n], int(word))
        self.ctx.set(self.dut.start, 1)
        await self.step()
        self.ctx.set(self.dut.start, 0)

    async def beat(self, token, word, acc):
        """Offer a beat until it is taken."""
        ctx, dut = self.ctx, self.dut
        while not self.chance():
            await self.step()
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload.token, token)
        ctx.set(dut.i.payload.word, word)
        for lane, value in enumerate(acc):
            ctx.set(dut.i.payload.acc[lane], int(value))
        while not await self.step():
            pass
        ctx.set(dut.i.valid, 0)

    async def drain(self):
        for _ in range(1000):
            if self.ctx.get(self.dut.idle):
                return
            await self.step()
        raise AssertionError("never idle")


def sums(rng, shape):
    """Accumulators of all sizes, with zeros and the extremes."""
    acc = rng.integers(-(2**23), 2**23, shape) >> rng.integers(0, 24, shape)
    acc[rng.random(shape) < 0.05] = -(2**23)
    acc[rng.random(shape) < 0.05] = 0
    return acc


def extremes(rng, shape):
    """Numbers at the ends of the contract's range, and ones that get there by a product or two."""
    tiny = np.nextafter(np.float32(2.0**-126), np.float32(1))
    sizes = np.float32([0, 0, tiny, 1e-30, 1e-15, 1, 1, 1e15, 1e30, numeric.LARGEST])
    return rng.choice(sizes, shape) * rng.choice(np.float32([-1, 1]), shape) + np.float32(0)


def factors(rng, n, spread):
    return (rng.uniform(0.5, 2, n) * 2.0 ** rng.integers(-spread, spread + 1, n)).astype(np.float32)


def beats(config, tokens, rows):
    """(token, row) of beats, as the array drains: P tokens share an accumulator word."""
    c = config
    for group in range(0, tokens, c.tokens):
        for word in range(0, rows, c.rows):
            for token in range(group, min(group + c.tokens, tokens)):
                for row in range(word, min(word + c.rows, rows), c.lanes):
                    yield token, row


# Rows of a linear, then of q, k and v, and a head, with words a head no power of two.
SHAPES = {"test": (56, (48, 24, 24), 12), "tiny": (96, (96, 48, 48), 24)}


@pytest.mark.parametrize("name", ["test", "tiny"])
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_rows(name, stall):
    config = load_config(name)
    rows, qkv, head_elements = SHAPES[name]
    bench = Bench(config, seed=1)
    bench.stall = stall

    async def one(bench, mode, tokens, rows, rope, spread=None):
        """A command; without `spread` its numbers are extreme ones."""
        rng, c = bench.rng, bench.c
        acc = sums(rng, (tokens, rows))
        segments = (qkv[0], qkv[0] + qkv[1]) if mode is Mode.QKV else (0, 0)
        bench.f[:] = rng.normal(size=bench.f.shape)
        if spread is None:
            factor, scales = np.abs(extremes(rng, tokens)), extremes(rng, (3, 2))
            bench.x[:], bench.rope[:] = (extremes(rng, m.shape) for m in (bench.x, bench.rope))
        else:
            factor, scales = factors(rng, tokens, spread), factors(rng, 6, spread).reshape(3, 2)
            bench.x[:] = rng.normal(0, 1e3, bench.x.shape)
            bench.x[rng.random(bench.x.shape) < 0.1] = 0
            bench.rope[:] = rng.uniform(-1, 1, bench.rope.shape)
        expected = reference(
            mode,
            acc,
            factor,
            scales,
            segments,
            rope,
            head_elements,
            bench.rope[:tokens],
            bench.x[:tokens, :rows],
        )
        x, f = bench.x.copy(), bench.f.copy()
        (x if mode is Mode.RESIDUAL else f)[:tokens, : expected.shape[1]] = expected

        await bench.factors(factor)
        fields = {
            f"scale{s}_{p}": float(scales[s, i])
            for s in range(3)
            for i, p in enumerate(("even", "odd"))
        }
        await bench.start(
            mode=mode,
            out_rows=rows,
            rope=rope,
            head_ew=head_elements // c.lanes,
            segment0=segments[0] // c.lanes,
            segment1=segments[1] // c.lanes,
            **fields,
        )
        begin = bench.cycle
        n = 0
        for token, row in beats(c, tokens, rows):
            await bench.beat(token, row // c.lanes, acc[token, row : row + c.lanes])
            n += 1
        if not stall:
            assert bench.cycle - begin == n, "one beat a cycle"
        await bench.drain()
        np.testing.assert_array_equal(bench.x.view(np.uint32), x.view(np.uint32))
        np.testing.assert_array_equal(bench.f.view(np.uint32), f.view(np.uint32))

    async def scenario(bench):
        c = bench.c
        await one(bench, Mode.PLAIN, min(5, c.chunk), rows, 0, 6)
        await one(bench, Mode.RESIDUAL, min(3, c.chunk), rows, 0, 6)
        await one(bench, Mode.QKV, min(3, c.chunk), sum(qkv), 0b011, 6)
        await one(bench, Mode.GLU_RELU2, 2, rows, 0, 8)
        await one(bench, Mode.QKV, 2, sum(qkv), 0b110, 6)
        await one(bench, Mode.GLU_SILU, 2, rows, 0, 8)
        await one(bench, Mode.RESIDUAL, 1, rows, 0, 60)  # overflow and underflow
        await one(bench, Mode.GLU_RELU2, 1, rows, 0, 40)
        await one(bench, Mode.PLAIN, 1, c.lanes, 0, 1)
        for mode in (Mode.PLAIN, Mode.RESIDUAL, Mode.QKV, Mode.GLU_RELU2, Mode.GLU_SILU):
            for _ in range(3):
                wide = sum(qkv) if mode is Mode.QKV else rows
                await one(bench, mode, 2, wide, 0b111 if mode is Mode.QKV else 0)

    bench.run(scenario)


@pytest.mark.parametrize("name,digits", [("test", 2), ("test", 1), ("tiny", 2)])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_head(name, digits, stall):
    config = load_config(name)
    if digits == 1:
        config = config.model_copy(update={"tokens": 1})
    assert config.head_digits == digits
    bench = Bench(config, seed=2)
    bench.stall = stall

    async def one(bench, vocabulary, address, repeat=False, factor=None, planes=5):
        """A command; with a `factor` its scales are extreme ones."""
        rng, c, ctx = bench.rng, bench.c, bench.ctx
        acc = sums(rng, (planes * vocabulary, 2))
        scales = factors(rng, vocabulary, 2) if factor is None else extremes(rng, vocabulary)
        factor = factors(rng, 1, 4) if factor is None else np.float32([factor])
        if repeat:  # equal logits: the lowest id wins
            acc[:] = np.tile(acc[:planes], (vocabulary, 1))
            scales[:] = scales[0]
        logits, argmax = head.reference(
            acc[:, 0], acc[:, 1] if digits == 2 else None, factor[0], scales, planes
        )
        bench.dram.clear()
        bench.scales = [words(s) for s in scales]
        await bench.factors(factor)
        rows = planes * vocabulary
        await bench.start(mode=Mode.HEAD, planes=planes, out_rows=rows, address=address)
        begin = bench.cycle
        if stall:  # long enough for the buffer of logits to fill up
            bench.memory_off = begin + 400
        for row, pair in enumerate(acc):
            await bench.beat(int(rng.integers(2)), row // c.lanes, pair)
        if not stall:
            assert bench.cycle - begin <= rows + 4, "one row a cycle"
        await bench.drain()
        assert sorted(bench.dram) == list(range(address, address + 4 * vocabulary))
        got = bytes(bench.dram[address + i] for i in range(4 * vocabulary))
        assert got == logits.tobytes()
        assert ctx.get(bench.dut.argmax) == argmax
        assert ctx.get(bench.dut.argmax_logit) == words(logits[argmax])
        assert not bench.scales

    async def scenario(bench):
        for vocabulary in (1, 64, 70):
            for planes in PLANES:
                address = int(bench.rng.integers(2**20)) * bench.c.bus_bytes
                await one(bench, vocabulary, address, planes=planes)
        await one(bench, 9, 4096, repeat=True)
        # Logits that saturate, or vanish: the lowest id of those that are equal wins.
        for factor in (0, 1e-30, 1, 1e30):
            await one(bench, 40, 8192, factor=factor)

    bench.run(scenario)
