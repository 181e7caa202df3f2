"""Verilog around the generated top with the pins and attributes that Vivado makes interfaces of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amaranth.lib.wiring import In, Member, Out

from .axi.bus import ADDRESS_BITS, AXI4LiteSignature, AXI4Signature
from .axi.read_port import ReadPort
from .axi.write_port import WritePort
from .config import AcceleratorConfig
from .flat import Pin, axi_pins
from .regs import ADDRESS_BITS as REGISTER_BITS

PAGE_BITS = 12
"""Address bits of the wrapper's control port: no bus decodes less than 4 KiB."""

CONTROL = "s_axi_control"
INTERRUPT = "interrupt"

_NO_REGISTER = (1 << REGISTER_BITS) - 4
"""An address without a register, for what lies in the page behind the registers."""


@dataclass(frozen=True)
class Interface:
    """An AXI interface of the wrapper: its name, that inside, and what Vivado is told of it."""

    name: str
    inner: str
    member: Member
    parameters: str

    def pins(self) -> Iterator[tuple[Pin, str]]:
        """The pins as the wrapper has them, and their directions."""
        master = self.member.flow is Out
        for pin in axi_pins(self.member):
            yield pin, "output" if pin.from_master is master else "input"


def memory_interfaces(config: AcceleratorConfig) -> list[str]:
    """Names of the wrapper's memory ports."""
    return [f"m_axi_hp{port}" for port in range(config.ports)]


def _interfaces(config: AcceleratorConfig) -> Iterator[Interface]:
    yield Interface(
        CONTROL,
        "s_axil",
        In(AXI4LiteSignature(PAGE_BITS)),
        f"PROTOCOL AXI4LITE, DATA_WIDTH 32, ADDR_WIDTH {PAGE_BITS}",
    )
    for port, name in enumerate(memory_interfaces(config)):
        yield Interface(
            name,
            f"m_axi{port}",
            Out(AXI4Signature(config.bus_bits)),
            f"PROTOCOL AXI4, DATA_WIDTH {config.bus_bits}, ADDR_WIDTH {ADDRESS_BITS}, ID_WIDTH 1,"
            f" MAX_BURST_LENGTH {config.burst_beats}, SUPPORTS_NARROW_BURST 0,"
            f" NUM_READ_OUTSTANDING {ReadPort.OUTSTANDING},"
            f" NUM_WRITE_OUTSTANDING {WritePort.OUTSTANDING}",
        )


def _port(direction: str, width: int, name: str, info: str, parameters: str = "") -> str:
    attributes = [f'X_INTERFACE_INFO = "{info}"']
    if parameters:
        interface = info.split()[1]
        attributes.insert(
            0, f'X_INTERFACE_PARAMETER = "XIL_INTERFACENAME {interface}, {parameters}"'
        )
    lines = [f"    (* {attribute} *)" for attribute in attributes]
    span = f"[{width - 1}:0] " if width > 1 else ""
    return "\n".join([*lines, f"    {direction} wire {span}{name}"])


def ip_wrapper(config: AcceleratorConfig, name: str, top: str, note: str) -> str:
    """Verilog of module `name` around module `top`, `note` in the comment above it.

    Interfaces: CONTROL (AXI4-Lite, a page of 4 KiB: what lies behind the registers is answered as
    no register), memory_interfaces (AXI4), INTERRUPT, aclk and aresetn. No frequency is given: it
    is that of the clock which the block design connects.
    """
    interfaces = list(_interfaces(config))
    busses = ":".join(i.name for i in interfaces)
    ports = [
        _port(
            "input", 1, "aclk", "xilinx.com:signal:clock:1.0 aclk CLK",
            f"ASSOCIATED_BUSIF {busses}, ASSOCIATED_RESET aresetn",
        ),
        _port(
            "input", 1, "aresetn", "xilinx.com:signal:reset:1.0 aresetn RST", "POLARITY ACTIVE_LOW"
        ),
        _port(
            "output", 1, INTERRUPT, f"xilinx.com:signal:interrupt:1.0 {INTERRUPT} INTERRUPT",
            "SENSITIVITY LEVEL_HIGH",
        ),
    ]  # fmt: skip
    wires = ["        .aclk(aclk)", "        .aresetn(aresetn)", f"        .irq({INTERRUPT})"]
    for interface in interfaces:
        parameters = interface.parameters
        for pin, direction in interface.pins():
            info = f"xilinx.com:interface:aximm:1.0 {interface.name} {pin.name.upper()}"
            outer = f"{interface.name}_{pin.name}"
            ports.append(_port(direction, pin.width, outer, info, parameters))
            parameters = ""  # once an interface
            if interface.name == CONTROL and pin.field == "addr":
                outer = f"{pin.name}_in"
            wires.append(f"        .{interface.inner}_{pin.name}({outer})")
    addresses = [
        f"    wire [{REGISTER_BITS - 1}:0] {channel}addr_in = {CONTROL}_{channel}addr"
        f"[{PAGE_BITS - 1}:{REGISTER_BITS}] == 0 ? {CONTROL}_{channel}addr[{REGISTER_BITS - 1}:0]"
        f" : {REGISTER_BITS}'h{_NO_REGISTER:02x};"
        for channel in ("aw", "ar")
    ]
    return "\n".join(
        [
            f"// {note}",
            "`default_nettype none",
            "// The interrupt's usual name is a word of C++ too.",
            "// verilator lint_off SYMRSVDWORD",
            "",
            f"module {name} (",
            ",\n".join(ports),
            ");",
            *addresses,
            "",
            f"    {top} accelerator (",
            ",\n".join(wires),
            "    );",
            "endmodule",
            "",
            "// verilator lint_on SYMRSVDWORD",
            "`default_nettype wire",
            "",
        ]
    )
