"""FPGA parts: their resources, and the family that synthesis maps for.

Sources: AMD DS987 (Kria K26 SOM: XCK26, the fabric of an XCZU5EV); Lattice FPGA-DS-02012 (ECP5).
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_FAMILY = "xcup"
"""What a configuration without a part is mapped for."""


@dataclass(frozen=True)
class Part:
    """What a device has. `family` is Yosys' name for the architecture."""

    name: str
    family: str
    lut: int
    """Lookup tables, of 6 inputs (xcup) or 4 (ecp5)."""
    lutram: int
    """Those of them that can be memories."""
    ff: int
    dsp: int
    """DSP48E2 (xcup), multipliers of 18 by 18 bits (ecp5)."""
    bram36: int = 0
    """Block RAMs of 36 kbit."""
    uram: int = 0
    ebr: int = 0
    """Block RAMs of 18 kbit."""


PARTS = {
    part.name: part
    for part in (
        Part("xck26", "xcup", 117_120, 57_600, 234_240, 1_248, bram36=144, uram=64),
        Part("lfe5u-85f", "ecp5", 83_640, 41_820, 83_640, 156, ebr=208),
    )
}  # fmt: skip
