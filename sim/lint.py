"""Verilator's lint of generated Verilog: every warning of -Wall that does not count has a waiver.

The waivers are named and explained here and nowhere else; a waiver that no design needs any more is
an error of the tests.
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from terntable.sim import build, toolchain


class Waiver(NamedTuple):
    """A kind of warning that does not count: `rule`, where its text matches `text` (with *)."""

    name: str
    rule: str
    text: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        return self.rule == finding.rule and fnmatch.fnmatchcase(finding.text, self.text)


class Finding(NamedTuple):
    """What Verilator says. An error has no rule."""

    rule: str
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule or 'error'} at {self.place}: {self.text}"


_WIDENS = "Verilog widens the narrower operand as Amaranth does, by its sign"

WAIVERS = (
    Waiver("one-file", "DECLFILENAME", "*", "one file holds all modules"),
    Waiver(
        "unused-fields",
        "UNUSEDSIGNAL",
        "Signal is not used:*",
        "Amaranth names every field of a struct, used or not",
    ),
    Waiver(
        "unused-bits",
        "UNUSEDSIGNAL",
        "Bits of signal are not used:*",
        "bits that a slice leaves, such as the carry of a sum that wraps",
    ),
    Waiver(
        "initial-values",
        "PROCASSINIT",
        "*",
        "registers have a value before the first reset, which FPGAs load",
    ),
    Waiver(
        "defaults-before-cases",
        "CASEINCOMPLETE",
        "*",
        "every signal has its default in front of the case",
    ),
    Waiver(
        "not-as-zero",
        "WIDTHTRUNC",
        "Logical operator LOGNOT *",
        "`!x` is how Yosys writes x == 0",
    ),
    Waiver(
        "shifted-elements",
        "WIDTHTRUNC",
        "*RHS's SHIFTR generates*",
        "an element of an array is shifted to the low end and cut off there",
    ),
    *(
        Waiver(f"widened-{name.rstrip('*').lower()}", "WIDTHEXPAND", f"Operator {name} *", _WIDENS)
        for name in ("ADD", "SUB", "EQ", "NEQ", "GT*", "LT*", "SHIFTL")
    ),
    Waiver(
        "reads-from-zero",
        "UNSIGNED",
        "Comparison is constant *",
        "the fence of a read port has no lower limit: its offsets are compared with 0",
    ),
)
"""What Amaranth's and Yosys's way of writing Verilog brings about everywhere."""

_LINE = re.compile(
    r"%(?:Warning|Error)(?:-(?P<rule>\w+))?: (?:(?P<place>\S+:\d+:\d+): )?(?P<text>.*)"
)


def warnings(verilog: str, *, top: str = "terntable", vlt: str = "") -> list[Finding]:
    """All that `verilator --lint-only -Wall` says. Raises UserError when Verilator is missing."""
    tools = toolchain.find()
    with tempfile.TemporaryDirectory(prefix="terntable-lint-") as text:
        folder = Path(text)
        (folder / f"{top}.v").write_text(verilog, encoding="utf-8")
        (folder / "lint.vlt").write_text(build.configuration_file(vlt), encoding="utf-8")
        result = subprocess.run(
            [
                tools.verilator, "--lint-only", "-Wall", "--no-timing", "--top-module", top,
                "lint.vlt", f"{top}.v",
            ],
            cwd=folder, env=tools.env(), capture_output=True, text=True,
        )  # fmt: skip
    found = []
    for line in result.stderr.splitlines():
        match = _LINE.match(line)
        if match and "Exiting due to" not in line:
            found.append(Finding(match["rule"] or "", match["place"] or top, match["text"]))
    if result.returncode and not found:
        found = [Finding("", top, line) for line in result.stderr.splitlines()[-5:]]
    return found


def lint(
    verilog: str, *, top: str = "terntable", vlt: str = "", allow: Iterable[Waiver] = WAIVERS
) -> list[Finding]:
    """The warnings and errors that no waiver in `allow` covers; empty when clean."""
    waivers = tuple(allow)
    found = warnings(verilog, top=top, vlt=vlt)
    return [w for w in found if not any(waiver.covers(w) for waiver in waivers)]


def unused(found: Iterable[Finding], allow: Iterable[Waiver] = WAIVERS) -> list[str]:
    """Names of the waivers that cover none of these warnings."""
    said = set(found)
    return [waiver.name for waiver in allow if not any(waiver.covers(w) for w in said)]
