"""The DMA's generated Verilog against cocotbext-axi memories, with random stalls everywhere."""

import logging
import mmap
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiRam

from terntable.hw.axi.bursts import reference as split
from terntable.hw.axi.dma import KV, KV_WRITE, LOAD, LOGITS, PROGRAM, WEIGHTS, Dma
from terntable.hw.config import load_config
from terntable.hw.flat import Flat, to_verilog
from terntable.hw.regs import Error
from terntable.sim.harness import run_block

CONFIG = load_config("test")
BYTES = CONFIG.bus_bytes
BASE = 0x56_7000_0000
SIZE = 0x10000
WRITE_BASE = 0x8000
UNITS = {"weights0": WEIGHTS, "weights1": WEIGHTS, "kv0": KV, "kv1": KV, "load": LOAD,
         "program": PROGRAM}  # fmt: skip
WRITERS = {"kv_write": KV_WRITE, "logits": LOGITS}


def stalls(rng: random.Random, probability: float):
    while True:
        yield rng.random() < probability


class Bench:
    """The device under test, a memory shared by its ports, and checks on the address channels."""

    def __init__(self, dut, seed: int, stall: float) -> None:
        self.dut = dut
        self.rng = rng = random.Random(seed)
        self.stall = stall
        logging.getLogger("cocotb.dut").setLevel(logging.WARNING)
        self.rams = []
        # The memory repeats every SIZE bytes, so offsets serve as its addresses; see `watch`.
        self.memory = mmap.mmap(-1, SIZE)
        for port in range(CONFIG.ports):
            bus = AxiBus.from_prefix(dut, f"m_axi{port}")
            ram = AxiRam(bus, dut.aclk, dut.aresetn, reset_active_level=False, mem=self.memory)
            self.rams.append(ram)
            if stall:
                for channel in (
                    ram.read_if.ar_channel, ram.read_if.r_channel, ram.write_if.aw_channel,
                    ram.write_if.w_channel, ram.write_if.b_channel,
                ):  # fmt: skip
                    channel.set_pause_generator(stalls(random.Random(rng.random()), stall))
        self.image = bytearray(rng.randbytes(SIZE))
        self.memory[:] = bytes(self.image)
        self.bursts: list[tuple[str, int, int]] = []
        self.requests: list[cocotb.task.Task] = []

    async def start(self) -> None:
        dut = self.dut
        Clock(dut.aclk, 4, "ns").start()
        for name in (*UNITS, *WRITERS):
            getattr(dut, f"{name}__req__valid").value = 0
        for name in UNITS:
            getattr(dut, f"{name}__data__ready").value = 0
        for name in WRITERS:
            getattr(dut, f"{name}__data__valid").value = 0
        dut.base.value = BASE
        dut.limit.value = SIZE
        dut.write_base.value = WRITE_BASE
        dut.flush.value = 0
        dut.aresetn.value = 0
        await self.cycles(16)
        dut.aresetn.value = 1
        for port in range(CONFIG.ports):
            for channel in ("ar", "aw", "w"):
                cocotb.start_soon(self.watch(f"m_axi{port}_{channel}"))
        await self.cycles(4)

    async def cycles(self, count: int) -> None:
        for _ in range(count):
            await RisingEdge(self.dut.aclk)

    async def watch(self, prefix: str) -> None:
        """AXI's rules on a channel: offers stand, bursts stay in a page."""
        dut = self.dut
        fields = ["data", "strb", "last"] if prefix.endswith("_w") else ["addr", "len", "size"]
        held = None
        while True:
            await RisingEdge(dut.aclk)
            now = [int(getattr(dut, prefix + f).value) for f in fields]
            valid = int(getattr(dut, f"{prefix}valid").value)
            ready = int(getattr(dut, f"{prefix}ready").value)
            if held is not None:
                assert valid and now == held, f"{prefix}: the offer was withdrawn"
            held = now if valid and not ready else None
            if valid and ready and not prefix.endswith("_w"):
                address, beats = now[0], now[1] + 1
                assert BASE <= address <= BASE + SIZE - beats * BYTES
                assert address % 4096 + beats * BYTES <= 4096
                assert beats <= CONFIG.burst_beats and 1 << now[2] == BYTES
                self.bursts.append((prefix, address - BASE, beats))

    def pin(self, name: str):
        return getattr(self.dut, name)

    async def offer(self, stream: str, payload: int) -> None:
        while self.rng.random() < self.stall:
            await self.cycles(1)
        self.pin(f"{stream}__payload").value = payload
        self.pin(f"{stream}__valid").value = 1
        await RisingEdge(self.dut.aclk)
        while not int(self.pin(f"{stream}__ready").value):
            await RisingEdge(self.dut.aclk)
        self.pin(f"{stream}__valid").value = 0

    async def request(self, channel: str, descriptors) -> None:
        for address, beats in descriptors:
            await self.offer(f"{channel}__req", address | beats << 32)

    async def take(self, channel: str, count: int) -> bytes:
        got = bytearray()
        ready, valid = self.pin(f"{channel}__data__ready"), self.pin(f"{channel}__data__valid")
        payload = self.pin(f"{channel}__data__payload")
        waiting = False
        while len(got) < count * BYTES:
            # A reader that stalls is ready only after there was a word.
            on = self.rng.random() >= self.stall and (waiting or not self.stall)
            ready.value = on
            await RisingEdge(self.dut.aclk)
            waiting = not on and bool(int(valid.value))
            if on and int(valid.value):
                got += int(payload.value).to_bytes(BYTES, "little")
        ready.value = 0
        return bytes(got)

    def expected(self, descriptors) -> bytes:
        return b"".join(bytes(self.image[a : a + n * BYTES]) for a, n in descriptors)

    async def read(self, channel: str, descriptors) -> None:
        """Read and compare; the image must not change meanwhile."""
        expected = self.expected(descriptors)
        self.requests = [t for t in self.requests if not t.done()]
        self.requests.append(cocotb.start_soon(self.request(channel, descriptors)))
        got = await self.take(channel, sum(n for _, n in descriptors))
        assert got == expected, f"{channel}: wrong data"

    async def write(self, channel: str, descriptors) -> None:
        """Write random words and strobes into `image` and memory; the memory holds them when
        the channel is idle."""
        for address, beats in descriptors:
            await self.offer(f"{channel}__req", address | beats << 32)
            await RisingEdge(self.dut.aclk)
            assert not int(self.pin(f"{channel}__idle").value)
            for beat in range(beats):
                word, strobe = self.rng.randbytes(BYTES), self.rng.getrandbits(BYTES)
                await self.offer(
                    f"{channel}__data", int.from_bytes(word, "little") | strobe << (8 * BYTES)
                )
                for lane in range(BYTES):
                    if strobe >> lane & 1:
                        self.image[address + beat * BYTES + lane] = word[lane]
        while not int(self.pin(f"{channel}__idle").value):
            await RisingEdge(self.dut.aclk)
        for address, beats in descriptors:
            end = address + beats * BYTES
            assert self.memory[address:end] == self.image[address:end]

    def descriptors(self, count: int, low: int, high: int, most: int) -> list[tuple[int, int]]:
        found = []
        for _ in range(count):
            beats = self.rng.randint(1, most)
            room = (high - low) // BYTES - beats
            found.append((low + BYTES * self.rng.randint(0, room), beats))
        return found

    def error(self) -> tuple[int, int, int, int]:
        bits = int(self.dut.error.value)
        return bits & 1, bits >> 1 & 0xFF, bits >> 9 & 0xFF, bits >> 17

    async def wait_error(self) -> tuple[int, int, int]:
        while not self.error()[0]:
            await RisingEdge(self.dut.aclk)
        return self.error()[1:]

    async def flush(self) -> None:
        self.dut.flush.value = 1
        await RisingEdge(self.dut.aclk)
        self.dut.flush.value = 0
        await self.cycles(2)


