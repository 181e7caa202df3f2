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
class SlowPath:
    """A path from register to register: its ends, and nanoseconds in wires and altogether."""

    start: str
    end: str
    routing_ns: float
    total_ns: float

    def __str__(self) -> str:
        return (
            f"{self.total_ns:.1f} ns from {self.start} to {self.end}, {self.routing_ns:.1f} of them"
            " in wires"
        )


@dataclass(frozen=True)
class Placed:
    """utilisation: used, available and percent by resource. fmax_mhz: what each clock reaches, by
    its constraint in MHz. slowest: the path that bounds it."""

    utilisation: dict[str, dict[str, float]]
    fmax_mhz: dict[float, float]
    slowest: dict[float, SlowPath]

    def check(self, name: str) -> None:
        """Raise UserError for a clock that is not reached."""
        for clock, reached in self.fmax_mhz.items():
            if reached < clock:
                path = f" ({self.slowest[clock]})" if clock in self.slowest else ""
                raise UserError(
                    f"{name} reaches {reached:.1f} MHz of {clock:g}{path}: try another --seed, or a"
                    " lower clock_hz"
                )


def read_report(file: Path) -> Placed:
    """nextpnr's report."""
    report: dict[str, Any] = json.loads(file.read_text())
    utilisation = {}
    for resource in LIMITS:
        used, available = (report["utilization"][resource][key] for key in ("used", "available"))
        percent = round(100 * used / available, 1)
        utilisation[resource] = {"used": used, "available": available, "percent": percent}
    paths = {
        path["from"].removeprefix("posedge "): _slow_path(path["path"])
        for path in report["critical_paths"]
        if path["from"] == path["to"]
    }
    reached: dict[float, float] = {}
    slowest: dict[float, SlowPath] = {}
    for name, clock in report["fmax"].items():
        constraint = round(clock["constraint"], 3)
        achieved = round(clock["achieved"], 2)
        if achieved <= reached.get(constraint, achieved):
            reached[constraint] = achieved
            if name in paths:
                slowest[constraint] = paths[name]
    return Placed(utilisation, reached, slowest)


def _slow_path(steps: list[dict[str, Any]]) -> SlowPath:
    routing = sum(step["delay"] for step in steps if step["type"] == "routing")
    total = sum(step["delay"] for step in steps)
    ends = steps[0]["from"]["cell"], steps[-1]["to"]["cell"]
    return SlowPath(*ends, round(routing, 2), round(total, 2))
