"""The system on chip with its SDRAM, as Verilog for simulations: everything but the FPGA's pins and
clocks, and a port for the host instead of the serial link."""

from __future__ import annotations

from importlib import resources
from types import SimpleNamespace
from typing import Any

from amaranth import Cat, ClockSignal, DomainRenamer, Instance, Module, Signal
from amaranth.lib import io
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from terntable.hw.axi.bus import AXI4LiteSignature, AXI4Signature
from terntable.hw.config import AcceleratorConfig
from terntable.hw.flat import to_verilog
from terntable.hw.generate import TOP, generate
from terntable.hw.soc.core import SocCore
from terntable.hw.soc.sdram_part import SdramCycles, SdramPart
from terntable.hw.soc.sdram_phy import SdramPhy

SDRAM_MODEL = "sdram_model"
"""The module of sim/sdram.sv."""


def simulation_ports(part: SdramPart) -> SimpleNamespace:
    """The SDRAM's pins, as a simulator has them."""
    widths = {
        "clk_en": 1, "cs": 1, "ras": 1, "cas": 1, "we": 1, "ba": part.bank_bits,
        "a": part.row_bits, "dqm": part.data_bits // 8,
    }  # fmt: skip
    low = {"cs", "ras", "cas", "we"}
    ports = {
        name: io.SimulationPort("o", width, name=f"sdram_{name}", invert=name in low)
        for name, width in widths.items()
    }
    return SimpleNamespace(**ports, dq=io.SimulationPort("io", part.data_bits, name="sdram_dq"))


def model_parameters(part: SdramPart, cycles: SdramCycles, burst: int) -> dict[str, int]:
    """Of the module SDRAM_MODEL. ACTIVATE to PRECHARGE is the part's own, not what follows from
    ACTIVATE to ACTIVATE."""
    return {
        "BURST": burst, "CAS": cycles.cas, "RCD": cycles.rcd, "RP": cycles.rp, "RAS": cycles.ras,
        "RC": cycles.rc, "RRD": cycles.rrd, "WR": cycles.wr, "MRD": cycles.mrd,
        "REFI": cycles.refi, "POWER_UP": cycles.power_up, "BANK_BITS": part.bank_bits,
        "ROW_BITS": part.row_bits, "COLUMN_BITS": part.column_bits, "DATA_BITS": part.data_bits,
    }  # fmt: skip


class SimulatedSoc(Component):
    """SocCore, the registers in the pins, and the SDRAM's model.

    Domains `sync` (clk) and `sdram` (sdram_clk) are driven from outside. With `link`, a component
    as Ulx3s takes it, the ports are those of its line, rx and tx; without, the host's: axil, m_axi,
    irq. ready: the SDRAM has started up.
    """

    ready: Signal

    def __init__(
        self, config: AcceleratorConfig, part: SdramPart, sdram_hz: int, link: Any = None
    ) -> None:
        self._part, self._link = part, link
        self._cycles = SdramCycles.of(part, sdram_hz, 3)
        self._burst = config.bus_bits // part.data_bits
        self._core = SocCore(config, part, sdram_hz, TOP)
        host: dict[str, Any] = {
            "axil": In(AXI4LiteSignature()),
            "m_axi": In(AXI4Signature(config.bus_bits)),
            "irq": Out(1),
        }
        line: dict[str, Any] = {"rx": In(1, init=1), "tx": Out(1, init=1)}
        super().__init__({"ready": Out(1), **(host if link is None else line)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports = simulation_ports(self._part)
        m.submodules.core = core = self._core
        m.submodules.phy = phy = DomainRenamer("sdram")(SdramPhy(self._part, ports))
        connect(m, core.pins, phy.pins)
        m.submodules.memory = Instance(
            SDRAM_MODEL,
            *(("p", *p) for p in model_parameters(self._part, self._cycles, self._burst).items()),
            i_clk=ClockSignal("sdram"),
            i_cke=ports.clk_en.o,
            i_command=Cat(ports.we.o, ports.cas.o, ports.ras.o),
            i_ba=ports.ba.o,
            i_a=ports.a.o,
            i_dqm=ports.dqm.o,
            i_dq_o=ports.dq.o,
            i_dq_oe=ports.dq.oe[0],
            o_dq_i=ports.dq.i,
        )
        m.d.comb += self.ready.eq(core.ready)
        if self._link is None:
            connect(m, flipped(self.axil), core.axil)
            connect(m, flipped(self.m_axi), core.m_axi)
            m.d.comb += self.irq.eq(core.irq)
        else:
            m.submodules.link = link = self._link
            connect(m, link.axil, core.axil)
            connect(m, link.m_axi, core.m_axi)
            m.d.comb += [link.rx.eq(self.rx), self.tx.eq(link.tx), link.irq.eq(core.irq)]
        return m


def soc_verilog(soc: Component, config: AcceleratorConfig, top: str = "soc") -> tuple[str, str]:
    """Verilog of all of it as module `top`, and lines for Verilator's configuration file."""
    generated = generate(config)
    return "\n".join((to_verilog(soc, top), generated.simulation, sdram_text())), generated.vlt


def sdram_text() -> str:
    """The module SDRAM_MODEL."""
    return resources.files("terntable.sim").joinpath("sdram.sv").read_text(encoding="utf-8")
