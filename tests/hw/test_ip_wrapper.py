"""The wrapper with the pins of an IP: what Verilator says of it, and what it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cocotb
import pytest
from cocotb.triggers import Timer

from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.generate import TOP, generate
from terntable.hw.ip_wrapper import ip_wrapper, memory_interfaces
from terntable.hw.regs import ADDRESS
from terntable.sim.harness import run_block
from terntable.sim.lint import WAIVERS, warnings
from terntable.sim.synthesis import YOSYS

TEST = load_config("test")
NAME = "terntable_board"
ECHO = """
module inner (input aclk, aresetn, output irq,
    input [7:0] s_axil_awaddr, s_axil_araddr,
    output [31:0] s_axil_rdata, output [1:0] s_axil_bresp);
  assign s_axil_rdata = {16'd0, s_axil_awaddr, s_axil_araddr};
  assign irq = aclk, s_axil_bresp = {2{aresetn}};
endmodule
"""
"""In the place of the accelerator: shows the addresses that reach it."""


def four_ports() -> AcceleratorConfig:
    return AcceleratorConfig.model_validate(TEST.model_dump() | {"ports": 4})


@cocotb.test()
async def check_addresses(dut) -> None:
    """Registers have their addresses; the rest of the page leads to none, not to another one."""
    for address in range(0, 4096, 4):
        dut.s_axi_control_awaddr.value = address
        dut.s_axi_control_araddr.value = 4092 - address
        await Timer(1, "ns")
        seen = int(dut.s_axi_control_rdata.value)
        for offset, inside in ((address, seen >> 8), (4092 - address, seen & 0xFF)):
            assert inside == (offset if offset < 256 else 0xFC), offset
    assert 0xFC not in ADDRESS.values()


def test_the_page_behind_the_registers() -> None:
    text = ip_wrapper(TEST, NAME, "inner", "a note")
    # Only the pins that the stand-in has.
    kept = ("aclk", "aresetn", "irq", "awaddr", "araddr", "rdata", "bresp")
    head, body = text.split("    inner accelerator (\n")
    wires, tail = body.split("\n    );")
    lines = [
        w.rstrip(",")
        for w in wires.split("\n")
        if "m_axi" not in w and w.split("(")[0].endswith(kept)
    ]
    wrapper = head + "    inner accelerator (\n" + ",\n".join(lines) + "\n    );" + tail
    run_block(wrapper + ECHO, top=NAME, module=__file__)


@pytest.mark.slow
def test_verilator_warns_of_nothing() -> None:
    config = four_ports()
    design = generate(config)
    wrapper = ip_wrapper(config, NAME, TOP, "a note")
    found = warnings(wrapper + design.simulation, top=NAME, vlt=design.vlt)
    assert not [w for w in found if not any(waiver.covers(w) for waiver in WAIVERS)]


def test_yosys_reads_it(tmp_path: Path) -> None:
    """With the accelerator: no module and no pin is missing, no wire has two drivers or none. That
    the accelerator can be mapped is tested elsewhere."""
    design = ip_wrapper(TEST, NAME, TOP, "a note") + generate(TEST).verilog
    (tmp_path / "design.v").write_text(design)
    script = f"read_verilog design.v; hierarchy -check -top {NAME}; proc; check -assert"
    done = subprocess.run(
        [sys.executable, "-c", YOSYS, "-q", "-p", script],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_pin_of_the_accelerator_is_connected() -> None:
    config = four_ports()
    text = generate(config).verilog
    top = text[text.index(f"\nmodule {TOP}(") :]
    pins = dict(
        (name, (way, int(msb or 0)))
        for way, msb, name in re.findall(
            r"^ *(input|output) (?:\[(\d+):0\] )?(\w+);", top[: top.index("endmodule")], re.M
        )
    )
    wrapper = ip_wrapper(config, NAME, TOP, "a note")
    outer = {
        name: (way, int(msb or 0))
        for way, msb, name in re.findall(r"(input|output) wire (?:\[(\d+):0\] )?(\w+)", wrapper)
    }
    wires = dict(re.findall(r"\.(\w+)\((\w+)\)", wrapper))
    assert wires.keys() == pins.keys()
    renamed = {"s_axil_awaddr": "awaddr_in", "s_axil_araddr": "araddr_in", "irq": "interrupt"}
    names = dict(zip((f"m_axi{n}" for n in range(4)), memory_interfaces(config), strict=True))
    for inner, wire in wires.items():
        prefix = inner.split("_")[0] if inner[0] == "i" else "_".join(inner.split("_")[:2])
        expected = renamed.get(inner)
        if expected is None:
            expected = inner.replace(
                prefix, {"s_axil": "s_axi_control", **names}.get(prefix, prefix)
            )
        assert wire == expected
        if wire in outer:
            assert outer[wire] == pins[inner], inner
    assert set(outer) == set(wires.values()) - {"awaddr_in", "araddr_in"} | {
        "s_axi_control_awaddr", "s_axi_control_araddr",
    }  # fmt: skip


def test_vivado_is_told_what_belongs_together() -> None:
    wrapper = ip_wrapper(four_ports(), NAME, TOP, "a note")
    ports = re.findall(r"((?:    \(\*.*\*\)\n)+)    (?:input|output) wire .*?(\w+),?\n", wrapper)
    assert len(ports) == len(re.findall(r"^    (?:input|output) wire", wrapper, re.M))
    for attributes, pin in ports:
        interface, signal = re.findall(r'X_INTERFACE_INFO = "\S+ (\w+) (\w+)"', attributes)[0]
        assert pin in (f"{interface}_{signal.lower()}", interface)
    told = re.findall(r'X_INTERFACE_PARAMETER = "XIL_INTERFACENAME (\w+), ([^"]*)"', wrapper)
    parameters = dict(told)
    assert len(parameters) == len(told) == 8
    assert "PROTOCOL AXI4LITE" in parameters["s_axi_control"]
    assert "PROTOCOL AXI4, DATA_WIDTH 32, ADDR_WIDTH 40" in parameters["m_axi_hp3"]
    assert "s_axi_control:m_axi_hp0:m_axi_hp1:m_axi_hp2:m_axi_hp3" in parameters["aclk"]
    assert "FREQ_HZ" not in wrapper
