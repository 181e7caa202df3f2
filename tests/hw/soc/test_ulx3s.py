"""The ULX3S' top: clocks, pins, and configurations that it can't take."""

from __future__ import annotations

import re

import pytest

from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.errors import UserError
from terntable.hw.soc.ecp5_pll import VCO_HZ, settings
from terntable.hw.soc.ulx3s import CRYSTAL_HZ, prepare, sdram_hz

CONFIG = load_config("ulx3s")
BAUD = 3_000_000
SDRAM_PINS = 2 + 4 + 2 + 13 + 2 + 16
"""clk, cke; cs, ras, cas, we; ba; a; dqm; dq."""


def config(**values: object) -> AcceleratorConfig:
    return AcceleratorConfig.model_validate(CONFIG.model_dump() | values)


@pytest.mark.parametrize(
    ("first", "second"),
    [(100_000_000, 50_000_000), (80_000_000, 40_000_000), (125_000_000, 62_500_000),
     (100_000_000, 100_000_000)],
)  # fmt: skip
def test_pll_makes_the_clocks(first: int, second: int) -> None:
    s = settings(CRYSTAL_HZ, first, second)
    vco = CRYSTAL_HZ * s.feedback_div * s.first_div // s.input_div
    assert CRYSTAL_HZ * s.feedback_div == first * s.input_div
    assert (vco // s.first_div, vco // s.second_div) == (first, second)
    assert VCO_HZ[0] <= vco <= VCO_HZ[1]


def test_the_memory_keeps_up_with_the_bus_where_it_can() -> None:
    assert sdram_hz(CONFIG) == 2 * CONFIG.clock_hz
    assert sdram_hz(config(bus_bits=64)) == 2 * CONFIG.clock_hz  # four times is too fast
    assert sdram_hz(config(clock_hz=100_000_000)) == 100_000_000


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"clock_hz": 49_999_999}, "the PLL can't make 99,999,998 and 49,999,999 Hz of 25,000,000"),
        ({"bus_bits": 256, "burst_beats": 64}, "bus_bits is 256: the SDRAM of the ULX3S takes 16"),
        ({"clock_hz": 20_000_000}, "ulx3s: 3000000 baud at 20000000 Hz"),
    ],
)
def test_configurations_that_the_board_can_not_take(values: dict, said: str) -> None:
    pytest.importorskip("amaranth_boards")
    with pytest.raises(UserError, match=said) as caught:
        prepare(config(**values), BAUD)
    assert "\n" not in str(caught.value)


def test_every_pin_has_its_place_and_a_register() -> None:
    pytest.importorskip("amaranth_boards")
    files = prepare(CONFIG, BAUD)
    constraints, design = files["top.lpf"], files["top.il"]
    places = re.findall(r'LOCATE COMP "(\w+?)__io(?:\[\d+\])?" SITE "(\w+)";', constraints)
    assert len(set(site for _, site in places)) == len(places)
    assert sum(name.startswith("sdram") for name, _ in places) == SDRAM_PINS
    assert 'FREQUENCY PORT "clk25_0__io" 25000000' in constraints
    # Commands and data leave in registers of the pins; data come back in them.
    assert design.count("cell \\OFS1P3DX") >= SDRAM_PINS - 1
    assert design.count("cell \\IFS1P3DX") == 16
    assert design.count("cell \\ODDRX1F") == 1
    assert design.count("cell \\terntable ") == 1


def test_the_same_design_every_time() -> None:
    pytest.importorskip("amaranth_boards")
    first = prepare(CONFIG, BAUD)
    assert prepare(CONFIG, BAUD) == first
    assert "attribute \\src" not in first["top.il"]
