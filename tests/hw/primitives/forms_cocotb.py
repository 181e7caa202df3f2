"""Drives the two forms of a block with the same random inputs; started by forms.py."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from terntable.sim.harness import params


def bits_of(rng: random.Random, width: int, each: int, low: int, high: int) -> int:
    """Numbers of `each` bits from low to high, side by side; the extremes often."""
    value = 0
    for _ in range(width // each):
        number = rng.choice((low, high, rng.randint(low, high)))
        value = value << each | number % (1 << each)
    return value


@cocotb.test()
async def check_outputs_are_equal(dut):
    p = params()
    rng = random.Random(p["seed"])
    inputs = [(getattr(dut, name), width, p["fields"].get(name)) for name, width in p["inputs"]]
    outputs = [
        (name, getattr(dut, f"twin_{name}"), getattr(dut, f"device_{name}"))
        for name in p["outputs"]
    ]
    dut.rst.value = 0
    Clock(dut.clk, 4, "ns", impl="gpi").start()
    seen = set()
    for cycle in range(p["cycles"]):
        for signal, width, numbers in inputs:
            signal.value = bits_of(rng, width, *numbers) if numbers else rng.getrandbits(width)
        await ReadOnly()
        for name, twin, device in outputs:
            if cycle >= p["warm_up"]:
                values = int(twin.value), int(device.value)
                assert values[0] == values[1], (cycle, name, *map(hex, values))
                seen.add(values)
        await RisingEdge(dut.clk)
    assert len(seen) > p["cycles"] // 4, "the outputs hardly move"
