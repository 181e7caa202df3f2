"""The ULX3S: clocks, pins and lights around the system on chip.

Not run on a board so far.
"""

from __future__ import annotations

import re
from typing import Any

from amaranth import ClockDomain, DomainRenamer, Module, Signal
from amaranth.build import Attrs, Pins, Resource
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth.lib.wiring import Component, connect

from ..config import AcceleratorConfig
from ..errors import UserError
from ..link.host_link import HostLink
from .core import SocCore
from .ecp5_pll import pll, settings
from .sdram_part import ULX3S_SDRAM, SdramPart
from .sdram_phy import SdramPhy

CRYSTAL_HZ = 25_000_000


def sdram_hz(config: AcceleratorConfig) -> int:
    """The memory's clock: as many cycles as a bus word has memory words, but for what the SDRAM is
    too fast for. Two for a bus of 32 bits: it keeps up with the accelerator's port."""
    words = config.bus_bits // ULX3S_SDRAM.data_bits
    return next(
        config.clock_hz * n
        for n in range(words, 0, -1)
        if n == 1 or 1e9 / (config.clock_hz * n) >= ULX3S_SDRAM.min_period[3]
    )


def host_link(config: AcceleratorConfig, part: SdramPart, baud: int) -> HostLink:
    """The serial line's end in front of an SDRAM that begins at bus address 0. Raises UserError
    when the clock is too slow for the line."""
    try:
        return HostLink(
            config.clock_hz,
            baud,
            bus_bits=config.bus_bits,
            burst_beats=config.burst_beats,
            size=part.bytes,
        )
    except ValueError as e:
        raise UserError(f"{config.name}: {e}") from None


class Ulx3s(Component):
    """The board's top: SocCore, its SDRAM, and the host link on the serial line.

    Domains: `sync` (clock_hz), `sdram` (sdram_hz); both are reset until the PLL has locked. Lights:
    0 the memory has started up, 1 a call has ended and nobody has looked, 2 and 3 the line's two
    directions, 7 a second's beat.
    """

    def __init__(self, config: AcceleratorConfig, baud: int) -> None:
        self._config = config
        self._pll = settings(CRYSTAL_HZ, sdram_hz(config), config.clock_hz)
        self._link = host_link(config, ULX3S_SDRAM, baud)
        self._core = SocCore(config, ULX3S_SDRAM, sdram_hz(config))
        super().__init__({})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        self._clocks(m, platform)

        # dir="-": the buffers are placed here.
        sdram = platform.request("sdram", 0, dir="-")
        m.submodules.core = core = self._core
        m.submodules.phy = phy = DomainRenamer("sdram")(SdramPhy(ULX3S_SDRAM, sdram))
        connect(m, core.pins, phy.pins)
        m.submodules.sdram_clk = clk = io.DDRBuffer("o", sdram.clk, o_domain="sdram")
        m.d.comb += [clk.o[0].eq(0), clk.o[1].eq(1)]  # the inverse of the clock

        m.submodules.link = link = self._link
        uart = platform.request("uart", 0, dir="-")
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        connect(m, link.axil, core.axil)
        connect(m, link.m_axi, core.m_axi)
        m.d.comb += [link.rx.eq(rx.i), tx.o.eq(link.tx), link.irq.eq(core.irq)]
        # High, or the board's other processor takes it for the button that programs it.
        m.submodules.esp32 = esp32 = io.Buffer("o", platform.request("esp32_boot", 0, dir="-"))
        m.d.comb += esp32.o.eq(1)
        self._lights(m, platform, {0: self._ready(m), 1: core.irq, 2: ~rx.i, 3: ~link.tx})
        return m

    def _clocks(self, m: Module, platform: Any) -> None:
        m.domains.sync = sync = ClockDomain("sync")
        m.domains.sdram = fast = ClockDomain("sdram")
        m.submodules.crystal = crystal = io.Buffer("i", platform.request("clk25", 0, dir="-"))
        locked = Signal()
        m.submodules.pll = pll(self._pll, crystal.i, fast.clk, sync.clk, locked)
        for domain in ("sync", "sdram"):
            m.submodules[f"{domain}_reset"] = ResetSynchronizer(~locked, domain=domain)

    def _ready(self, m: Module) -> Signal:
        ready = Signal()
        m.submodules.ready = FFSynchronizer(self._core.ready, ready)
        return ready

    def _lights(self, m: Module, platform: Any, lit: dict[int, Any]) -> None:
        second = Signal(range(self._config.clock_hz))
        m.d.sync += second.eq(second + 1)
        with m.If(second == self._config.clock_hz - 1):
            m.d.sync += second.eq(0)
        for number, value in (lit | {7: second < self._config.clock_hz // 2}).items():
            m.submodules[f"led{number}"] = led = io.Buffer(
                "o", platform.request("led", number, dir="-")
            )
            m.d.comb += led.o.eq(value)


def prepare(config: AcceleratorConfig, baud: int) -> dict[str, str]:
    """What Yosys and nextpnr take beside the accelerator's Verilog: top.il, top.lpf. Needs
    amaranth-boards."""
    from amaranth_boards.ulx3s import ULX3S_85F_Platform

    platform = ULX3S_85F_Platform()
    platform.add_resources(
        [Resource("esp32_boot", 0, Pins("L2", dir="o"), Attrs(IO_TYPE="LVCMOS33"))]
    )
    plan = platform.prepare(Ulx3s(config, baud), "top")
    # Without the places of the sources on this machine.
    design = re.sub(r"^\s*attribute \\src .*\n", "", str(plan.files["top.il"]), flags=re.M)
    return {"top.il": design, "top.lpf": str(plan.files["top.lpf"])}
