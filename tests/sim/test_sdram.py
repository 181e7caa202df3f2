"""The SDRAM model refuses what the part's data sheet forbids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sdram_cases import OPEN, REFUSED, REFUSED_AT_START, START, C

from terntable.hw.soc.sdram_part import ULX3S_SDRAM, SdramCycles
from terntable.sim import soc
from terntable.sim.harness import run_block
from terntable.sim.sdram import SdramError, SdramModel

PART = replace(ULX3S_SDRAM, t_power_up=50)


class Driver:
    """Commands with cycles between them: (command, bank, address, cycles after it)."""

    def __init__(self, burst: int = 2) -> None:
        self.model = SdramModel(PART, 10, burst)
        self.out: list[int | None] = []

    def play(self, *steps, dq: int | None = None, dqm: int = 0) -> None:
        for command, ba, a, after in steps:
            self.out.append(self.model.edge(command, ba, a, dqm, dq))
            for _ in range(after - 1):
                self.out.append(self.model.edge(C.NOP, 0, 0, dqm, dq))

    def start(self) -> None:
        self.play(*START)


@pytest.fixture
def driver() -> Driver:
    made = Driver()
    made.start()
    return made


def test_a_word_comes_back(driver: Driver) -> None:
    driver.play(OPEN)
    driver.play((C.WRITE, 1, 8, 2), dq=0xABCD)
    driver.play((C.WRITE, 1, 8, 2), dq=0x1234, dqm=0b10)
    driver.out.clear()
    driver.play((C.READ, 1, 8, 10))
    assert driver.out == [None, None, 0xAB34, 0xAB34, *[None] * 6]


@pytest.mark.parametrize(("steps", "said"), [case[:2] for case in REFUSED])
def test_what_is_refused(driver: Driver, steps, said: str) -> None:
    with pytest.raises(SdramError, match=said):
        driver.play(*steps)


def test_a_write_too_near_to_a_precharge(driver: Driver) -> None:
    driver.play((C.ACTIVATE, 1, 5, 5))
    driver.play((C.WRITE, 1, 0, 2), dq=0)
    with pytest.raises(SdramError, match=r"10\.0 ns after the last word, 15"):
        driver.play((C.PRECHARGE, 1, 0, 1))


@pytest.mark.parametrize("gap", [2, 3, 4, 5, 6])
def test_both_drive_the_data_pins(driver: Driver, gap: int) -> None:
    """Six cycles after a read (CAS latency 3, two words, one to turn) a write is right."""
    driver.play(OPEN, (C.READ, 1, 0, gap))
    if gap < 6:
        with pytest.raises(SdramError, match=r"both sides drive DQ|cut short"):
            driver.play((C.WRITE, 1, 0, 2), dq=1)
    else:
        driver.play((C.WRITE, 1, 0, 2), dq=1)


def test_a_masked_read(driver: Driver) -> None:
    driver.play(OPEN, (C.READ, 1, 0, 1))
    with pytest.raises(SdramError, match="DQM masks a word that is read"):
        driver.play((C.NOP, 0, 0, 4), dqm=1)


@pytest.mark.parametrize(("steps", "said"), [case[:2] for case in REFUSED_AT_START])
def test_start_up(steps, said: str) -> None:
    with pytest.raises(SdramError, match=said):
        Driver().play(*steps)


def in_verilog(steps, written: bool = False) -> None:
    """Play steps on the model for long simulations, from its start on."""
    parameters = soc.model_parameters(PART, SdramCycles.of(PART, 100_000_000, 3), 2)
    given = ", ".join(f".{name}({value})" for name, value in parameters.items())
    bench = f"""module bench(
      input clk, input [2:0] command, input [1:0] ba, input [12:0] a, input [1:0] dqm,
      input [15:0] dq_o, input dq_oe, output [15:0] dq_i);
      {soc.SDRAM_MODEL} #({given}) model(.cke(1'b1), .*);
    endmodule
    """
    run_block(
        bench + soc.sdram_text(),
        top="bench",
        module=Path(__file__).parent / "sdram_cocotb.py",
        params={"steps": [(c.value, *rest) for c, *rest in steps], "written": written},
    )


def test_a_word_comes_back_in_verilog() -> None:
    in_verilog([*START, OPEN], written=True)


@pytest.mark.parametrize(
    ("steps", "said"),
    [([*START, *steps], said) for steps, _, said in REFUSED]
    + [(steps, said) for steps, _, said in REFUSED_AT_START],
)
def test_what_is_refused_in_verilog(steps, said: str) -> None:
    with pytest.raises(AssertionError, match=f"SDRAM: .*{said}"):
        in_verilog(steps)
