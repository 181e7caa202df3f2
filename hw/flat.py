"""Verilog of a component with the pins that FPGA tools expect.

AXI members of the component become pins with the usual names (`m_axi0_araddr`), every other member
stays as it is, clock and reset are `aclk` and `aresetn`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amaranth import C, ClockDomain, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Component, Flow, In, Out, connect, flipped
from amaranth.utils import exact_log2

from .axi.bus import AXI4LiteSignature, AXI4Signature
from .modules import ModuleLibrary

MASTER_CONSTANTS = {"burst": 1, "lock": 0, "cache": 0b0011, "prot": 0, "qos": 0, "id": 0}
"""Incrementing bursts; normal, bufferable, not cached memory; one identifier."""

_MASTER_WIDTHS = {"size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "qos": 4, "id": 1}


@dataclass(frozen=True)
class Pin:
    """A pin of an AXI interface: `field` of `channel`, a constant, or an input that is ignored."""

    name: str
    width: int
    from_master: bool
    channel: str
    field: str | None = None
    constant: int = 0


def axi_pins(interface: wiring.Member) -> Iterator[Pin]:
    """The pins of an interface, without their prefix."""
    # As the master sees them: the signature of an In member is flipped.
    signature = interface.signature if interface.flow is Out else interface.signature.flip()
    full = isinstance(signature, AXI4Signature)
    for channel, member in signature.members.items():
        forward = member.flow is Out
        payload = member.signature.members["payload"].shape
        for field, place in payload:
            yield Pin(channel + field, place.width, forward, channel, field)
        if channel in ("ar", "aw"):
            constants = MASTER_CONSTANTS | {"size": 0} if full else {"prot": 0}
            if full:
                constants["size"] = exact_log2(signature.data_bits // 8)
            for field, value in constants.items():
                yield Pin(channel + field, _MASTER_WIDTHS[field], True, channel, None, value)
        elif full and channel in ("r", "b"):
            yield Pin(f"{channel}id", _MASTER_WIDTHS["id"], False, channel)
        yield Pin(f"{channel}valid", 1, forward, channel, "valid")
        yield Pin(f"{channel}ready", 1, not forward, channel, "ready")


class Flat(Component):
    """`component` with flat AXI pins, `aclk` and `aresetn`.

    `aresetn` (active low) is taken synchronously and reaches the component two cycles later; hold
    it for 16 cycles, as AXI interconnects ask for. Members of AXI4Signature and AXI4LiteSignature
    become pins, an AXI4Signature only as a master; other members keep their names.
    """

    aclk: Signal
    aresetn: Signal

    def __init__(self, component: Component) -> None:
        self._component = component
        members: dict = {"aclk": In(1), "aresetn": In(1)}
        for name, member in component.signature.members.items():
            if member.is_signature and isinstance(
                member.signature, AXI4Signature | AXI4LiteSignature
            ):
                master = member.flow is Out
                if isinstance(member.signature, AXI4Signature) and not master:
                    raise ValueError(f"{name}: an AXI4 slave has no flat form")
                for pin in axi_pins(member):
                    flow = Out if pin.from_master is master else In
                    members[f"{name}_{pin.name}"] = flow(pin.width)
            else:
                members[name] = member
        super().__init__(members)
        self._name_interfaces()

    def _axi(self) -> Iterator[tuple[str, wiring.Member]]:
        for name, member in self._component.signature.members.items():
            if name not in self.signature.members:
                yield name, member

    def _name_interfaces(self) -> None:
        """Attributes by which Vivado's IP integrator groups the pins."""
        interfaces = [name for name, _ in self._axi()]
        clock = "xilinx.com:signal:clock:1.0 aclk CLK"
        self.aclk.attrs["X_INTERFACE_INFO"] = clock
        self.aclk.attrs["X_INTERFACE_PARAMETER"] = (
            f"ASSOCIATED_BUSIF {':'.join(interfaces)}, ASSOCIATED_RESET aresetn"
        )
        self.aresetn.attrs["X_INTERFACE_INFO"] = "xilinx.com:signal:reset:1.0 aresetn RST"
        self.aresetn.attrs["X_INTERFACE_PARAMETER"] = "POLARITY ACTIVE_LOW"
        if "irq" in self.signature.members:
            self.irq.attrs["X_INTERFACE_INFO"] = "xilinx.com:signal:interrupt:1.0 irq INTERRUPT"
            self.irq.attrs["X_INTERFACE_PARAMETER"] = "SENSITIVITY LEVEL_HIGH"
        for name, member in self._axi():
            for pin in axi_pins(member):
                getattr(self, f"{name}_{pin.name}").attrs["X_INTERFACE_INFO"] = (
                    f"xilinx.com:interface:aximm:1.0 {name} {pin.name.upper()}"
                )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        inner = self._component
        m.domains.sync = sync = ClockDomain("sync")
        # Two registers, high from configuration on: no reset may reach them.
        reset = Signal(2, init=3, reset_less=True)
        m.d.sync += reset.eq(reset << 1 | ~self.aresetn)
        m.d.comb += [sync.clk.eq(self.aclk), sync.rst.eq(reset[1])]
        m.submodules.core = inner

        for name, member in inner.signature.members.items():
            if name in self.signature.members:
                self._pass(m, name, member)
                continue
            master = member.flow is Out
            interface = getattr(inner, name)
            for pin in axi_pins(member):
                outer = getattr(self, f"{name}_{pin.name}")
                channel = getattr(interface, pin.channel)
                if pin.field in ("valid", "ready"):
                    signal = getattr(channel, pin.field)
                elif pin.field is not None:
                    signal = channel.payload[pin.field]
                elif pin.from_master is master:
                    signal = C(pin.constant, pin.width)
                else:
                    continue
                if pin.from_master is master:
                    m.d.comb += outer.eq(signal)
                else:
                    m.d.comb += signal.eq(outer)
        return m

    def _pass(self, m: Module, name: str, member: wiring.Member) -> None:
        inner, outer = getattr(self._component, name), getattr(self, name)
        if member.is_signature:
            connect(m, inner, flipped(outer))
        elif member.flow is Flow.In:
            m.d.comb += inner.eq(outer)
        else:
            m.d.comb += outer.eq(inner)


def to_verilog(component: Component, name: str, family: str | None = None) -> str:
    """Verilog of `component` as module `name`, cut for a device's `family`, and of its memories.

    The text depends on nothing but the component. Flat pins are those of `component`: wrap it in
    Flat for the pins of an IP.
    """
    library = ModuleLibrary(family)
    return f"{library.convert(name, component)}\n{library.verilog()}"
