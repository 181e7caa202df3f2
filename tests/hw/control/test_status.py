"""Start, status, errors, resets and counters of a call."""

from __future__ import annotations

import pytest
from amaranth.sim import Simulator

from terntable.hw import isa
from terntable.hw.control.status import COUNTED, RESET_CYCLES, CallStatus
from terntable.hw.regs import COMMAND_UNIT, ERROR_UNITS, SEQUENCER_UNIT, Error, Status

START, CLEAR, RESET = 1, 2, 4


def run(bench) -> None:
    dut = CallStatus()

    async def process(ctx):
        ctx.set(dut.dma_idle, 1)
        await bench(ctx, dut)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(process)
    sim.run()


async def write(ctx, dut, value: int) -> None:
    ctx.set(dut.control, value)
    await ctx.tick()
    ctx.set(dut.control, 0)


async def strobe(ctx, signal) -> None:
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


def test_a_call_from_start_to_done() -> None:
    async def bench(ctx, dut):
        ctx.set(dut.irq_enable, 1)
        await write(ctx, dut, START)
        assert ctx.get(dut.status) == Status.BUSY
        await ctx.tick()
        assert ctx.get(dut.start)
        ctx.set(dut.active, 0b101001)
        ctx.set(dut.read_beats, 2)
        await ctx.tick()
        assert not ctx.get(dut.start)
        for _ in range(9):
            await ctx.tick()
        assert not ctx.get(dut.irq)
        await strobe(ctx, dut.sequencer_done)
        assert ctx.get(dut.status) == Status.DONE
        assert ctx.get(dut.irq)
        cycles = ctx.get(dut.cycles)
        assert cycles == 10
        for i, name in enumerate(COUNTED):
            assert ctx.get(getattr(dut, f"cycles_{name}")) == (cycles if 0b101001 >> i & 1 else 0)
        await ctx.tick().repeat(5)
        assert ctx.get(dut.cycles) == cycles  # counting ends with the call
        await write(ctx, dut, CLEAR)
        assert ctx.get(dut.status) == 0
        assert not ctx.get(dut.irq)

    run(bench)


def test_a_start_while_busy_is_told_and_refused() -> None:
    async def bench(ctx, dut):
        ctx.set(dut.program, 0x1000)
        ctx.set(dut.index, 5)
        await write(ctx, dut, START)
        await ctx.tick().repeat(4)
        await write(ctx, dut, START)
        assert ctx.get(dut.error_code) == Error.START_WHILE_BUSY
        assert ctx.get(dut.error_unit) == SEQUENCER_UNIT
        assert ctx.get(dut.error_address) == 0x1000 + 5 * 64
        assert ctx.get(dut.error_command) == 5
        assert ctx.get(dut.status) == Status.BUSY
        await ctx.tick()
        assert not ctx.get(dut.start)

    run(bench)


def test_the_first_error_stays_until_a_reset() -> None:
    async def bench(ctx, dut):
        await write(ctx, dut, START)
        await ctx.tick().repeat(4)
        for report, code in ((dut.dma_error, Error.READ_FENCE), (dut.sequencer_error, 1)):
            ctx.set(report.valid, 1)
            ctx.set(report.code, int(code))
            ctx.set(report.unit, 3)
            ctx.set(report.address, 0x1234)
            await ctx.tick().repeat(3)
            ctx.set(report.valid, 0)
        assert ctx.get(dut.status) == Status.ERROR
        assert ctx.get(dut.halt)
        assert ctx.get(dut.error_code) == Error.READ_FENCE
        assert ctx.get(dut.error_address) == 0x1234
        await write(ctx, dut, CLEAR)
        await write(ctx, dut, START)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.status) == Status.ERROR
        await write(ctx, dut, RESET)
        assert ctx.get(dut.status) == 0
        assert ctx.get(dut.reset_units)

    run(bench)


@pytest.mark.parametrize("number", ERROR_UNITS)
@pytest.mark.parametrize("source", ["sequencer", "dma", "watchdog"])
def test_an_error_names_the_command_at_fault(source: str, number: int) -> None:
    """The bus's requesters and the units: the command that the unit took last. The sequencer: the
    one in turn."""
    program, turn, address = 0x8000, 40, 0x8000 + 64 * 23
    executing = {
        "weights": isa.Unit.FETCH,
        "KV": isa.Unit.ATTENTION,
        "load": isa.Unit.LOAD,
        "KV write": isa.Unit.VECTOR,
        "logits write": isa.Unit.LINEAR,
        **{unit.name: unit for unit in isa.Unit},
    }

    async def bench(ctx, dut):
        ctx.set(dut.program, program)
        ctx.set(dut.index, turn)
        for unit in isa.Unit:
            ctx.set(dut.unit_index[unit], 10 + unit)
        await write(ctx, dut, START)
        await ctx.tick().repeat(4)
        assert ctx.get(dut.error_command) == turn
        report = getattr(dut, f"{source}_error")
        ctx.set(report, {"valid": 1, "code": 9, "unit": number, "address": address})
        await ctx.tick()
        ctx.set(report.valid, 0)
        ctx.set(dut.index, 3)
        if source == "sequencer" or number == SEQUENCER_UNIT:
            command = turn
        elif ERROR_UNITS[number] == "program":
            command = 23
        else:
            command = 10 + executing[ERROR_UNITS[number]]
        of_command = source != "sequencer" and number >= COMMAND_UNIT
        expected = program + 64 * command if of_command else address
        await ctx.tick().repeat(3)
        assert ctx.get(dut.status) == Status.ERROR
        assert ctx.get(dut.error_unit) == number
        assert ctx.get(dut.error_command) == command
        assert ctx.get(dut.error_address) == expected

    run(bench)


def test_a_bus_that_never_answers_ends_the_call_that_waits_for_the_reset() -> None:
    async def bench(ctx, dut):
        ctx.set(dut.dma_idle, 0)
        await write(ctx, dut, RESET)
        await write(ctx, dut, START)
        await ctx.tick().repeat(2 * RESET_CYCLES)
        assert ctx.get(dut.running)
        ctx.set(
            dut.watchdog_error, {"valid": 1, "code": Error.NO_PROGRESS, "unit": 2, "address": 8}
        )
        await ctx.tick()
        ctx.set(dut.watchdog_error.valid, 0)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.status) == Status.ERROR
        assert ctx.get(dut.error_code) == Error.NO_PROGRESS
        ctx.set(dut.dma_idle, 1)
        await ctx.tick().repeat(5)
        for _ in range(5):
            assert not ctx.get(dut.start)  # the refused call doesn't come back
            await ctx.tick()

    run(bench)


def test_a_reset_waits_for_the_bus_and_a_start_for_the_reset() -> None:
    async def bench(ctx, dut):
        ctx.set(dut.dma_idle, 0)
        ctx.set(dut.dma_error.valid, 1)  # the report of before, until the reset reaches the DMA
        await write(ctx, dut, RESET)
        await write(ctx, dut, START)
        ctx.set(dut.dma_error.valid, 0)
        for _ in range(2 * RESET_CYCLES):
            assert ctx.get(dut.reset_units)
            assert not ctx.get(dut.start)
            await ctx.tick()
        ctx.set(dut.dma_idle, 1)
        for _ in range(4):
            await ctx.tick()
            if ctx.get(dut.start):
                break
        else:
            raise AssertionError("no start after the reset")
        assert not ctx.get(dut.reset_units)
        assert ctx.get(dut.status) == Status.BUSY

    run(bench)
