"""Lets time pass on a board at a serial port until a file appears (cocotb; see serial_board.py)."""

from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer

from terntable.sim.harness import params


@cocotb.test()
async def run_until_stopped(dut: Any) -> None:
    p = params()
    dut.rst.value = dut.sdram_rst.value = 1
    Clock(dut.clk, p["period_ps"], "ps", impl="gpi").start()
    Clock(dut.sdram_clk, p["sdram_period_ps"], "ps", impl="gpi").start()
    for _ in range(20):
        await RisingEdge(dut.clk)
    dut.rst.value = dut.sdram_rst.value = 0
    stop = Path(p["stop"])
    while not stop.exists():
        await Timer(100, "us")
    assert dut.ready.value == 1