async def all_of(*coroutines) -> None:
    tasks = [cocotb.start_soon(c) for c in coroutines]
    for task in tasks:
        await with_timeout(task, 400, "us")


async def traffic(dut, seed: int, stall: float) -> None:
    bench = Bench(dut, seed, stall)
    await bench.start()
    await all_of(
        *(bench.read(name, bench.descriptors(6, 0, WRITE_BASE, 60)) for name in UNITS),
        bench.write("kv_write", bench.descriptors(5, WRITE_BASE, 0xC000, 40)),
        bench.write("logits", bench.descriptors(5, 0xC000, SIZE, 40)),
    )
    assert not bench.error()[0]


@cocotb.test()
async def check_traffic(dut):
    await traffic(dut, 1, 0.0)


@cocotb.test()
async def check_stalls(dut):
    await traffic(dut, 2, 0.4)


@cocotb.test()
async def check_bursts(dut):
    bench = Bench(dut, 3, 0.0)
    await bench.start()
    plan = [(0xFE0, 40), (0x10, 1), (SIZE - 4, 1), (0x0, 16)]
    await all_of(bench.read("kv1", plan))
    expected = [b for a, n in plan for b in split(a, n, BYTES, CONFIG.burst_beats)]
    assert bench.bursts == [("m_axi1_ar", a, n) for a, n in expected]


