"""The tables of docs/array.md: what arrays of equal throughput cost, mapped by Yosys.

python docs/array_comparison.py     prints them; minutes, less when they were mapped before
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from terntable.host.cycles import units
from terntable.hw.config import AcceleratorConfig, load_config
from terntable.hw.linear.engine import make_array
from terntable.hw.modules import ModuleLibrary
from terntable.sim.netlist import resources
from terntable.sim.synthesis import map_design

BASE = "kv260"
INPUTS = 96
"""Activations of a K tile, G * T: equal for all G."""
FAMILY = "xcup"


@dataclass(frozen=True)
class Variant:
    """An array in place of configuration BASE's."""

    name: str
    group: int
    changes: dict[str, Any]

    @property
    def config(self) -> AcceleratorConfig:
        fields = {"group": self.group, "tables": INPUTS // self.group, **self.changes}
        return AcceleratorConfig.model_validate(load_config(BASE).model_dump() | fields)


LUTS = {"part": None}
VARIANTS = [
    Variant(name, group, changes)
    for name, groups, changes in (
        ("table lookup, DSP adders", (2, 3), {}),
        ("the same, two buffers", (2, 3), {"table_buffers": 2}),
        ("table lookup, LUT adders", (2, 3, 4), LUTS),
        ("the same, two buffers", (2, 3, 4), LUTS | {"table_buffers": 2}),
        ("select-add", (2, 3, 4), LUTS | {"array": "select_add"}),
    )
    for group in groups
]


def cost(config: AcceleratorConfig) -> dict[str, float]:
    """Resources of the array alone: tables, their builders, adders, without the ring and the
    accumulators' memory, which are equal in all."""
    library = ModuleLibrary()
    array, _, _ = make_array(config, library)
    text = library.convert("array", array)
    mapping = map_design(f"{text}\n{library.verilog(device=True)}", "array", FAMILY, depth=1)
    return resources(mapping.cells())


def main() -> None:
    base = load_config(BASE)
    words = base.tile_rows // base.rows
    macs = base.rows * base.tokens * INPUTS
    print(f"{macs:,} MAC a cycle; a K tile of {words} words, and of 32\n")
    print("| array | G | LUT | of it LUTRAM | FF | DSP | LUT / MAC | FF / MAC | DSP / MAC |"
          " cycles, 256 words | 32 words | LUT / MAC reached |")  # fmt: skip
    print("| --- " * 2 + "| --: " * 10 + "|")
    console = Console(stderr=True)
    for variant in VARIANTS:
        c = variant.config
        with console.status(f"{variant.name}, G = {variant.group}"):
            found = cost(c)
        long, short = (units.k_tile(c, n, c.tokens) for n in (words, 32))
        per = [found[name] / macs for name in ("lut", "ff", "dsp")]
        print(
            f"| {variant.name} | {variant.group} | {found['lut']:,.0f} | {found['lutram']:,.0f} |"
            f" {found['ff']:,.0f} | {found['dsp']:,.0f} | {per[0]:.2f} | {per[1]:.2f} |"
            f" {per[2]:.3f} | {long} | {short} | {per[0] * long / words:.2f} |"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
