"""An AXI4 master for Amaranth's simulator: bursts in order, with stalls, checked as they come."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from amaranth.sim import Simulator

from ..monitor import sink, source


@dataclass(frozen=True)
class Burst:
    """`words` words from byte `address`; data and strobes of a write."""

    address: int
    words: int
    data: tuple[int, ...] = ()
    strobes: tuple[int, ...] = ()

    @property
    def head(self) -> dict[str, int]:
        return {"addr": self.address, "len": self.words - 1}


@dataclass
class Master:
    """Plays bursts on the channels of `axi`, each side of which stalls with probability `idle`.

    Reads and writes run beside one another and are not ordered, unless they begin `after`
    something is true. `read` collects the R payloads as
    (data, resp, last), `answers` the B responses; `cycles` when each R word was taken.
    """

    axi: Any
    seed: int
    idle: float = 0.0
    read: list[tuple[int, int, int]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    cycles: list[int] = field(default_factory=list)

    def reads(
        self, sim: Simulator, bursts: Iterable[Burst], after: Callable[[], bool] | None = None
    ) -> None:
        """Testbenches that read; the simulation runs until all words have come."""
        bursts = list(bursts)
        rng = random.Random(f"{self.seed} reads")
        asks = source(self.axi.ar, [b.head for b in bursts], rng, self.idle)
        sim.add_testbench(_later(asks, after))
        count = sum(b.words for b in bursts)
        lasts = [n == b.words - 1 for b in bursts for n in range(b.words)]

        async def take(ctx):
            r, rng = self.axi.r, random.Random(f"{self.seed} r")
            cycle = 0
            while len(self.read) < count:
                ctx.set(r.ready, rng.random() >= self.idle)
                _, _, valid, ready, data, resp, last = await ctx.tick().sample(
                    r.valid, r.ready, r.payload.data, r.payload.resp, r.payload.last
                )
                if valid and ready:
                    assert last == lasts[len(self.read)], f"last of word {len(self.read)}"
                    self.read.append((data, resp, last))
                    self.cycles.append(cycle)
                cycle += 1
            ctx.set(r.ready, 0)

        sim.add_testbench(take)

    def writes(
        self, sim: Simulator, bursts: Iterable[Burst], after: Callable[[], bool] | None = None
    ) -> None:
        """Testbenches that write; the simulation runs until all answers have come."""
        bursts = list(bursts)
        words = [
            {"data": d, "strb": s, "last": n == b.words - 1}
            for b in bursts
            for n, (d, s) in enumerate(zip(b.data, b.strobes, strict=True))
        ]
        names = ("aw", "w", "b")
        aw, w, b = (random.Random(f"{self.seed} {name}") for name in names)
        heads = source(self.axi.aw, [burst.head for burst in bursts], aw, self.idle)
        sim.add_testbench(_later(heads, after))
        sim.add_testbench(_later(source(self.axi.w, words, w, self.idle), after))
        sim.add_testbench(sink(self.axi.b, self.answers, len(bursts), b, self.idle))


def _later(testbench: Callable, after: Callable[[], bool] | None) -> Callable:
    """`testbench`, which begins when `after` is true."""
    if after is None:
        return testbench

    async def waits(ctx):
        while not after():
            await ctx.tick()
        await testbench(ctx)

    return waits


def random_write(rng: random.Random, address: int, words: int, width: int, whole: bool) -> Burst:
    """A write burst; unless `whole`, strobes are drawn."""
    every = (1 << width // 8) - 1
    return Burst(
        address,
        words,
        tuple(rng.getrandbits(width) for _ in range(words)),
        tuple(every if whole else rng.randint(0, every) for _ in range(words)),
    )


class Reference:
    """What the memory should hold, by byte; `unwritten` gives the rest."""

    def __init__(self, unwritten) -> None:
        self._bytes: dict[int, int] = {}
        self._unwritten = unwritten

    def write(self, burst: Burst, width: int) -> None:
        size = width // 8
        for n, (data, strobe) in enumerate(zip(burst.data, burst.strobes, strict=True)):
            for lane in range(size):
                if strobe >> lane & 1:
                    self._bytes[burst.address + n * size + lane] = data >> 8 * lane & 0xFF

    def read(self, burst: Burst, width: int) -> list[int]:
        size = width // 8
        return [
            sum(self._byte(burst.address + n * size + lane) << 8 * lane for lane in range(size))
            for n in range(burst.words)
        ]

    def _byte(self, address: int) -> int:
        if address in self._bytes:
            return self._bytes[address]
        return self._unwritten(address // 2) >> 8 * (address % 2) & 0xFF
