"""What is behind the link's masters in these tests: registers, and memory, with stalls."""

from __future__ import annotations

import random
from typing import Any

from amaranth.sim import Simulator

from terntable.hw.axi.bus import PAGE_BYTES, Response


class Slave:
    """Channels of a bus that stand still in a cycle with probability `stall`."""

    def __init__(self, bus: Any, seed: int, stall: float) -> None:
        self.bus = bus
        self.rng = random.Random(seed)
        self.stall = stall

    def still(self) -> bool:
        return self.rng.random() < self.stall

    async def take(self, ctx: Any, channel: Any) -> Any:
        """The payload of a channel's next transfer."""
        while not ctx.get(channel.valid):
            await ctx.changed(channel.valid)  # rather than in every cycle
        while True:
            ready = not self.still()
            ctx.set(channel.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(channel.valid, channel.payload)
            if valid and ready:
                break
        ctx.set(channel.ready, 0)
        return payload

    async def give(self, ctx: Any, channel: Any, payload: dict[str, int]) -> None:
        while self.still():
            await ctx.tick()
        ctx.set(channel.payload, payload)
        ctx.set(channel.valid, 1)
        ready = False
        while not ready:
            _, _, ready = await ctx.tick().sample(channel.ready)
        ctx.set(channel.valid, 0)


class Registers(Slave):
    """Registers on AXI4-Lite, of which those from `top` on answer SLVERR; `log` has the writes."""

    def __init__(self, bus: Any, seed: int = 0, stall: float = 0.0, top: int = 0x80) -> None:
        super().__init__(bus, seed, stall)
        self.words = {address: 0x01010101 * (address >> 2) for address in range(0, top, 4)}
        self.log: list[tuple[int, int]] = []

    def read(self, address: int) -> tuple[int, int]:
        if address not in self.words:
            return 0, Response.SLVERR.value
        return self.words[address], Response.OKAY.value

    def write(self, address: int, word: int) -> int:
        if address not in self.words:
            return Response.SLVERR.value
        self.log.append((address, word))
        self.words[address] = word
        return Response.OKAY.value

    def attach(self, simulator: Simulator) -> None:
        for bench in (self._reads, self._writes):
            simulator.add_testbench(bench, background=True)

    async def _reads(self, ctx: Any) -> None:
        while True:
            word, response = self.read((await self.take(ctx, self.bus.ar)).addr)
            await self.give(ctx, self.bus.r, {"data": word, "resp": response})

    async def _writes(self, ctx: Any) -> None:
        """Address and word are taken in either order."""
        while True:
            first = self.rng.random() < 0.5
            order = ("w", "aw") if first else ("aw", "w")
            taken = {name: await self.take(ctx, getattr(self.bus, name)) for name in order}
            address, word = taken["aw"], taken["w"]
            assert word.strb == 0b1111
            await self.give(ctx, self.bus.b, {"resp": self.write(address.addr, word.data)})


class Memory(Slave):
    """Bytes at bus address `base`; bursts that touch `bad` are answered with an error, and not
    written."""

    def __init__(
        self, bus: Any, base: int, size: int, beats: int, seed: int = 0, stall: float = 0.0
    ) -> None:
        super().__init__(bus, seed, stall)
        self.base = base
        self.beats = beats
        self.word = bus.signature.data_bits // 8
        self.data = bytearray(self.rng.randbytes(size))
        self.bad: list[range] = []

    def attach(self, simulator: Simulator) -> None:
        for bench in (self._reads, self._writes):
            simulator.add_testbench(bench, background=True)

    def _response(self, at: int, size: int) -> int:
        bad = any(range(max(r.start, at), min(r.stop, at + size)) for r in self.bad)
        return Response.SLVERR.value if bad else Response.OKAY.value

    def _burst(self, address: Any) -> tuple[int, int]:
        """Offset and beats of a burst that AXI and the memory allow."""
        offset, beats = address.addr - self.base, address.len + 1
        last = offset + beats * self.word - 1
        assert beats <= self.beats and offset % self.word == 0
        assert offset // PAGE_BYTES == last // PAGE_BYTES
        assert offset >= 0 and last < len(self.data)
        return offset, beats

    async def _reads(self, ctx: Any) -> None:
        while True:
            offset, beats = self._burst(await self.take(ctx, self.bus.ar))
            for n in range(beats):
                at = offset + self.word * n
                word = int.from_bytes(self.data[at : at + self.word], "little")
                payload = {"data": word, "resp": self._response(at, self.word)}
                await self.give(ctx, self.bus.r, payload | {"last": n == beats - 1})

    async def _writes(self, ctx: Any) -> None:
        while True:
            offset, beats = self._burst(await self.take(ctx, self.bus.aw))
            response = self._response(offset, beats * self.word)
            for n in range(beats):
                word = await self.take(ctx, self.bus.w)
                assert word.last == (n == beats - 1)
                for lane in range(self.word):
                    if word.strb >> lane & 1 and response == Response.OKAY.value:
                        at = offset + self.word * n + lane
                        self.data[at] = word.data >> 8 * lane & 0xFF
            await self.give(ctx, self.bus.b, {"resp": response})
