"""Verilog whose registers and memories begin with unknown contents.

FPGAs load registers with the initial values of the Verilog, and two-state simulators start all
else at zero: either hides a register that the gateware reads before it is reset or written. Without
the initial values a four-state simulator starts with x, and Verilator with random bits
(`VERILATOR_OPTIONS` at compile time, `model_options` at run time).
"""

from __future__ import annotations

import re

VERILATOR_OPTIONS = ("--x-initial", "unique", "--x-assign", "unique")
"""A model that asks for the value of everything that has none."""

_INITIAL = re.compile(
    r"^(?P<register> *reg (?:\[\d+:\d+\] )?(?P<name>\S+) ?) *= *\d+'[hdb][0-9a-f_]+;$", re.M
)
_ANY = re.compile(r"^ *reg [^;=]*=[^;]*;$", re.M)
_HELPER = r"\$auto$verilog_backend."
"""Yosys's own registers, which make an `always @*` without inputs run once."""


def without_initial_values(verilog: str) -> str:
    """Generated Verilog without the initial values of its registers; constant tables stay.

    Raises ValueError for an initial value of a form that isn't known.
    """

    def strip(match: re.Match[str]) -> str:
        return match["register"].rstrip() + " ;"

    text = _INITIAL.sub(strip, verilog)
    left = [line for line in _ANY.findall(text) if _HELPER not in line]
    if left:
        raise ValueError(f"initial value not understood: {left[0].strip()}")
    return text


def model_options(seed: int) -> list[str]:
    """Command line of a model with `VERILATOR_OPTIONS`: random contents of this seed, from 1."""
    if not 1 <= seed < 1 << 31:
        raise ValueError(f"seed is {seed}: 1 to 2**31 - 1 are possible")
    return ["+verilator+rand+reset+2", f"+verilator+seed+{seed}"]
