"""`terntable report`: LUTs, registers, memories, DSPs and logic levels, against the part."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from terntable.hw.config import load_config
from terntable.hw.errors import UserError

from .run import note, say

if TYPE_CHECKING:
    from terntable.sim.report import Cost, Report

COLUMNS = {
    "lut": "LUT",
    "lutram": "of it LUTRAM",
    "ff": "FF",
    "bram36": "BRAM36",
    "uram": "URAM",
    "dsp": "DSP",
}


def report_command(config_name: str, as_json: bool) -> None:
    """Map the configuration and print what it takes. Exit status 1 when Yosys refuses it.

    Raises UserError when it can't fit its part and when something is not installed.
    """
    config = load_config(config_name)
    try:
        from terntable.sim.report import report
        from terntable.sim.synthesis import SynthesisError
    except ImportError as e:
        raise UserError(f"the report needs {e.name}: pip install 'terntable[hw]'") from None
    say(f"mapping {config.name} with Yosys: minutes where nothing is in the cache")
    try:
        found = report(config, say)
    except SynthesisError as e:
        note(f"terntable: {config.name}: {' '.join(str(e).split())}")
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        _print(found)


def _print(found: Report) -> None:
    console = Console(file=sys.stdout, markup=False, highlight=False)
    part = found.part
    target = f"family {found.config.family}" if part is None else part.name
    table = Table(title=f"{found.config.name} on {target}, mapped unit by unit with Yosys")
    table.add_column("unit")
    for column in (*COLUMNS.values(), "levels"):
        table.add_column(column, justify="right")
    for name, unit in found.units.items():
        _row(table, name, unit)
        # Equal ones are one line, whose numbers are those of each.
        for inner, piece in unit.parts.items():
            many = f" x {piece.instances}" if piece.instances > 1 else ""
            _row(table, f"  {inner}{many}", piece)
    table.add_section()
    _row(table, "all", found.total)
    if found.limits is not None:
        limits = [str(found.limits[key]) for key in COLUMNS]
        table.add_row(f"{target} has", *limits, "")
        used = [f"{100 * found.total.counts[key] / found.limits[key]:.0f} %" for key in COLUMNS]
        table.add_row("used", *used, "")
    console.print(table)
    console.print(
        f"deepest path, {found.total.levels} levels: {found.total.path[0]} to"
        f" {found.total.path[1]}",
        soft_wrap=True,
    )
    for line in found.notes:
        console.print(f"- {line}", soft_wrap=True)


def _row(table: Table, name: str, cost: Cost) -> None:
    table.add_row(name, *(f"{cost.counts[key]:g}" for key in COLUMNS), str(cost.levels))
