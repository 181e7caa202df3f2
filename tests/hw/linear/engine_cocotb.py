"""Runs LINEAR cases on the Verilog of the engine; started by test_engine.py."""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge
from linear_cases import Case, Problem, beat_of, config_with

from terntable.sim.harness import params


@cocotb.test()
async def check_engine(dut):
    p = params()
    c = config_with(p["config"], **p.get("changes", {}))
    rng = random.Random(p["seed"])
    dut.rst.value = 1
    dut.cmd__valid.value = 0
    dut.weights__valid.value = 0
    dut.o__ready.value = 0
    dut.a8_read__data.value = 0
    Clock(dut.clk, 4, "ns", impl="gpi").start()
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0

    for fields in p["cases"]:
        case = Case(**fields)
        problem = Problem(c, case)
        weights = iter(problem.weights)
        offered = None
        reads = [0, 0]
        beats = []
        command, started, cycles, seen = problem.payload(case), False, 0, False
        while True:
            # Drive for this cycle, look at it, then act on what was transferred.
            dut.cmd__valid.value = int(not started)
            dut.cmd__payload.value = command
            if offered is None and rng.random() >= p["weight_idle"]:
                offered = next(weights, None)
            dut.weights__valid.value = int(offered is not None)
            dut.weights__payload.value = offered or 0
            # With stalls ready comes only after valid.
            ready = rng.random() >= p["stall"] and (seen or not p["stall"])
            dut.o__ready.value = int(ready)
            dut.a8_read__data.value = reads.pop(0)
            await ReadOnly()
            taken = not started and bool(dut.cmd__ready.value)
            if offered is not None and bool(dut.weights__ready.value):
                offered = None
            seen = bool(dut.o__valid.value) and not ready
            if ready and bool(dut.o__valid.value):
                beats.append(beat_of(c, int(dut.o__payload.value)))
            en = bool(dut.a8_read__en.value)
            row, word = int(dut.a8_read__row.value), int(dut.a8_read__word.value)
            reads.append(problem.activations(c, row, word) if en else 0)
            busy = bool(dut.busy.value)
            await RisingEdge(dut.clk)
            cycles += 1
            if started and not busy:
                break
            started |= taken
            assert cycles < 100_000
        assert beats == problem.beats, case
        if not p["weight_idle"] and not p["stall"]:
            assert cycles <= problem.array_cycles + p["overhead"], (cycles, problem.array_cycles)
