"""Flat pins: names, directions, constants, determinism."""

import re

import pytest
from amaranth import Module
from amaranth.lib.wiring import Component, In, Out

from terntable.hw.axi.bus import AXI4LiteSignature, AXI4Signature
from terntable.hw.flat import Flat, to_verilog

SLAVE = """awaddr 8 awprot 3 awvalid 1 awready 1 wdata 32 wstrb 4 wvalid 1 wready 1 bresp 2 bvalid 1
bready 1 araddr 8 arprot 3 arvalid 1 arready 1 rdata 32 rresp 2 rvalid 1 rready 1"""
MASTER = """
arid 1 araddr 40 arlen 8 arsize 3 arburst 2 arlock 1 arcache 4 arprot 3 arqos 4 arvalid 1 arready
1 rid 1 rdata 64 rresp 2 rlast 1 rvalid 1 rready 1 awid 1 awaddr 40 awlen 8 awsize 3 awburst 2
awlock 1 awcache 4 awprot 3 awqos 4 awvalid 1 awready 1 wdata 64 wstrb 8 wlast 1 wvalid 1 wready 1
bid 1 bresp 2 bvalid 1 bready 1
"""
DRIVEN_BY_SLAVE = {"awready", "wready", "bresp", "bvalid", "bid", "arready", "rdata", "rresp",
                   "rvalid", "rlast", "rid"}  # fmt: skip


class Device(Component):
    def __init__(self) -> None:
        super().__init__(
            {
                "s_axil": In(AXI4LiteSignature()),
                "m_axi0": Out(AXI4Signature(64)),
                "irq": Out(1),
                "level": In(5),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.irq.eq(self.level == self.s_axil.aw.payload.addr)
        m.d.comb += self.m_axi0.r.ready.eq(1)
        m.d.comb += self.s_axil.r.payload.data.eq(self.m_axi0.r.payload.data)
        return m


def pins(prefix: str, text: str, master: bool) -> dict[str, tuple[str, int]]:
    found = text.split()
    return {
        f"{prefix}_{name}": (
            "input" if (name in DRIVEN_BY_SLAVE) == master else "output", int(width))
        for name, width in zip(found[::2], found[1::2], strict=True)
    }  # fmt: skip


def test_pins():
    text = to_verilog(Flat(Device()), "device")
    top = text[text.index("\nmodule device(") : text.index("endmodule", text.index("\nmodule dev"))]
    found = {
        name: (way, int(msb or 0) + 1)
        for way, msb, name in re.findall(r"^ *(input|output) (?:\[(\d+):0\] )?(\w+);", top, re.M)
    }
    expected = pins("s_axil", SLAVE, False) | pins("m_axi0", MASTER, True)
    expected |= {"aclk": ("input", 1), "aresetn": ("input", 1), "irq": ("output", 1),
                 "level": ("input", 5)}  # fmt: skip
    assert found == expected
    for line in ("assign m_axi0_arsize = 3'h3;", "assign m_axi0_awburst = 2'h1;",
                 "assign m_axi0_awvalid = 1'h0;", "assign m_axi0_arcache = 4'h3;"):  # fmt: skip
        assert line in top
    assert '(* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 s_axil AWADDR" *)' in top


def test_text_is_deterministic():
    assert to_verilog(Flat(Device()), "device") == to_verilog(Flat(Device()), "device")


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_axi4_slaves_have_no_flat_form():
    class Memory(Component):
        def __init__(self) -> None:
            super().__init__({"s_axi": In(AXI4Signature(32))})

    with pytest.raises(ValueError, match="s_axi: an AXI4 slave"):
        Flat(Memory())
