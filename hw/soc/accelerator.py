"""The generated accelerator as a block of a system: its Verilog module, placed."""

from __future__ import annotations

from typing import Any

from amaranth import ClockSignal, Instance, Module, ResetSignal
from amaranth.lib.wiring import Component, In, Member, Out

from ..axi.bus import AXI4LiteSignature, AXI4Signature
from ..config import AcceleratorConfig
from ..flat import axi_pins


class PlacedAccelerator(Component):
    """Module `name` of the Verilog that `terntable generate` writes for `config`.

    Ports and behaviour are those of `Terntable`; clock and reset are `sync`'s.
    """

    s_axil: Any
    irq: Any

    def __init__(self, config: AcceleratorConfig, name: str) -> None:
        self._name = name
        super().__init__(
            {
                "s_axil": In(AXI4LiteSignature()),
                **{f"m_axi{p}": Out(AXI4Signature(config.bus_bits)) for p in range(config.ports)},
                "irq": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        ports: dict[str, Any] = {
            "i_aclk": ClockSignal(),
            "i_aresetn": ~ResetSignal(),
            "o_irq": self.irq,
        }
        for name, member in self.signature.members.items():
            if member.is_signature:
                ports |= self._pins(name, member)
        m = Module()
        m.submodules.accelerator = Instance(self._name, **ports)
        return m

    def _pins(self, name: str, member: Member) -> dict[str, Any]:
        """Constants of a master are left open, inputs that it ignores are 0."""
        master = member.flow is Out
        ports = {}
        for pin in axi_pins(member):
            side = "o" if pin.from_master is master else "i"
            channel = getattr(getattr(self, name), pin.channel)
            if pin.field in ("valid", "ready"):
                value = getattr(channel, pin.field)
            elif pin.field is not None:
                value = channel.payload[pin.field]
            elif side == "i":
                value = pin.constant
            else:
                continue
            ports[f"{side}_{name}_{pin.name}"] = value
        return ports
