"""The stream monitors: planted breaches are found, in Amaranth's simulator and in Verilator."""

from __future__ import annotations

import cocotb
import pytest
from amaranth import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.sim import Simulator
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from terntable.hw.axi.width import WidthConverter
from terntable.sim.contract import watched
from terntable.sim.harness import params, run_block


class Counter(Component):
    """Offers 0, 1, 2 and so on; `bug` is how it breaks the contract, `clear` starts it anew."""

    __module__ = "terntable.hw.planted"

    def __init__(self, bug: str = "") -> None:
        self.bug = bug
        super().__init__({"o": Out(stream.Signature(8)), "clear": In(1)})

    def elaborate(self, platform):
        m = Module()
        time = Signal(8)
        m.d.sync += time.eq(time + 1)
        m.d.comb += self.o.valid.eq(~time[2] if self.bug == "falls" else 1)
        with m.If(self.o.valid & (self.o.ready | (self.bug == "changes"))):
            m.d.sync += self.o.payload.eq(self.o.payload + 1)
        with m.If(self.clear):
            m.d.sync += self.o.payload.eq(0)
        return m


class Pair(Component):
    """A counter deep inside, behind a converter."""

    __module__ = "terntable.hw.planted"

    def __init__(self, bug: str) -> None:
        self.bug = bug
        super().__init__({"o": Out(stream.Signature(32)), "clear": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.counter = counter = Counter(self.bug)
        m.submodules.width = width = WidthConverter(8, 32)
        connect(m, counter.o, width.i)
        connect(m, width.o, flipped(self.o))
        m.d.comb += [counter.clear.eq(self.clear), width.clear.eq(self.clear)]
        return m


BREACHES = {"falls": "valid fell", "changes": "the payload changed"}


def play(bug: str, watch: bool = True) -> None:
    """Take a word now and then, with a clear in between."""
    dut = Pair(bug)

    async def bench(ctx):
        for cycle in range(200):
            ctx.set(dut.o.ready, cycle % 11 == 0)
            ctx.set(dut.clear, cycle in (60, 61, 93))
            await ctx.tick()

    def simulate() -> None:
        sim = Simulator(dut)
        sim.add_clock(1e-8)
        sim.add_testbench(bench)
        sim.run()

    if watch:
        with watched():
            simulate()
    else:
        simulate()


def test_a_good_stream_passes() -> None:
    play("")


@pytest.mark.parametrize("bug", BREACHES)
def test_breaches_in_amaranth(bug: str) -> None:
    with pytest.raises(AssertionError, match=rf"Counter\.o: {BREACHES[bug]} before ready"):
        play(bug)
    play(bug, watch=False)  # nobody looks any more


@cocotb.test()
async def take_words(dut):
    Clock(dut.clk, 4, "ns", impl="gpi").start()
    dut.rst.value = 1
    dut.clear.value = 0
    dut.o__ready.value = 0
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    for cycle in range(100):
        dut.o__ready.value = int(cycle % 11 == 0)
        await RisingEdge(dut.clk)
    # A word that nobody takes goes with a reset.
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    for _ in range(20):
        await RisingEdge(dut.clk)
    assert params()["bug"] != "unseen"


@pytest.mark.parametrize("bug", ["", *BREACHES])
def test_breaches_in_verilator(bug: str) -> None:
    with watched():
        given = {"top": "pair", "module": __file__, "params": {"bug": bug}}
        if not bug:
            run_block(Pair(bug), **given)
            return
        with pytest.raises(AssertionError, match=rf"Counter\.o: {BREACHES[bug]} before ready"):
            run_block(Pair(bug), **given)
