"""Commands for the SDRAM's model in Verilog; started by test_sdram.py."""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from terntable.hw.soc.sdram_bus import Command
from terntable.sim.harness import params


@cocotb.test()
async def play(dut):
    p = params()
    for name in ("ba", "a", "dqm", "dq_o", "dq_oe"):
        getattr(dut, name).value = 0
    dut.command.value = Command.NOP.value
    Clock(dut.clk, 10, "ns", impl="gpi").start()
    await RisingEdge(dut.clk)
    seen = []

    async def step(command, ba, a, cycles, **data):
        dut.command.value, dut.ba.value, dut.a.value = command, ba, a
        for name in ("dqm", "dq_o", "dq_oe"):
            getattr(dut, name).value = data.get(name, 0)
        for _ in range(cycles):
            await ReadOnly()
            seen.append(int(dut.dq_i.value))
            await RisingEdge(dut.clk)
            dut.command.value = Command.NOP.value

    for command in p["steps"]:
        await step(*command)
    if not p["written"]:
        # A rule was to be broken; its fault ends the simulation at a falling edge.
        await RisingEdge(dut.clk)
        return
    write, read = Command.WRITE.value, Command.READ.value
    await step(write, 1, 8, 2, dq_o=0xABCD, dq_oe=1)
    await step(write, 1, 8, 2, dq_o=0x1234, dq_oe=1, dqm=0b10)
    seen.clear()
    await step(read, 1, 8, 8)
    # Sampled in the middle of its cycle, CAS latency 3: there for the edges 4 and 5 after it.
    assert seen[3:5] == [0xAB34, 0xAB34]
