"""Registers and memories with unknown contents at power-up."""

from __future__ import annotations

import re

import pytest
import standin

from terntable.host.devices.sim import SimDevice
from terntable.hw import regs
from terntable.hw.config import load_config
from terntable.sim.accelerator import design_of
from terntable.sim.power_up import model_options, without_initial_values


def test_registers_lose_their_values_and_tables_keep_theirs() -> None:
    before = design_of(load_config("test")).verilog
    after = without_initial_values(before)
    values = re.compile(r"^ *reg .*=.*;$", re.M)
    assert len(values.findall(before)) > 1000
    assert all("$auto$" in line for line in values.findall(after))
    for kept in (r"^ *reg ", r"^ *rom\[\d+\] = "):
        count = len(re.findall(kept, before, re.M))
        assert count > 1000 and len(re.findall(kept, after, re.M)) == count


def test_unknown_forms_of_a_value_are_refused() -> None:
    assert without_initial_values("  reg [3:0] a = 4'd9;\n") == "  reg [3:0] a ;\n"
    with pytest.raises(ValueError, match="reg a = b"):
        without_initial_values("  reg a = b;\n")


@pytest.mark.parametrize("seed", [0, -1, 1 << 31])
def test_seeds_that_verilator_takes_for_another(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed is {seed}"):
        model_options(seed)


def test_each_seed_has_its_own_contents() -> None:
    config = standin.config()

    def cycles_before_a_call(seed: int | None) -> int:
        """A register of the stand-in that no reset reaches."""
        with SimDevice(config, verilog=standin.verilog(config), power_up=seed) as device:
            device.load(standin.image(config, 1 << 20))
            return device._simulation.read_registers([regs.ADDRESS["CYCLES"]])[0]

    values = [cycles_before_a_call(seed) for seed in (1, 2, 3)]
    assert len(set(values)) == 3 and all(values)
    assert cycles_before_a_call(2) == values[1]
    assert cycles_before_a_call(None) == 0
