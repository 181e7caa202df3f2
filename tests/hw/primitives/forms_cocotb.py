"""Drives the two forms of a block with the same random inputs; started by forms.py."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from terntable.sim.harness import params


@cocotb.test()
async def check_outputs_are_equal(dut):
    p = params()
    rng = random.Random(p["seed"])
    inputs = [(getattr(dut, name), width) for name, width in p["inputs"] if name not in p["held"]]
    outputs = [
        (name, getattr(dut, f"twin_{name}"), getattr(dut, f"device_{name}"))
        for name in p["outputs"]
    ]
    dut.rst.value = 0
    for name in p["held"]:
        getattr(dut, name).value = 0
    Clock(dut.clk, 4, "ns", impl="gpi").start()
    seen = set()
    for cycle in range(p["cycles"]):
        for signal, width in inputs:
            signal.value = rng.getrandbits(width)
        await ReadOnly()
        for name, twin, device in outputs:
            if cycle >= p["warm_up"]:
                values = int(twin.value), int(device.value)
                assert values[0] == values[1], (cycle, name, *map(hex, values))
                seen.add(values)
        await RisingEdge(dut.clk)
    assert len(seen) > p["cycles"] // 2, "the outputs hardly move"
