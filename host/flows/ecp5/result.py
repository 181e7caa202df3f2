"""What the tools report: resources against the part, clocks against what they reach."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terntable.hw.errors import UserError
from terntable.hw.parts import Part

LIMITS = {"TRELLIS_COMB": "lut", "TRELLIS_FF": "ff", "DP16KD": "ebr", "MULT18X18D": "dsp"}
"""nextpnr's names of what is counted, and the part's."""

_COMB = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}
"""Lookup tables of Yosys' cells; nextpnr finds more when it packs them."""
_BLOCKS = ("DP16KD", "PDPW16KD")

REMEDIES = {
    "TRELLIS_COMB": "lower tables, rows or tokens",
    "TRELLIS_FF": "lower tables, rows or tokens",
    "DP16KD": "lower chunk, weight_depth or max_row",
    "MULT18X18D": "lower lanes or attention_dims",
}


def mapped_resources(statistics: Path) -> dict[str, int]:
    """Resources of a design as Yosys' `stat -json` counts its cells."""
    cells = json.loads(statistics.read_text())["design"]["num_cells_by_type"]
    return {
        "TRELLIS_COMB": sum(cells.get(cell, 0) * count for cell, count in _COMB.items()),
        "TRELLIS_FF": cells.get("TRELLIS_FF", 0),
        "DP16KD": sum(cells.get(cell, 0) for cell in _BLOCKS),
        "MULT18X18D": cells.get("MULT18X18D", 0),
    }


def check_resources(name: str, found: Mapping[str, int], part: Part) -> None:
    """Raise UserError that names the resource a mapped design has too much of, and by how much."""
    for resource, count in found.items():
        limit = getattr(part, LIMITS[resource])
        if count > limit:
            raise UserError(
                f"{name} can't fit {part.name}: {count:,} {resource}, {count - limit:,} over the"
                f" part's {limit:,}: {REMEDIES[resource]}"
            )


@dataclass(frozen=True)
class Placed:
    """utilisation: used, available and percent by resource. fmax_mhz: what each clock reaches, by
    its constraint in MHz."""

    utilisation: dict[str, dict[str, float]]
    fmax_mhz: dict[float, float]

    def check(self, name: str) -> None:
        """Raise UserError for a clock that is not reached."""
        for clock, reached in self.fmax_mhz.items():
            if reached < clock:
                raise UserError(
                    f"{name} reaches {reached:.1f} MHz of {clock:g}: try another --seed, or a lower"
                    " clock_hz"
                )


def read_report(file: Path) -> Placed:
    """nextpnr's report."""
    report: dict[str, Any] = json.loads(file.read_text())
    utilisation = {}
    for resource in LIMITS:
        used, available = (report["utilization"][resource][key] for key in ("used", "available"))
        percent = round(100 * used / available, 1)
        utilisation[resource] = {"used": used, "available": available, "percent": percent}
    reached: dict[float, float] = {}
    for clock in report["fmax"].values():
        constraint = round(clock["constraint"], 3)
        achieved = round(clock["achieved"], 2)
        reached[constraint] = min(achieved, reached.get(constraint, achieved))
    return Placed(utilisation, reached)
