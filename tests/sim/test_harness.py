"""The block harness itself, on a counter."""

import shutil

import cocotb
import cocotb_tools.config
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from terntable.sim.build import BuildError
from terntable.sim.harness import params, run_block


class Counter(wiring.Component):
    """Counts to `limit`, then from zero again."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__({"en": In(1), "count": Out(range(limit + 1))})

    def elaborate(self, platform):
        m = Module()
        with m.If(self.en):
            m.d.sync += self.count.eq(self.count + 1)
            with m.If(self.count == self.limit):
                m.d.sync += self.count.eq(0)
        return m


@cocotb.test()
async def check_counts(dut):
    limit = params()["limit"]
    Clock(dut.clk, 4, "ns", impl="gpi").start()
    dut.rst.value = 1
    dut.en.value = 0
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    dut.en.value = 1
    for expected in range(3 * limit):
        await RisingEdge(dut.clk)
        assert int(dut.count.value) == expected % (limit + 1)


@cocotb.test()
async def check_params(dut):
    assert params()["limit"] == 5


def test_passes():
    run_block(Counter(5), top="counter", module=__file__, params={"limit": 5})


def test_a_model_outlives_the_environment_that_compiled_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TERNTABLE_CACHE", str(tmp_path / "cache"))
    libraries = tmp_path / "libraries"
    shutil.copytree(cocotb_tools.config.libs_dir, libraries)
    with monkeypatch.context() as other:
        other.setattr(cocotb_tools.config, "libs_dir", libraries)
        run_block(Counter(7), top="counter", module=__file__, test="check_params",
                  params={"limit": 5})  # fmt: skip
    shutil.rmtree(libraries)
    run_block(Counter(7), top="counter", module=__file__, test="check_params", params={"limit": 5})


def test_failure_shows_the_log():
    with pytest.raises(AssertionError, match=r"failed: .*check_counts[\s\S]*assert"):
        run_block(Counter(5), top="counter", module=__file__, params={"limit": 4})


def test_one_test_by_name():
    given = {"top": "counter", "module": __file__, "params": {"limit": 4}}
    run_block(Counter(4), test="check_counts", **given)
    with pytest.raises(AssertionError, match="ran"):
        run_block(Counter(4), test="nothing", **given)


def test_verilog_text_that_does_not_parse():
    with pytest.raises(BuildError, match="syntax error"):
        run_block("module broken(", top="broken", module=__file__)
