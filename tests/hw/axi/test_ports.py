"""Read and write ports with their channels: throughput, priority, outstanding bursts, stalls.

Correct data under stalls, the fence and error responses are in test_dma.
"""

import random

from amaranth import Module
from amaranth.lib.wiring import Component, connect
from amaranth.sim import Simulator

from terntable.hw.axi.bursts import reference as split
from terntable.hw.axi.read_port import ReadPort
from terntable.hw.axi.reader import ReadChannel
from terntable.hw.axi.write_port import WritePort
from terntable.hw.axi.writer import WriteChannel

from ..monitor import monitor

BITS, BURST = 64, 16
LIMIT = 0x10_0000


class Reads(Component):
    """A read port with `count` channels of `depth` words."""

    def __init__(self, count: int, depth: int) -> None:
        self.channels = [ReadChannel(BITS, BURST, depth) for _ in range(count)]
        self.port = ReadPort(BITS, range(count))
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = self.port
        for n, channel in enumerate(self.channels):
            m.submodules[f"channel{n}"] = channel
            connect(m, channel.burst, getattr(self.port, f"burst{n}"))
            connect(m, getattr(self.port, f"fill{n}"), channel.fill)
        return m


class Writes(Component):
    """A write port with `count` channels."""

    def __init__(self, count: int) -> None:
        self.channels = [WriteChannel(BITS, BURST, 2 * BURST) for _ in range(count)]
        self.port = WritePort(BITS, range(count))
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = self.port
        for n, channel in enumerate(self.channels):
            m.submodules[f"channel{n}"] = channel
            connect(m, channel.burst, getattr(self.port, f"burst{n}"))
            connect(m, channel.word, getattr(self.port, f"word{n}"))
            m.d.comb += channel.answered.eq(getattr(self.port, f"answered{n}"))
        return m


def memory(port: ReadPort, latency: int, starts: list[tuple[int, int, int]]):
    """A slave that answers bursts in order, `latency` cycles after the address, without gaps. The
    data of a beat is its address; (cycle, address, beats) of every burst go to `starts`."""

    async def testbench(ctx):
        queue: list[list[int]] = []
        cycle = 0
        ctx.set(port.ar.ready, 1)
        while True:
            now = queue[0] if queue and queue[0][0] <= cycle else None
            ctx.set(port.r.valid, now is not None)
            if now is not None:
                ctx.set(port.r.payload, {"data": now[1], "resp": 0, "last": now[2] == 1})
            _, _, valid, address, length, ready = await ctx.tick().sample(
                port.ar.valid, port.ar.payload.addr, port.ar.payload.len, port.r.ready
            )
            assert ready
            if now is not None:
                now[1] += BITS // 8
                now[2] -= 1
                if not now[2]:
                    queue.pop(0)
            if valid:
                queue.append([cycle + latency, address, length + 1])
                starts.append((cycle, address, length + 1))
            cycle += 1

    return testbench


def read(dut: Reads, plans, latency: int, stop: dict[int, int] | None = None, cycles: int = 2000):
    """Play descriptors on every channel, consumers always ready; `stop` gives the number of words
    after which a consumer stops. Returns bursts, and (cycle, word) lists of the channels."""
    starts: list[tuple[int, int, int]] = []
    got: list[list[tuple[int, int]]] = [[] for _ in dut.channels]
    sim = Simulator(dut)
    sim.add_clock(1e-6)

    async def settings(ctx):
        ctx.set(dut.port.limit, LIMIT)

    def ask(channel, plan):
        async def testbench(ctx):
            for address, beats in plan:
                ctx.set(channel.req.payload, {"address": address, "beats": beats})
                ctx.set(channel.req.valid, 1)
                await ctx.tick().until(channel.req.ready)
                ctx.set(channel.req.valid, 0)

        return testbench

    def take(channel, log, most):
        async def testbench(ctx):
            cycle = 0
            ctx.set(channel.data.ready, most > 0)
            async for _, _, valid, ready, word in ctx.tick().sample(
                channel.data.valid, channel.data.ready, channel.data.payload
            ):
                if valid and ready:
                    log.append((cycle, word))
                    ctx.set(channel.data.ready, len(log) < most)
                cycle += 1

        return testbench

    sim.add_testbench(settings)
    sim.add_testbench(memory(dut.port, latency, starts), background=True)
    sim.add_testbench(monitor(dut.port.ar, "ar"), background=True)
    for n, (channel, plan) in enumerate(zip(dut.channels, plans, strict=True)):
        sim.add_testbench(ask(channel.channel, plan), background=True)
        sim.add_testbench(monitor(channel.channel.data, f"data{n}"), background=True)
        most = (stop or {}).get(n, 1 << 30)
        sim.add_testbench(take(channel.channel, got[n], most), background=True)
    sim.run_until(cycles * 1e-6)
    return starts, got


