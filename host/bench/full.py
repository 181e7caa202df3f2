"""`make bench-full`: the full-size runs, one after the other; each result is a file of its own.

python -m terntable.host.bench.full [--force] [NAME ...]

A run whose result holds for the gateware of this checkout is left out, so an interrupted session
goes on where it was. With `--force` all are done, with names only these.
"""

from __future__ import annotations

import sys
import time

from terntable.hw.errors import UserError

from ..commands.bench import simulate
from ..commands.run import note
from ..output import whole_file
from .figures import Figures, bench_object
from .results import FOLDER, RUNS, Run, current_gateware, is_stale, load, record


def main(arguments: list[str]) -> int:
    """Exit status 0, 1 when RTL and emulator differ, 2 for a mistake."""
    force = "--force" in arguments
    names = [a for a in arguments if a != "--force"]
    known = {run.name: run for run in RUNS}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"no run {unknown[0]!r}: choose from {', '.join(known)}")
    exact = True
    for name, run in known.items():
        if names and name not in names:
            continue
        found = load(run)
        if not force and found is not None and not is_stale(found, run.workload.config):
            note(f"{name}: there already, on this gateware")
            continue
        exact &= do(run)
    return 0 if exact else 1


def do(run: Run) -> bool:
    """Run, write the file when RTL and emulator agree; whether they do."""
    note(f"{run.name}: {run.command}")
    work = run.workload
    gateware = current_gateware(work.config)  # of now: an hour later the sources may be others
    began = time.perf_counter()
    measured = simulate(work)
    result = bench_object(work, measured, "simulated", time.perf_counter() - began)
    figures = Figures(work, measured[0])
    note(
        f"{run.name}: {figures.measured.cycles:,} cycles, {1e3 * figures.seconds:.2f} ms,"
        f" {result['wall_s']:,.0f} s of wall time"
    )
    if not result["bit_exact"]:
        note(f"{run.name}: RTL and emulator DIFFER, nothing is written")
        return False
    FOLDER.mkdir(exist_ok=True)
    with whole_file(FOLDER / f"{run.name}.json") as file:
        file.write_text(record(run, result, gateware).text(), "utf-8")
    return True


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as e:
        print(f"bench-full: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("bench-full: interrupted; finished runs are kept", file=sys.stderr)
        sys.exit(130)
