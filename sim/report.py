"""What an accelerator costs on its part, by unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from terntable.hw.config import AcceleratorConfig
from terntable.hw.demand import check_fits
from terntable.hw.errors import UserError
from terntable.hw.generate import TOP, generate
from terntable.hw.parts import DEFAULT_FAMILY, Part

from .hierarchy import CORE
from .netlist import RESOURCES, resources
from .synthesis import Mapping, Progress, map_design

LISTED = 3
"""Levels of the hierarchy that are listed: core, its units, their parts."""

NOTES = (
    "counts of cells that Yosys maps, not placed, not timed",
    "units are mapped one by one, their boundaries stay; Vivado flattens and comes out lower",
    "carry chains are CARRY4 where Vivado has CARRY8",
    "two functions of five inputs are two LUTs; Vivado packs such pairs into one (LUT6_2)",
    "registers beside an inferred multiplier stay outside of its DSP48E2; Vivado takes them in",
    "levels: LUTs and reads of LUT memories between registers, block memories and DSPs, over the"
    " boundaries of units; carry cells and MUXF7/8 count zero",
)


@dataclass
class Cost:
    """Resources of a unit with all that is in it, the most levels of a path that ends in it, and
    where that path begins and ends. `instances` equal ones were merged, each of this cost."""

    counts: dict[str, float]
    levels: int
    path: tuple[str, str]
    instances: int = 1
    parts: dict[str, Cost] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `from` and `to` are the ends of the deepest path."""
        return {
            **self.counts,
            "logic_levels": self.levels,
            "from": self.path[0],
            "to": self.path[1],
            "instances": self.instances,
            "parts": {name: part.as_dict() for name, part in self.parts.items()},
        }


@dataclass(frozen=True)
class Report:
    """The cost of a configuration, whole and by unit."""

    config: AcceleratorConfig
    total: Cost
    units: dict[str, Cost]

    @property
    def part(self) -> Part | None:
        return self.config.device

    @property
    def limits(self) -> dict[str, int] | None:
        """The part's resources; None without a part."""
        return None if self.part is None else {r: getattr(self.part, r) for r in RESOURCES}

    @property
    def notes(self) -> tuple[str, ...]:
        if self.part is not None:
            return NOTES
        return (f"the configuration has no part: mapped for {self.config.family}", *NOTES)

    def as_dict(self) -> dict[str, Any]:
        """What `report --json` prints."""
        return {
            "config": self.config.name,
            "part": None if self.part is None else self.part.name,
            "family": self.config.family,
            "hierarchical": True,
            "limits": self.limits,
            **self.total.counts,
            "logic_levels": self.total.levels,
            "from": self.total.path[0],
            "to": self.total.path[1],
            "units": {name: unit.as_dict() for name, unit in self.units.items()},
            "notes": list(self.notes),
        }


def report(config: AcceleratorConfig, progress: Progress | None = None) -> Report:
    """Map a configuration. Raises UserError when it can't fit its part, before Yosys runs, and
    for a family whose cells are not known here."""
    part = config.device
    if part is not None:
        check_fits(config, part)
        if config.family != DEFAULT_FAMILY:
            raise UserError(
                f"{config.name} is for {part.name}: the report knows no family {config.family!r},"
                " terntable build says what it takes there"
            )
    mapping = map_design(generate(config).verilog, TOP, config.family, progress=progress)
    total = _cost(mapping, TOP, "", 0)
    inside = total.parts[CORE].parts
    rest = _less(total.counts, [unit.counts for unit in inside.values()])
    glue = Cost(rest, *_deepest(mapping, {"", CORE}))
    units = {name: inside[name] for name in sorted(inside, key=lambda n: -inside[n].counts["lut"])}
    return Report(config, total, units | {"between units": glue})


def _cost(mapping: Mapping, unit: str, path: str, depth: int) -> Cost:
    """An instance; what is deeper than the parts of a unit is counted, not listed."""
    alike: dict[str, list[str]] = {}
    for name, kind, _ in mapping.netlists[unit].children if depth < LISTED else []:
        alike.setdefault(kind, []).append(name)
    parts = {}
    for kind, names in alike.items():
        each = [
            _cost(mapping, kind, f"{path}.{name}" if path else name, depth + 1) for name in names
        ]
        worst = max(each, key=lambda cost: cost.levels)
        worst.instances = len(each)
        short = names[0].split("$")[0]  # the writer numbers names that come twice
        parts[names[0] if short in parts else short] = worst
    inside = {place for place in mapping.levels.levels if not path or _within(place, path)}
    counts = resources(mapping.cells(unit))
    return Cost(counts, *_deepest(mapping, inside), parts=parts)


def _within(place: str, path: str) -> bool:
    return place == path or place.startswith(f"{path}.")


def _deepest(mapping: Mapping, places: set[str]) -> tuple[int, tuple[str, str]]:
    levels = mapping.levels.levels
    here = [place for place in places if place in levels]
    if not here:
        return 0, ("", "")
    worst = max(sorted(here), key=levels.__getitem__)
    return levels[worst], mapping.levels.paths[worst]


def _less(total: dict[str, float], parts: list[dict[str, float]]) -> dict[str, float]:
    return {key: value - sum(part[key] for part in parts) for key, value in total.items()}
