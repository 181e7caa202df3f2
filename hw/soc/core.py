"""A system on chip without its pins: accelerator, memory controller, a host's two ports."""

from __future__ import annotations

from typing import Any

from amaranth import DomainRenamer, Module, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..axi.arbiter import Arbiter
from ..axi.bus import AXI4LiteSignature, AXI4Signature
from ..axi.crossing import Crossing
from ..config import AcceleratorConfig
from .accelerator import PlacedAccelerator
from .sdram import SdramController
from .sdram_bus import SdramSignature
from .sdram_part import SdramPart


class SocCore(Component):
    """The accelerator and a host share an SDRAM, each burst in turn.

    Domains: `sync` at the configuration's clock for everything but the memory controller, `sdram`
    at `sdram_hz` for that. Both are to be reset together. The memory begins at bus address 0 and
    takes bursts once it has started up; until then they wait.

    Throughput: a bus word of `bus_bits` a cycle of `sync` at most, `data_bits` of the SDRAM a cycle
    of `sdram` at most; see SdramController.

    Ports
    -----
    axil : the host's side of the control port.
    m_axi : the host's memory port; its words must not wait for the accelerator (see Arbiter).
    irq : of the accelerator.
    pins : of the SDRAM, in domain `sdram`; see SdramPhy.
    ready : the SDRAM has started up; in domain `sdram`.
    """

    irq: Signal
    ready: Signal
    axil: Any
    m_axi: Any
    pins: Any

    def __init__(
        self,
        config: AcceleratorConfig,
        part: SdramPart,
        sdram_hz: int,
        accelerator: str = "terntable",
    ) -> None:
        self._config = config
        self._accelerator = PlacedAccelerator(config, accelerator)
        self._controller = SdramController(part, config.bus_bits, sdram_hz)
        super().__init__(
            {
                "axil": In(AXI4LiteSignature()),
                "m_axi": In(AXI4Signature(config.bus_bits)),
                "irq": Out(1),
                "pins": Out(SdramSignature(part)),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        m.submodules.accelerator = accelerator = self._accelerator
        m.submodules.arbiter = arbiter = Arbiter(c.bus_bits, c.ports + 1)
        m.submodules.crossing = crossing = Crossing(c.bus_bits, "sync", "sdram")
        controller = self._controller
        m.submodules.controller = DomainRenamer("sdram")(controller)

        connect(m, flipped(self.axil), accelerator.s_axil)
        for p in range(c.ports):
            connect(m, getattr(accelerator, f"m_axi{p}"), getattr(arbiter, f"s_axi{p}"))
        connect(m, flipped(self.m_axi), getattr(arbiter, f"s_axi{c.ports}"))
        connect(m, arbiter.m_axi, crossing.s_axi)
        connect(m, crossing.m_axi, controller.axi)
        connect(m, controller.pins, flipped(self.pins))
        m.d.comb += [self.irq.eq(accelerator.irq), self.ready.eq(controller.ready)]
        return m
