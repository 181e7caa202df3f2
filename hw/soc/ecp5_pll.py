"""ECP5's phase-locked loop: settings for two clocks, and the primitive."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from amaranth import Instance, Signal, Value

from ..errors import UserError

VCO_HZ = (400_000_000, 800_000_000)
"""Of the oscillator; FPGA-DS-02012, as the limits below."""
DETECTOR_HZ = (3_125_000, 400_000_000)
_MOST_DIVIDED = 128


@dataclass(frozen=True)
class PllSettings:
    """Dividers of the input, the feedback (from the first output), and both outputs."""

    input_div: int
    feedback_div: int
    first_div: int
    second_div: int


def settings(input_hz: int, first_hz: int, second_hz: int) -> PllSettings:
    """Exactly these clocks, with the fastest phase detector and an oscillator that is as far from
    its limits as can be.

    Raises UserError where there are none.
    """
    middle = sum(VCO_HZ) // 2
    for input_div, feedback_div in product(range(1, 9), range(1, _MOST_DIVIDED + 1)):
        detector = input_hz / input_div
        if input_hz * feedback_div != first_hz * input_div:
            continue
        if not DETECTOR_HZ[0] <= detector <= DETECTOR_HZ[1]:
            continue
        found = [
            PllSettings(input_div, feedback_div, first_div, first_hz * first_div // second_hz)
            for first_div in range(1, _MOST_DIVIDED + 1)
            if VCO_HZ[0] <= first_hz * first_div <= VCO_HZ[1]
            and first_hz * first_div % second_hz == 0
            and first_hz * first_div // second_hz <= _MOST_DIVIDED
        ]
        if found:
            return min(found, key=lambda s: abs(first_hz * s.first_div - middle))
    raise UserError(
        f"the PLL can't make {first_hz:,} and {second_hz:,} Hz of {input_hz:,}: choose a clock_hz"
        " of 50000000, 40000000 or 62500000"
    )


def pll(s: PllSettings, clock: Value, first: Signal, second: Signal, locked: Signal) -> Instance:
    """The primitive. Both outputs rise together, at the most a cycle of the oscillator apart."""
    return Instance(
        "EHXPLLL",
        a_ICP_CURRENT="12",
        a_LPF_RESISTOR="8",
        p_PLLRST_ENA="DISABLED",
        p_INTFB_WAKE="DISABLED",
        p_STDBY_ENABLE="DISABLED",
        p_DPHASE_SOURCE="DISABLED",
        p_OUTDIVIDER_MUXA="DIVA",
        p_OUTDIVIDER_MUXB="DIVB",
        p_FEEDBK_PATH="CLKOP",
        p_CLKI_DIV=s.input_div,
        p_CLKFB_DIV=s.feedback_div,
        p_CLKOP_ENABLE="ENABLED",
        p_CLKOP_DIV=s.first_div,
        p_CLKOP_CPHASE=s.first_div - 1,
        p_CLKOP_FPHASE=0,
        p_CLKOS_ENABLE="ENABLED",
        p_CLKOS_DIV=s.second_div,
        p_CLKOS_CPHASE=s.second_div - 1,
        p_CLKOS_FPHASE=0,
        i_RST=0,
        i_STDBY=0,
        i_PHASESEL0=0,
        i_PHASESEL1=0,
        i_PHASEDIR=0,
        i_PHASESTEP=0,
        i_PHASELOADREG=0,
        i_PLLWAKESYNC=0,
        i_ENCLKOP=0,
        i_ENCLKOS=0,
        i_CLKI=clock,
        i_CLKFB=first,
        o_CLKOP=first,
        o_CLKOS=second,
        o_LOCK=locked,
    )
