"""Serves a host process from inside the simulator: the cocotb test of sim/tb.sv.

The two sides exchange JSON objects, a line each, over the socket TERNTABLE_SIM_FD. The host sends
a request and waits for its answer; simulated time passes only while a request is served. The
clock is not Python's, and Python wakes a few times a second during a call.

| request | answer |
| --- | --- |
| {"op": "write", "registers": [[address, value], ...]} | {"cycle": n} |
| {"op": "read", "addresses": [address, ...]} | {"cycle": n, "values": [...]} |
| {"op": "wait", "budget": cycles, "stuck": cycles, "seconds": s, "again": bool} | {"cycle": n} |
| {"op": "run", "cycles": cycles} | {"cycle": n} |
| {"op": "reset", "dram": text} | {"cycle": n} |
| {"op": "quit"} | none: the simulation ends |

A wait is answered after the interrupt, with "running" false, or after some seconds of wall time,
with "running" true: it goes on with a request whose "again" is true. An answer with "error" says
why a request failed; "registers" has those a watchdog read, "broken" tells that a master or slave
broke the AXI protocol. The text of a reset replaces the memory's settings (see sim/dram.py).
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import time
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.simtime import get_sim_time
from cocotb.triggers import First, ReadOnly, RisingEdge, Timer

from terntable.hw.regs import ADDRESS

POLL_SECONDS = 0.25
"""Wall time between two looks at a running call."""

_MOVING = ("READ_BEATS", "WRITE_BEATS", "UNIT_STATE", "ERROR_COMMAND")
_REPORT = (
    "STATUS",
    "UNIT_STATE",
    "ERROR_CODE",
    "ERROR_UNIT",
    "ERROR_ADDRESS",
    "ERROR_COMMAND",
    "READ_BEATS",
    "WRITE_BEATS",
    "CYCLES",
)
_WAIT = ("budget", "stuck", "seconds")
_ACCESS_CYCLES = 1000
_SETTLE_CYCLES = 8
"""Clocks after a write in which the interrupt follows a cleared status."""


class Failed(Exception):
    """A request that failed: its text, registers by name, whether it was the AXI protocol."""

    def __init__(
        self, text: str, registers: dict[str, int] | None = None, broken: bool = False
    ) -> None:
        super().__init__(text)
        self.registers = registers or {}
        self.broken = broken


class Watch:
    """What is known of a call in progress: the cycles in which it began and last moved."""

    def __init__(self, cycle: int) -> None:
        self.began = self.moved = cycle
        self.state: list[int] = []


class Server:
    """The simulator's side of the protocol."""

    def __init__(self, dut: Any, link: socket.socket, period_ps: int) -> None:
        self.dut = dut
        self.link = link
        self.lines = link.makefile("rb")
        self.period = period_ps
        self.slice = 1000
        self.watch = Watch(0)
        self.data = 0  # of the last read
        self.use(os.environ.get("TERNTABLE_DRAM", ""))

    @property
    def cycle(self) -> int:
        return round(get_sim_time("ps")) // self.period

    async def run(self) -> None:
        """Serve until the host quits or is gone."""
        await self.reset()
        while line := self.lines.readline():
            request = json.loads(line)
            if request["op"] == "quit":
                return
            try:
                answer = await self.serve(request)
                await self.check_protocol()
            except Failed as e:
                answer = {"error": str(e), "registers": e.registers, "broken": e.broken}
            answer["cycle"] = self.cycle
            self.link.sendall(json.dumps(answer).encode() + b"\n")

    async def serve(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["op"]:
            case "write":
                for address, value in request["registers"]:
                    await self.write(address, value)
                for _ in range(_SETTLE_CYCLES):
                    await RisingEdge(self.dut.aclk)
                return {}
            case "read":
                return {"values": [await self.read(a) for a in request["addresses"]]}
            case "wait":
                if not request["again"]:
                    self.watch = Watch(self.cycle)
                return {"running": await self.wait(**{n: request[n] for n in _WAIT})}
            case "run":
                await Timer(request["cycles"] * self.period, "ps")
                await RisingEdge(self.dut.aclk)
                return {}
            case "reset":
                # The memory's model reads it again in the reset.
                os.environ["TERNTABLE_DRAM"] = request["dram"]
                self.use(request["dram"])
                await self.reset()
                return {}
        raise Failed(f"unknown request {request['op']!r}")

    async def check_protocol(self) -> None:
        """Failed when master or slave of a port has broken the AXI protocol since the reset."""
        if self.dut.fault.value == 1:
            raise Failed("the AXI protocol was broken", broken=True)

    async def reset(self) -> None:
        dut = self.dut
        dut.aresetn.value = 0
        for name in (
            "awaddr",
            "awvalid",
            "wdata",
            "wvalid",
            "bready",
            "araddr",
            "arvalid",
            "rready",
        ):
            getattr(dut, f"s_axil_{name}").value = 0
        for _ in range(8):
            await RisingEdge(dut.aclk)
        dut.aresetn.value = 1
        await RisingEdge(dut.aclk)

    async def write(self, address: int, value: int) -> None:
        """One AXI4-Lite write."""
        dut = self.dut
        dut.s_axil_awaddr.value = address
        dut.s_axil_wdata.value = value
        response = await self.access(("aw", "w"), "b")
        if response is None:
            raise Failed(f"writing register {address:#x}: no response")
        if response:
            raise Failed(f"writing register {address:#x}: response {response}")

    async def read(self, address: int) -> int:
        """One AXI4-Lite read."""
        dut = self.dut
        dut.s_axil_araddr.value = address
        response = await self.access(("ar",), "r")
        if response is None:
            raise Failed(f"reading register {address:#x}: no response")
        if response:
            raise Failed(f"reading register {address:#x}: response {response}")
        return self.data

    async def access(self, requests: tuple[str, ...], answer: str) -> int | None:
        """Offer these channels until they are taken, and take the answer: its response, or None
        when none comes. With stalls, in any order and at any time."""
        waiting: list[str] = list(requests)
        offered: list[str] = []
        ready, valid, response = (self.pin(answer + n) for n in ("ready", "valid", "resp"))
        for _ in range(_ACCESS_CYCLES):
            for channel in list(waiting):
                if self.eager():
                    self.pin(f"{channel}valid").value = 1
                    waiting.remove(channel)
                    offered.append(channel)
            taking = self.eager()
            ready.value = int(taking)
            # What stands before the edge is what it transfers.
            await ReadOnly()
            taken = [c for c in offered if self.pin(f"{c}ready").value == 1]
            answered = taking and valid.value == 1
            code = int(response.value)
            if answered and answer == "r":
                self.data = int(self.dut.s_axil_rdata.value)
            await RisingEdge(self.dut.aclk)
            for channel in taken:
                self.pin(f"{channel}valid").value = 0
                offered.remove(channel)
            if answered:
                ready.value = 0
                return code
        return None

    def pin(self, name: str) -> Any:
        return getattr(self.dut, f"s_axil_{name}")

    def eager(self) -> bool:
        return self.stall == 0 or self.random.random() >= self.stall

    def use(self, settings: str) -> None:
        """Take what the memory's settings say of this side of the control port."""
        values = dict(item.split("=", 1) for item in settings.split(";") if item)
        self.stall = float(values.get("control", 0))
        self.random = random.Random(int(values.get("seed", 0)))

    async def wait(self, budget: int, stuck: int, seconds: float) -> bool:
        """Until the interrupt, or for some seconds: whether it is still to come. Failed when the
        call takes over `budget` cycles, nothing moves for `stuck` cycles, or the accelerator breaks
        the AXI protocol."""
        dut, watch = self.dut, self.watch
        until = time.monotonic() + seconds
        while dut.irq.value != 1:
            left = min(watch.began + budget - self.cycle, watch.moved + stuck - self.cycle)
            cycles = max(1, min(self.slice, left))
            clock = time.monotonic()
            if clock >= until:
                return True
            await First(RisingEdge(dut.irq), Timer(cycles * self.period, "ps"))
            self.adapt(cycles, time.monotonic() - clock)
            await RisingEdge(dut.aclk)
            await self.check_protocol()
            if dut.irq.value == 1:
                break
            if select.select([self.link], [], [], 0)[0]:
                raise Failed("the host gave up the call")
            now = [await self.read(ADDRESS[name]) for name in _MOVING]
            if now != watch.state:
                watch.state, watch.moved = now, self.cycle
            if self.cycle - watch.moved >= stuck:
                raise Failed(f"nothing moved for {stuck:,} cycles", await self.report())
            if self.cycle - watch.began >= budget:
                raise Failed(f"no end after {budget:,} cycles", await self.report())
        return False

    def adapt(self, cycles: int, seconds: float) -> None:
        """Choose the next slice so that it takes POLL_SECONDS."""
        if seconds > 2 * POLL_SECONDS:
            self.slice = max(100, self.slice // 2)
        elif seconds < POLL_SECONDS / 2 and cycles == self.slice:
            self.slice = min(10_000_000, self.slice * 2)

    async def report(self) -> dict[str, int]:
        return {name: await self.read(ADDRESS[name]) for name in _REPORT}


@cocotb.test()
async def serve(dut: Any) -> None:
    """Entry point: serve TERNTABLE_SIM_FD with a clock of TERNTABLE_SIM_PERIOD picoseconds."""
    period = int(os.environ["TERNTABLE_SIM_PERIOD"])
    link = socket.socket(fileno=int(os.environ["TERNTABLE_SIM_FD"]))
    Clock(dut.aclk, period, "ps", impl="gpi").start()
    await Server(dut, link, period).run()
