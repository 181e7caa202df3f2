"""FPGA parts: their resources, and the family that synthesis maps for.

Sources: AMD DS987 (Kria K26 SOM: XCK26, the fabric of an XCZU5EV).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """What a device has. `family` is Yosys' name for the architecture."""

    name: str
    family: str
    lut: int
    """6-input lookup tables."""
    lutram: int
    """Those of them that can be memories."""
    ff: int
    bram36: int
    uram: int
    dsp: int


PARTS = {
    part.name: part
    for part in (
        Part("xck26", "xcup", 117_120, 57_600, 234_240, 144, 64, 1_248),
    )
}  # fmt: skip
