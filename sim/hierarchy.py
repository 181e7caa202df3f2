"""The modules of generated Verilog: equal ones made one, and those whose boundaries stay.

Amaranth writes a module for every submodule object, so that equal blocks come as modules that
differ in nothing but names. Mapping each of them would take most of the time.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter

CORE = "core"
"""The instance under the top module that holds the units (hw/flat.py)."""

REPEATED_LINES = 1_000
"""Verilog from which on a block that is placed several times is mapped by itself."""

_MODULE = re.compile(r"^module (\\?[^\s(]+)")
_SERIAL = re.compile(r"(\\\$auto\$\S*\$)\d+ ")
_PORT = re.compile(r"\\port\$\d+\$\d+ ")
# Names that the writer makes up; their numbers count on from module to module.


class Hierarchy:
    """Generated Verilog with one module for all that are equal but for their names.

    The first of them stays, whoever instantiates another takes it.
    """

    def __init__(self, verilog: str) -> None:
        texts = _split(verilog)
        names = list(texts)
        # Longer names first: one may begin another.
        choices = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        self._instance = re.compile(
            rf"^  ({choices}) +(\S+ +)\(\n(.*?)^  \);", re.MULTILINE | re.DOTALL
        )
        self._texts = texts
        self._shared: dict[str, str] = {}
        self._first: dict[str, str] = {}
        self._ports: dict[str, dict[str, str]] = {}
        self._modules = {name: texts[name] for name in names if self._share(name) == name}

    @property
    def verilog(self) -> str:
        """Text of the modules that stay."""
        return "".join(self._modules.values())

    def units(self, top: str, depth: int = 2) -> list[str]:
        """Modules whose boundaries stay: an accelerator's units (`depth` 1) and their parts (2),
        what was emitted once (no dot in its name, like the top), and large repeated blocks."""
        kept = 1 + depth if f"\\{top}.{CORE}" in self._modules else 0
        places = Counter(child for name in self._modules for child in self._children(name))
        return [
            name.removeprefix("\\")
            for name in self._modules
            if name.count(".") <= kept or (places[name] > 1 and self._lines(name) >= REPEATED_LINES)
        ]

    def _share(self, name: str) -> str:
        if name not in self._shared:
            head, body = self._texts[name].split("(", 1)
            # Instances first: a port of theirs may have the name of one of this module's.
            body = self._instance.sub(self._place, _SERIAL.sub(r"\1 ", body))
            ports = self._ports[name] = {}
            for port in _PORT.findall(body.split(";", 1)[0]):
                ports[port] = f"\\port${len(ports)} "
                body = body.replace(port, ports[port])
            self._texts[name] = f"{head}({body}"
            digest = hashlib.sha256(body.encode()).hexdigest()
            self._shared[name] = self._first.setdefault(digest, name)
        return self._shared[name]

    def _place(self, found: re.Match[str]) -> str:
        name, instance, pins = found.groups()
        shared = self._share(name)
        for old, new in self._ports[name].items():
            pins = pins.replace(f"    .{old}(", f"    .{new}(")
        return f"  {shared} {instance}(\n{pins}  );"

    def _children(self, name: str) -> list[str]:
        return [found[1] for found in self._instance.finditer(self._modules[name])]

    def _lines(self, name: str) -> int:
        """Lines of a module with what is in it, but for modules that were emitted once."""
        inside = sum(self._lines(child) for child in self._children(name) if "." in child)
        return self._modules[name].count("\n") + inside


def _split(verilog: str) -> dict[str, str]:
    """Texts of the modules by name, in order."""
    modules = {}
    for text in re.split(r"^(?=module )", verilog, flags=re.MULTILINE)[1:]:
        found = _MODULE.match(text)
        assert found is not None
        modules[found[1]] = text
    return modules
