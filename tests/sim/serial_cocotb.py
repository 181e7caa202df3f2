"""Lets time pass on a board at a serial port until a file appears; started by test_serial_board."""

from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer

from terntable.sim.harness import params


@cocotb.test()
async def run_until_stopped(dut):
    dut.rst.value = dut.sdram_rst.value = 1
    Clock(dut.clk, 20, "ns", impl="gpi").start()
    Clock(dut.sdram_clk, 10, "ns", impl="gpi").start()
    for _ in range(20):
        await RisingEdge(dut.clk)
    dut.rst.value = dut.sdram_rst.value = 0
    stop = Path(params()["stop"])
    while not stop.exists():
        await Timer(100, "us")
    assert dut.ready.value == 1
