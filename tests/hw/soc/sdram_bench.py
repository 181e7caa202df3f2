"""An SDRAM controller in Amaranth's simulator, the model of an SDRAM at its pins."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

from amaranth import DomainRenamer, Module
from amaranth.lib import io
from amaranth.lib.wiring import Component, connect
from amaranth.sim import Simulator

from terntable.hw.axi.arbiter import Arbiter
from terntable.hw.axi.crossing import Crossing
from terntable.hw.soc.sdram import SdramController
from terntable.hw.soc.sdram_bus import Command
from terntable.hw.soc.sdram_part import ULX3S_SDRAM, SdramPart
from terntable.hw.soc.sdram_phy import SdramPhy
from terntable.sim.sdram import SdramModel

from ..monitor import watch

QUICK = replace(ULX3S_SDRAM, t_power_up=1000)
"""Its start-up takes no 200 us."""

PINS = {"clk_en": 1, "cs": 1, "ras": 1, "cas": 1, "we": 1, "ba": 2, "a": 13, "dqm": 2}


def board_ports(part: SdramPart) -> SimpleNamespace:
    """The SDRAM's pins, as a simulator has them."""
    inverted = {"cs", "ras", "cas", "we"}
    ports = {
        name: io.SimulationPort("o", width, name=f"sdram_{name}", invert=name in inverted)
        for name, width in PINS.items()
    }
    return SimpleNamespace(**ports, dq=io.SimulationPort("io", part.data_bits, name="sdram_dq"))


class Bench(Component):
    """The controller and its pins."""

    def __init__(self, part: SdramPart, bus_bits: int, clock_hz: int, cas: int) -> None:
        self.ports = board_ports(part)
        self.controller = SdramController(part, bus_bits, clock_hz, cas)
        self.phy = SdramPhy(part, self.ports)
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.controller = self.controller
        m.submodules.phy = self.phy
        connect(m, self.controller.pins, self.phy.pins)
        return m


class SharedBench(Component):
    """The controller in domain `sdram` behind a clock crossing and an arbiter."""

    def __init__(self, part: SdramPart, bus_bits: int, sdram_hz: int, masters: int) -> None:
        self.ports = board_ports(part)
        self.arbiter = Arbiter(bus_bits, masters)
        self._crossing = Crossing(bus_bits, "sync", "sdram")
        self._controller = SdramController(part, bus_bits, sdram_hz)
        self._phy = SdramPhy(part, self.ports)
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.arbiter = self.arbiter
        m.submodules.crossing = self._crossing
        m.submodules.controller = DomainRenamer("sdram")(self._controller)
        m.submodules.phy = DomainRenamer("sdram")(self._phy)
        connect(m, self.arbiter.m_axi, self._crossing.s_axi)
        connect(m, self._crossing.m_axi, self._controller.axi)
        connect(m, self._controller.pins, self._phy.pins)
        return m


def simulation(
    bus_bits: int = 32, clock_hz: int = 100_000_000, cas: int = 3, part: SdramPart = QUICK
) -> tuple[Simulator, SdramController, SdramModel]:
    """A simulator with the clock, monitors on the AXI channels, and the model."""
    bench = Bench(part, bus_bits, clock_hz, cas)
    period = 1e9 / clock_hz
    model = SdramModel(part, period, bus_bits // part.data_bits)
    sim = Simulator(bench)
    sim.add_clock(period * 1e-9)
    watch(sim, bench.controller)
    sim.add_testbench(_drive(model, bench.ports, period), background=True)
    return sim, bench.controller, model


def shared_simulation(
    masters: int, bus_hz: int = 50_000_000, sdram_hz: int = 100_000_000, bus_bits: int = 32
) -> tuple[Simulator, Arbiter, SdramModel]:
    """The same with several masters, at a clock of their own."""
    bench = SharedBench(QUICK, bus_bits, sdram_hz, masters)
    period = 1e9 / sdram_hz
    model = SdramModel(QUICK, period, bus_bits // QUICK.data_bits)
    sim = Simulator(bench)
    sim.add_clock(1 / bus_hz)
    sim.add_clock(period * 1e-9, domain="sdram")
    watch(sim, bench.arbiter)
    sim.add_testbench(_drive(model, bench.ports, period, "sdram"), background=True)
    return sim, bench.arbiter, model


def _drive(model: SdramModel, p: SimpleNamespace, period: float, domain: str = "sync"):
    """The model's edge is in the middle of a cycle: its clock is the inverse. A word is on the pins
    from then (t_ac, and the ways of clock and data, after the edge before: under a period) until
    t_oh and the ways after it; noise is there otherwise."""
    rng = random.Random(1)

    async def testbench(ctx):
        while True:
            await ctx.tick(domain)
            await ctx.delay(period * 0.1e-9)
            ctx.set(p.dq.i, rng.getrandbits(16))
            await ctx.delay(period * 0.4e-9)
            bits = [ctx.get(getattr(p, name).o) for name in ("ras", "cas", "we")]
            command = Command(bits[0] << 2 | bits[1] << 1 | bits[2])
            assert not ctx.get(p.cs.o)
            oe = ctx.get(p.dq.oe)
            assert oe in (0, 0xFFFF)
            before = pending[0]
            pending[0] = model.edge(
                command,
                ctx.get(p.ba.o),
                ctx.get(p.a.o),
                ctx.get(p.dqm.o),
                ctx.get(p.dq.o) if oe else None,
                bool(ctx.get(p.clk_en.o)),
            )
            if before is not None:
                ctx.set(p.dq.i, before)

    pending: list[int | None] = [None]
    return testbench