@cocotb.test()
async def check_fence(dut):
    """Each channel in turn steps over the fence; a flush makes the machine usable again."""
    bench = Bench(dut, 4, 0.2)
    await bench.start()
    cases = [
        (name, a, n, bad, Error.READ_FENCE)
        for name in UNITS
        for a, n, bad in ((SIZE, 1, SIZE), (SIZE - 64, 17, SIZE), (0x102, 1, 0x102))
    ]
    cases += [
        (name, a, n, bad, Error.WRITE_FENCE)
        for name in WRITERS
        for a, n, bad in (
            (WRITE_BASE - 4, 2, WRITE_BASE - 4),
            (0xFFFF_FFFC, 1, 0xFFFF_FFFC),
            (SIZE - 64, 18, SIZE),
        )
    ]
    for name, address, beats, bad, code in cases:
        bench.bursts.clear()
        await bench.request(name, [(address, beats)])
        if name in UNITS:
            bench.pin(f"{name}__data__ready").value = 1
        else:
            for _ in range(beats):
                await bench.offer(f"{name}__data", 0)
        unit = (UNITS | WRITERS)[name]
        assert await with_timeout(bench.wait_error(), 10, "us") == (code, unit, bad), name
        if name in UNITS:
            bench.pin(f"{name}__data__ready").value = 0
        # Nobody gets on the bus now.
        allowed = [a for a, _ in split(address, beats, BYTES, CONFIG.burst_beats)].index(bad)
        await bench.request("kv0" if name != "kv0" else "load", [(0, 4)])
        await bench.cycles(20)
        assert len(bench.bursts) == allowed, (name, bench.bursts)
        await bench.flush()
        assert not bench.error()[0]
        await with_timeout(bench.read("kv1", [(0x200, 3)]), 20, "us")
        await with_timeout(bench.write("logits", [(WRITE_BASE, 3)]), 20, "us")


@cocotb.test()
async def check_error_responses(dut):
    bench = Bench(dut, 5, 0.0)
    await bench.start()

    async def fail(*_):
        raise ValueError("no such memory")

    working = bench.rams[1].read_if._read
    bench.rams[1].read_if._read = fail
    await bench.request("weights1", [(0x40, 20)])
    assert await with_timeout(bench.wait_error(), 10, "us") == (Error.READ_RESPONSE, WEIGHTS, 0x40)
    await bench.cycles(60)
    assert not int(dut.weights1__data__valid.value)
    bench.rams[1].read_if._read = working
    await bench.flush()
    await with_timeout(bench.read("weights1", [(0x40, 20)]), 20, "us")

    working = bench.rams[0].write_if._write
    bench.rams[0].write_if._write = fail
    await bench.request("logits", [(WRITE_BASE + 8, 1)])
    await bench.offer("logits__data", (1 << 9 * BYTES) - 1)
    assert await with_timeout(bench.wait_error(), 10, "us") == (
        Error.WRITE_RESPONSE,
        LOGITS,
        WRITE_BASE + 8,
    )
    assert not int(dut.logits__idle.value)
    bench.rams[0].write_if._write = working
    await bench.flush()
    await with_timeout(bench.write("logits", [(WRITE_BASE, 3)]), 20, "us")


@cocotb.test()
async def check_flush(dut):
    """Flushes at random moments of full traffic; what follows is right, and AXI is kept."""
    bench = Bench(dut, 6, 0.3)
    await bench.start()
    for n in range(8):
        tasks = [
            cocotb.start_soon(bench.read(name, bench.descriptors(4, 0, WRITE_BASE, 60)))
            for name in UNITS
        ]
        tasks += [
            cocotb.start_soon(bench.write(name, bench.descriptors(4, WRITE_BASE, SIZE, 40)))
            for name in WRITERS
        ]
        await bench.cycles(bench.rng.randint(1, 120))
        dut.flush.value = 1
        for task in (*tasks, *bench.requests):
            task.cancel()
        for name in (*UNITS, *WRITERS):
            bench.pin(f"{name}__req__valid").value = 0
        for name in UNITS:
            bench.pin(f"{name}__data__ready").value = 0
        for name in WRITERS:
            bench.pin(f"{name}__data__valid").value = 0
        # As a strobe, or until the bus is quiet.
        await RisingEdge(dut.aclk)
        while n % 2 and not int(dut.idle.value):
            await RisingEdge(dut.aclk)
        dut.flush.value = 0
        # The write bursts that were cut short left unknown bytes.
        if n % 2:
            assert bench.memory[:WRITE_BASE] == bench.image[:WRITE_BASE]
        await all_of(
            *(bench.read(name, bench.descriptors(2, 0, WRITE_BASE, 30)) for name in UNITS),
            bench.write("kv_write", [(WRITE_BASE, 2)]),
            bench.write("logits", [(WRITE_BASE + 16, 20)]),
        )
        assert not bench.error()[0]


def test_dma():
    run_block(to_verilog(Flat(Dma(CONFIG)), "dma"), top="dma", module=__file__)
