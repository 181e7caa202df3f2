"""Yosys' text format of a design, cut into its modules so that each can be mapped on its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PRIVATE = re.compile(r'(?<=[\s{"])\$\S+')
_SERIAL = re.compile(r"\$(\d+)")
_WIRE = re.compile(r"^  wire (?=.*\b(?:input|output|inout) \d)")


@dataclass(frozen=True)
class ModuleText:
    """A module without notes on its sources, and the modules that it instantiates."""

    name: str
    text: str
    ports: str
    children: tuple[str, ...]

    @property
    def stub(self) -> str:
        """A black box with the module's ports."""
        return f"attribute \\blackbox 1\nmodule \\{self.name}\n{self.ports}end\n"


def split_design(text: str) -> dict[str, ModuleText]:
    """The modules of a design that `write_rtlil` wrote, by name."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    name = None
    for line in text.splitlines(keepends=True):
        if line.startswith(("#", "autoidx")) or line.lstrip().startswith("attribute \\src "):
            continue
        lines.append(line)
        if line.startswith("module "):
            name = line.split()[1].removeprefix("\\")
        elif line == "end\n":
            assert name is not None
            bodies[name], lines = lines, []
    return {name: _module(name, lines, bodies.keys()) for name, lines in bodies.items()}


def _module(name: str, lines: list[str], names: object) -> ModuleText:
    ports = "".join(line for line in lines if _WIRE.match(line))
    children = {
        kind: None
        for line in lines
        if line.startswith("  cell \\") and (kind := line.split()[1][1:]) in names  # type: ignore[operator]
    }
    return ModuleText(name, _renumbered("".join(lines)), ports, tuple(children))


def _renumbered(text: str) -> str:
    """The text with the numbers in names that Yosys made up counted from one: the module alone
    decides about them, whatever else is in the design."""
    numbers: dict[str, str] = {}

    def number(found: re.Match[str]) -> str:
        return "$" + numbers.setdefault(found[1], str(len(numbers) + 1))

    text = _PRIVATE.sub(lambda found: _SERIAL.sub(number, found[0]), text)
    return f"autoidx {len(numbers) + 1}\n{text}"
