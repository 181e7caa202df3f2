"""`terntable bench --published`: the full-size results that are kept, and whether they hold."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from ..bench.results import RUNS, Record, is_stale, load
from ..output import warn


def show_results(as_json: bool) -> None:
    """A line a run: its figures, and a warning where the gateware has changed since."""
    found = {run: record for run in RUNS if (record := load(run)) is not None}
    stale = {run: is_stale(record, run.workload.config) for run, record in found.items()}
    if as_json:
        objects = [asdict(record) | {"stale": stale[run]} for run, record in found.items()]
        print(json.dumps({"results": objects}))
        return
    table = Table()
    table.add_column("simulated RTL, all layers", no_wrap=True)
    for title in ("cycles", "", "gateware"):
        table.add_column(title, justify="right", no_wrap=True)
    for run in RUNS:
        if run in found:
            figures = speed(found[run])
            now = "older" if stale[run] else "this one"
            table.add_row(run.name, *figures, now)
        else:
            table.add_row(run.name, "", "", "not run")
    Console(file=sys.stdout, markup=False, highlight=False).print(table)
    if any(stale.values()):
        warn("results are of another gateware: make bench-full does them again")


def speed(record: Record) -> tuple[str, str]:
    """Cycles, and tokens a second or the time to the first token."""
    for point in record.result["decode"]:
        return f"{point['cycles']:,}", f"{point['tok_s']:.1f} tok/s"
    point = record.result["prefill"][0]
    return f"{point['cycles']:,}", f"{1e3 * point['ttft_s']:.1f} ms"
