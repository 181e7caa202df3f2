"""A host at the ports of the system on chip; started by test_soc.py."""

from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from terntable.hw import regs
from terntable.sim.harness import params

BURST = 64
START, CLEAR = 1, 2
"""Bits of CONTROL."""


class Host:
    """AXI masters: a transfer of a channel takes a cycle in which both sides agree."""

    def __init__(self, dut) -> None:
        self.dut = dut
        for channel in ("axil__aw", "axil__w", "axil__ar", "m_axi__aw", "m_axi__w", "m_axi__ar"):
            self.pin(channel, "valid").value = 0
        for channel in ("axil__b", "axil__r", "m_axi__b", "m_axi__r"):
            self.pin(channel, "ready").value = 0

    def pin(self, channel: str, name: str):
        return getattr(self.dut, f"{channel}__{name}")

    async def give(self, channel: str, payload: int) -> None:
        self.pin(channel, "payload").value = payload
        self.pin(channel, "valid").value = 1
        await self.agreed(channel, "ready")
        self.pin(channel, "valid").value = 0

    async def take(self, channel: str) -> int:
        self.pin(channel, "ready").value = 1
        payload = await self.agreed(channel, "valid")
        self.pin(channel, "ready").value = 0
        return payload

    async def agreed(self, channel: str, name: str) -> int:
        for _ in range(100_000):
            await ReadOnly()
            done = bool(self.pin(channel, name).value)
            payload = int(self.pin(channel, "payload").value)
            await RisingEdge(self.dut.clk)
            if done:
                return payload
        raise AssertionError(f"{channel} is stuck")

    async def set(self, name: str, value: int) -> None:
        # Both at once: a slave may wait for both.
        words = cocotb.start_soon(self.give("axil__w", value | 0xF << 32))
        await self.give("axil__aw", regs.ADDRESS[name])
        await words
        assert not await self.take("axil__b")

    async def get(self, name: str) -> int:
        await self.give("axil__ar", regs.ADDRESS[name])
        answer = await self.take("axil__r")
        assert not answer >> 32
        return answer & 0xFFFF_FFFF

    async def write(self, address: int, data: bytes) -> None:
        assert len(data) % 4 == 0 and address % 4 == 0
        words = [int.from_bytes(data[n : n + 4], "little") for n in range(0, len(data), 4)]
        while words:
            count = min(len(words), BURST - address // 4 % BURST)
            await self.give("m_axi__aw", address | count - 1 << 40)
            for n in range(count):
                last = n == count - 1
                await self.give("m_axi__w", words[n] | 0xF << 32 | last << 36)
            assert not await self.take("m_axi__b")
            address, words = address + 4 * count, words[count:]

    async def read(self, address: int, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            at = address + len(data)
            count = min(-(-(size - len(data)) // 4), BURST - at // 4 % BURST)
            await self.give("m_axi__ar", at | count - 1 << 40)
            for n in range(count):
                beat = await self.take("m_axi__r")
                assert not beat >> 32 & 3 and bool(beat >> 34) == (n == count - 1)
                data += (beat & 0xFFFF_FFFF).to_bytes(4, "little")
        return bytes(data[:size])


@cocotb.test()
async def check_calls(dut):
    p = params()
    host = Host(dut)
    dut.rst.value = dut.sdram_rst.value = 1
    Clock(dut.clk, 20, "ns", impl="gpi").start()
    Clock(dut.sdram_clk, 10, "ns", impl="gpi").start()
    for _ in range(20):
        await RisingEdge(dut.clk)
    dut.rst.value = dut.sdram_rst.value = 0
    await RisingEdge(dut.clk)
    # Asked for before the memory has started up: it waits.
    image = Path(p["image"]).read_bytes()
    await host.write(0, image)
    assert dut.ready.value == 1
    assert await host.read(p["program"], 256) == image[p["program"] : p["program"] + 256]
    assert await host.get("CONFIG_HASH") == p["hash"]

    await host.set("BASE_LO", 0)
    await host.set("LIMIT", len(image))
    await host.set("WRITE_BASE", p["write_base"])
    await host.set("PROGRAM", p["program"])
    await host.set("CHUNK", p["chunk"])
    await host.set("IRQ_ENABLE", 1)
    await host.set("WATCHDOG", 100_000)
    for call in p["calls"]:
        await host.write(p["input"], bytes.fromhex(call["rows"]))
        await host.set("TOKENS", call["tokens"])
        await host.set("POSITION", call["position"])
        await host.set("CONTROL", START)
        for _ in range(200_000):
            if dut.irq.value == 1:
                break
            await RisingEdge(dut.clk)
        status = await host.get("STATUS")
        assert status == regs.Status.DONE, (status, await host.get("ERROR_CODE"))
        assert await host.get("ARGMAX") == call["argmax"]
        expected = bytes.fromhex(call["logits"])
        assert await host.read(p["logits"], len(expected)) == expected
        dut._log.warning("%d cycles", await host.get("CYCLES"))
        await host.set("CONTROL", CLEAR)