def words(plan) -> list[int]:
    return [a + BITS // 8 * i for a, n in plan for i in range(n)]


def test_two_bursts_of_buffer_hide_the_latency():
    plan = [(0x40, 200), (0x4000, 100)]
    dut = Reads(1, 2 * BURST)
    starts, (got,) = read(dut, [plan], latency=BURST - 10)
    assert [w for _, w in got] == words(plan)
    first, last = got[0][0], got[-1][0]
    # Short bursts before a page cost little; the rest runs at one word a cycle.
    assert last - first < 300 + 12
    assert [(a, n) for _, a, n in starts] == [
        b for a, n in plan for b in split(a, n, BITS // 8, BURST)
    ]


def test_many_bursts_are_outstanding():
    """Deep buffers keep a distant memory busy: 12 bursts are asked for before the first answer."""
    plan = [(0, 16 * 40)]
    dut = Reads(1, 12 * BURST)
    starts, (got,) = read(dut, [plan], latency=150)
    assert [w for _, w in got] == words(plan)
    assert sum(cycle < 150 for cycle, _, _ in starts) == 12
    assert got[-1][0] - got[0][0] < 16 * 40 + 5


def test_a_stopped_reader_blocks_nobody_and_priority_holds():
    plans = [[(0x1000, 64)], [(0x2000, 640)], [(0x8000, 640)]]
    dut = Reads(3, 2 * BURST)
    starts, got = read(dut, plans, latency=10, stop={1: 5})
    assert [w for _, w in got[0]] == words(plans[0])
    assert [w for _, w in got[1]] == words(plans[1])[:5]
    assert [w for _, w in got[2]] == words(plans[2])
    # The stopped channel asked for its buffer and not more.
    assert sum(n for _, a, n in starts if 0x2000 <= a < 0x8000) == 2 * BURST
    assert starts[0][1] == 0x1000


def test_write_throughput_and_idle():
    """A ready producer and memory: a word a cycle; idle only after the last answer."""
    dut = Writes(2)
    plans = [[(0x100, 150)], [(0x8000, 20), (0x8FF8, 2)]]
    stored: dict[int, int] = {}
    beats: list[int] = []
    pending: list[int] = []
    addresses: list[list[int]] = []
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    rng = random.Random(1)

    async def settings(ctx):
        ctx.set(dut.port.limit, LIMIT)

    async def slave(ctx):
        cycle = 0
        ctx.set(dut.port.aw.ready, 1)
        ctx.set(dut.port.w.ready, 1)
        waiting: list[tuple[int, bool]] = []
        while True:
            answer = bool(pending) and pending[0] <= cycle
            ctx.set(dut.port.b.valid, answer)
            _, _, aw, addr, length, w, data, last = await ctx.tick().sample(
                dut.port.aw.valid, dut.port.aw.payload.addr, dut.port.aw.payload.len,
                dut.port.w.valid, dut.port.w.payload.data, dut.port.w.payload.last,
            )  # fmt: skip
            if answer:
                pending.pop(0)
            if aw:
                addresses.append([addr, length + 1])
            if w:
                waiting.append((data, bool(last)))
                beats.append(cycle)
            while waiting and addresses:
                data, last = waiting.pop(0)
                stored[addresses[0][0]] = data
                addresses[0][0] += BITS // 8
                addresses[0][1] -= 1
                assert last == (addresses[0][1] == 0)
                if last:
                    addresses.pop(0)
                    pending.append(cycle + 30)
            cycle += 1

    def produce(channel, plan, delay):
        async def testbench(ctx):
            await ctx.tick().repeat(delay)
            for address, count in plan:
                ctx.set(channel.req.payload, {"address": address, "beats": count})
                ctx.set(channel.req.valid, 1)
                await ctx.tick().until(channel.req.ready)
                ctx.set(channel.req.valid, 0)
                ctx.set(channel.data.valid, 1)
                for n in range(count):
                    ctx.set(channel.data.payload, {"data": address + 8 * n, "strobe": 0xFF})
                    assert not ctx.get(channel.idle)
                    await ctx.tick().until(channel.data.ready)
                ctx.set(channel.data.valid, 0)
            await ctx.tick().until(channel.idle)
            # Every answer has been given.
            assert all(stored.get(a) == a for a in words(plan))
            assert not [p for p in pending if p < 0]

        return testbench

    sim.add_testbench(settings)
    sim.add_testbench(slave, background=True)
    sim.add_testbench(monitor(dut.port.aw, "aw"), background=True)
    sim.add_testbench(monitor(dut.port.w, "w"), background=True)
    for channel, plan, delay in zip(dut.channels, plans, (1, rng.randint(400, 410)), strict=True):
        sim.add_testbench(produce(channel.channel, plan, delay))
    sim.run()
    assert not pending and len(beats) == 172
    assert beats[149] - beats[0] < 150 + 8
