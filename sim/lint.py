"""Verilator's lint of generated Verilog."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from terntable.sim import build, toolchain


class Waiver(NamedTuple):
    """A kind of warning that does not count: `rule`, where its text matches `text` (with *)."""

    rule: str
    text: str
    reason: str


_WIDENS = "Verilog widens the narrower operand as Amaranth does, by its sign"

WAIVERS = (
    Waiver("DECLFILENAME", "*", "one file holds all modules"),
    Waiver("UNUSEDSIGNAL", "Signal is not used:*", "Amaranth names every field of a struct"),
    Waiver("UNUSEDSIGNAL", "Bits of signal are not used:*", "upper bits that a slice leaves"),
    Waiver("PROCASSINIT", "*", "registers have a value before the first reset"),
    Waiver("CASEINCOMPLETE", "*", "every signal has its default before the case"),
    Waiver("WIDTHTRUNC", "Logical operator LOGNOT *", "`!x` is how Yosys writes x == 0"),
    Waiver("WIDTHTRUNC", "*RHS's SHIFTR generates*", "an array element is shifted out and cut"),
    *(
        Waiver("WIDTHEXPAND", f"Operator {name} *", _WIDENS)
        for name in ("ADD", "SUB", "MUL*", "EQ", "NEQ", "GT*", "LT*", "SHIFTL", "AND", "OR")
    ),
    Waiver("UNSIGNED", "Comparison is constant *", "reads are fenced from offset 0 on"),
)
"""What Amaranth's and Yosys's way of writing Verilog brings about everywhere."""


def lint(
    verilog: str, *, top: str = "terntable", vlt: str = "", allow: Iterable[Waiver] = WAIVERS
) -> list[str]:
    """Warnings and errors of `verilator --lint-only -Wall`, a line each; empty when clean.

    `allow` names the warnings that do not count. Raises UserError when Verilator is missing.
    """
    tools = toolchain.find()
    waivers = "".join(
        f'lint_off -rule {waiver.rule} -file "*" -match "{waiver.text}"\n' for waiver in allow
    )
    with tempfile.TemporaryDirectory(prefix="terntable-lint-") as text:
        folder = Path(text)
        (folder / f"{top}.v").write_text(verilog, encoding="utf-8")
        settings = build.configuration_file(f"{vlt}\n{waivers}")
        (folder / "lint.vlt").write_text(settings, encoding="utf-8")
        result = subprocess.run(
            [
                tools.verilator, "--lint-only", "-Wall", "--no-timing", "--top-module", top,
                "lint.vlt", f"{top}.v",
            ],
            cwd=folder, env=tools.env(), capture_output=True, text=True,
        )  # fmt: skip
    lines = [
        line
        for line in result.stderr.splitlines()
        if line.startswith("%") and "Exiting due to" not in line
    ]
    if result.returncode and not lines:
        lines = result.stderr.splitlines()[-5:]
    return lines
