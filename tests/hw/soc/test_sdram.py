"""The SDRAM controller against the model of an SDRAM that checks its timing."""

import random

import pytest

from terntable.hw.soc.sdram_bus import Command
from terntable.hw.soc.sdram_part import ULX3S_SDRAM, SdramCycles

from .axi_master import Burst, Master, Reference, random_write
from .sdram_bench import QUICK, simulation

SIZE = QUICK.bytes
OKAY, DECERR = 0, 3


def random_bursts(rng: random.Random, count: int, width: int, base: int, room: int) -> list:
    """Addresses and lengths of bursts in `room` bytes from `base`: short and long ones, near one
    another and in other rows, none across 4,096 bytes."""
    size = width // 8
    bursts = []
    for _ in range(count):
        words = rng.choice((1, 1, 2, 3, rng.randint(1, 32), rng.randint(1, 256), 256))
        words = min(words, 4096 // size)
        page = base + rng.choice((0, 4096, rng.randrange(room // 4096) * 4096))
        bursts.append((page + rng.randrange(4096 // size - words + 1) * size, words))
    return bursts


@pytest.mark.parametrize(
    ("width", "clock", "cas", "idle"),
    [
        (32, 100_000_000, 3, 0.0),
        (32, 100_000_000, 3, 0.5),
        (64, 100_000_000, 3, 0.2),
        (32, 50_000_000, 2, 0.0),
        (16, 133_000_000, 3, 0.0),
        (128, 100_000_000, 2, 0.1),
    ],
)
def test_written_words_are_read_back(width: int, clock: int, cas: int, idle: float) -> None:
    """All of a drawn set of bursts is written, then read; bytes without strobe keep their value."""
    rng = random.Random(f"{width} {clock} {idle}")
    places = random_bursts(rng, 14, width, 0, SIZE)
    places += [(SIZE - 4096, min(256, 4096 * 8 // width)), (0, 1)]
    bursts = [random_write(rng, *place, width, rng.random() < 0.5) for place in places]
    sim, controller, model = simulation(width, clock, cas)
    expected = Reference(model.unwritten)
    master = Master(controller.axi, 1, idle)
    master.writes(sim, bursts)
    for burst in bursts:
        expected.write(burst, width)
    again = rng.sample(bursts, len(bursts))
    master.reads(sim, again, after=lambda: len(master.answers) == len(bursts))
    sim.run()
    assert master.answers == [OKAY] * len(bursts)
    words = [word for burst in again for word in expected.read(burst, width)]
    assert [(word, resp) for word, resp, _ in master.read] == [(word, OKAY) for word in words]


@pytest.mark.parametrize("idle", [0.0, 0.6])
def test_reads_and_writes_at_once(idle: float) -> None:
    """Writes to one half while the other is read, for many refresh intervals: all words right, no
    rule of the part broken, and refreshes as many as are due."""
    rng = random.Random(3)
    half = SIZE // 2
    reads = [Burst(*place) for place in random_bursts(rng, 60, 32, 0, half)]
    writes = [
        random_write(rng, *place, 32, False) for place in random_bursts(rng, 60, 32, half, half)
    ]
    sim, controller, model = simulation()
    master = Master(controller.axi, 2, idle)
    master.reads(sim, reads)
    master.writes(sim, writes)
    sim.run()
    expected = Reference(model.unwritten)
    assert [w for w, _, _ in master.read] == [w for b in reads for w in expected.read(b, 32)]
    for burst in writes:
        expected.write(burst, 32)
    check = Reference(lambda address: model.words.get(address, model.unwritten(address)))
    assert all(check.read(b, 32) == expected.read(b, 32) for b in writes)
    assert model.commands[Command.REFRESH] > 20


def test_a_write_that_was_answered_is_read() -> None:
    """Each read begins when its write is acknowledged, and sees it."""
    rng = random.Random(4)
    sim, controller, model = simulation()
    axi, expected = controller.axi, Reference(model.unwritten)

    async def testbench(ctx):
        ctx.set(axi.r.ready, 1)
        ctx.set(axi.b.ready, 1)
        for _ in range(12):
            burst = random_write(rng, rng.randrange(64) * 64, rng.randint(1, 40), 32, False)
            expected.write(burst, 32)
            await offer(ctx, axi.aw, burst.head)
            for n, (word, strobe) in enumerate(zip(burst.data, burst.strobes, strict=True)):
                last = n == burst.words - 1
                await offer(ctx, axi.w, {"data": word, "strb": strobe, "last": last})
            await ctx.tick().until(axi.b.valid)
            await offer(ctx, axi.ar, burst.head)
            for word in expected.read(burst, 32):
                (found,) = await ctx.tick().sample(axi.r.payload.data).until(axi.r.valid)
                assert found == word

    async def offer(ctx, channel, payload):
        ctx.set(channel.payload, payload)
        ctx.set(channel.valid, 1)
        await ctx.tick().until(channel.ready)
        ctx.set(channel.valid, 0)

    sim.add_testbench(testbench)
    sim.run()


def test_beyond_the_memory() -> None:
    """DECERR for reads and writes at 32 MB and above, and for the part of the memory that would be
    hit without the upper address bits nothing changes."""
    rng = random.Random(5)
    sim, controller, model = simulation()
    outside = random_write(rng, SIZE + 0x100, 5, 32, True)
    far = random_write(rng, (1 << 39) + 0x100, 2, 32, True)
    inside = random_write(rng, SIZE - 20, 5, 32, True)
    master = Master(controller.axi, 1)
    master.writes(sim, [outside, inside, far])
    reads = [outside, Burst(0x100, 5), inside, far]
    master.reads(sim, reads, after=lambda: len(master.answers) == 3)
    sim.run()
    assert master.answers == [DECERR, OKAY, DECERR]
    assert [resp for _, resp, _ in master.read] == [DECERR] * 5 + [OKAY] * 10 + [DECERR] * 2
    untouched = Reference(model.unwritten).read(Burst(0x100, 5), 32)
    assert [word for word, _, _ in master.read[5:15]] == untouched + list(inside.data)


@pytest.mark.parametrize("width", [32, 64])
def test_throughput_of_long_bursts(width: int) -> None:
    """Over rows and banks, refreshes counted: 2 bytes a cycle are what the pins move. The figures
    are those of the controller's description."""
    size = width // 8
    words = 1024 // size
    bursts = [Burst(0x20_0000 + n * 1024, words) for n in range(24)]
    sim, controller, _ = simulation(width)
    master = Master(controller.axi, 1)
    master.reads(sim, bursts)
    writes = [random_write(random.Random(n), b.address, words, width, True)
              for n, b in enumerate(bursts)]  # fmt: skip
    taken = []

    async def count(ctx):
        async for _, _, valid, ready in ctx.tick().sample(
            controller.axi.w.valid, controller.axi.w.ready
        ):
            taken.append(valid and ready)

    master.writes(sim, writes, after=lambda: len(master.read) == words * len(bursts))
    sim.add_testbench(count, background=True)
    sim.run()
    cycles = master.cycles[-1] - master.cycles[0] + 1
    rate = len(master.read) * size / cycles
    print(f"{width} bits, reads of {words} words: {rate:.3f} bytes a cycle")
    assert rate > 1.92
    first, last = taken.index(1), len(taken) - 1 - taken[::-1].index(1)
    rate = sum(taken) * size / (last - first + 1)
    print(f"{width} bits, writes of {words} words: {rate:.3f} bytes a cycle")
    assert rate > 1.92


def test_latency() -> None:
    """From an address to its word: 18 cycles where the row is open, tRP + tRCD more where another
    is (CAS latency 3, at 100 MHz)."""
    sim, controller, _ = simulation()
    axi = controller.axi
    found = []

    async def testbench(ctx):
        ctx.set(axi.r.ready, 1)
        for address in (0, 64, 1 << 12):
            ctx.set(axi.ar.payload, {"addr": address, "len": 0})
            ctx.set(axi.ar.valid, 1)
            await ctx.tick().until(axi.ar.ready)
            ctx.set(axi.ar.valid, 0)
            cycles = 1
            while not ctx.get(axi.r.valid):
                await ctx.tick()
                cycles += 1
            found.append(cycles)
            await ctx.tick().repeat(20)

    sim.add_testbench(testbench)
    sim.run()
    assert found[1:] == [18, 24]


def test_start_up_takes_what_the_part_asks_for() -> None:
    """The 200 us of the real part: nothing before, eight refreshes and the mode after."""
    sim, controller, model = simulation(part=ULX3S_SDRAM, clock_hz=50_000_000)

    async def wait(ctx):
        cycles = 0
        while not ctx.get(controller.ready):
            await ctx.tick()
            cycles += 1
        assert 10_000 <= cycles <= 10_100

    sim.add_testbench(wait)
    sim.run()
    assert model.commands[Command.REFRESH] == 8


@pytest.mark.parametrize(("clock", "cas"), [(200_000_000, 3), (133_000_000, 2), (50_000_000, 4)])
def test_a_clock_that_the_part_does_not_have(clock: int, cas: int) -> None:
    with pytest.raises(ValueError, match=f"no CAS latency {cas} at {clock // 10**6} MHz"):
        SdramCycles.of(ULX3S_SDRAM, clock, cas)


def test_cycles() -> None:
    assert SdramCycles.of(ULX3S_SDRAM, 100_000_000, 3) == SdramCycles(
        cas=3, rcd=3, rp=3, ras=5, rc=7, rrd=2, wr=2, mrd=2, refi=781, power_up=20_000
    )
