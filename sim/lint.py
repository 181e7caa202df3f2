"""Verilator's lint of generated Verilog."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from terntable.sim import build, toolchain

_ALLOWED = (
    "DECLFILENAME",  # one file holds all modules
    "UNUSEDSIGNAL",  # upper bits that a slice leaves
    "UNUSEDPARAM",
    "PINCONNECTEMPTY",
    "EOFNEWLINE",
)


def lint(
    verilog: str, *, top: str = "terntable", vlt: str = "", allow: tuple[str, ...] = _ALLOWED
) -> list[str]:
    """Warnings and errors of `verilator --lint-only -Wall`, a line each; empty when clean.

    `allow` names the warnings that do not count. Raises UserError when Verilator is missing.
    """
    tools = toolchain.find()
    with tempfile.TemporaryDirectory(prefix="terntable-lint-") as text:
        folder = Path(text)
        (folder / f"{top}.v").write_text(verilog, encoding="utf-8")
        (folder / "lint.vlt").write_text(build.configuration_file(vlt), encoding="utf-8")
        result = subprocess.run(
            [
                tools.verilator, "--lint-only", "-Wall", "--no-timing", "--top-module", top,
                *(f"-Wno-{name}" for name in allow), "lint.vlt", f"{top}.v",
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
